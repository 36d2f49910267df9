"""Several processes train what one does."""

import os
import subprocess
import sys

import pytest

from tandem_training.cli import main
from tandem_training.engine.report import read_history

NAMES = ("one", "four", "two")

CHANGES = [
    "policy.chunk_size=4", "policy.vision_drop=0", "policy.fusion_dropout=0", "policy.state_noise=0",
    "trainer.ema=0.9", "trainer.freeze=[readout]", "trainer.log_every=1", "trainer.early_stop_after=3",
]  # fmt: skip


@pytest.mark.slow
def test_two_processes_and_accumulation_give_the_gradient_of_one_batch(tmp_path, record, tiny):
    """The chunks of four are padded differently everywhere, so that means of means would differ."""
    data = record(tmp_path / "a.zarr", ["eee|eeee", "eeNNnee", "eeee", "eeeee"] * 3)
    arguments = [f"data={data}", *tiny, *CHANGES]
    assert main(["train", *arguments, f"out={tmp_path / 'one'}"]) == 0
    four = [*arguments, "trainer.batch_size=2", "trainer.accumulate=4"]
    assert main(["train", *four, f"out={tmp_path / 'four'}"]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tandem_training.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launch, "train", *arguments, f"out={tmp_path / 'two'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # Weights are not compared: where a gradient is 0 but for rounding, Adam makes a step of it.
    one, *others = ([record for record in read_history(tmp_path / name) if "loss" in record] for name in NAMES)
    for other in others:
        assert len(other) == len(one)
        for mine, theirs in zip(one, other, strict=True):
            assert (theirs["loss"], theirs["grad_norm"]) == pytest.approx((mine["loss"], mine["grad_norm"]), rel=1e-4)
