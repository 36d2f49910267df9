"""LeRobot's policies in our engine: stores give what their losses want, and what is trained opens and trains on."""

import numpy as np
import pytest
import torch

from tandem_policies.files import open_network
from tandem_training.config import compose
from tandem_training.data import load_frames
from tandem_training.train import run

FEW = ["trainer.max_steps=3", "trainer.batch_size=4", "trainer.warmup_steps=1"]
POLICIES = {
    "act": ["policy.chunk_size=2", "policy.options.dim_model=32", "policy.options.n_heads=2"],
    "diffusion": ["policy.chunk_size=3", "policy.options.n_obs_steps=2", "policy.options.down_dims=[8,16]"],
}


def test_past_actions_stay_in_their_run(tmp_path, record):
    """Actions are (t / 100, episode / 100); another instruction or another origin begins a run."""
    record(tmp_path / "a.zarr", ["eee|ee", "eeN"])
    frames, _ = load_frames([tmp_path / "a.zarr"])
    past, is_pad = frames.past(np.arange(8), 2)
    assert (past[..., 0] * 100).round().tolist() == [
        [0, 0], [0, 0], [0, 1],  # the first actions are repeated where there are none before
        [3, 3], [3, 3],
        [0, 0], [0, 0],
        [52, 52],
    ]  # fmt: skip
    assert is_pad.tolist() == [
        [True, True], [True, False], [False, False],
        [True, True], [True, False],
        [True, True], [True, False],
        [True, True],
    ]  # fmt: skip
    assert (past[5:7, :, 1] * 100).round().tolist() == [[1, 1], [1, 1]]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", POLICIES)
def test_it_trains_from_a_store_opens_and_trains_on(tmp_path, record, small_embodiment, tiny_training, name):
    data = record(tmp_path / "a.zarr", ["eeeee", "eeee", "eeeeee"] * 2)
    training = [*tiny_training, *FEW, f"data={data}"]
    settings = [f"policy=lerobot/{name}", *POLICIES[name], *training]
    groups = "trainer.groups=[{pattern: backbone, lr: 1e-5}]"
    first = run(compose("train", [*settings, groups, f"out={tmp_path / 'first'}"]))
    assert np.isfinite(first.metrics["val"]["loss"])
    network = open_network(first.best)
    assert network.embodiment == small_embodiment
    assert 0.4 < float(network.get_buffer("images_top_mean").mean()) < 0.6  # the store's images are noise
    torch.testing.assert_close(network.get_buffer("state_min"), torch.zeros(1))
    second = run(compose("train", [*training, f"init={first.best}", f"out={tmp_path / 'second'}"]))
    kept = open_network(second.final)
    assert kept.config == network.config
    assert any(not torch.equal(one, other) for one, other in zip(kept.parameters(), network.parameters(), strict=True))
