"""The stage ``policy`` on named data and on recorded episodes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tandem_datasets.errors import TandemError
from tandem_training.cli import main
from tandem_training.config import compose, section
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages import build_stage

SMALL = ["policy.dim=32", "policy.fusion_heads=4"]


def build(*overrides):
    config = compose("train", [*SMALL, *overrides])
    return build_stage(config, TrainerSettings.from_mapping(section(config.trainer)))


def test_named_data_validate_on_their_own_split(small_static):
    stage = build("data=blockfind_static", "preset=static")
    assert (len(stage.validation), stage.facts["episodes_train"]) == (24, 48)
    assert set(stage.frames.store[stage.validation]) == {1}
    learned = np.concatenate([stage.order(index) for index in range(4)])
    assert set(stage.frames.store[learned]) == {0}
    assert set(stage.validate()) == {"loss", "action_l2", "direction_cosine", "direction_accuracy"}


def test_nothing_is_known_of_what_is_validated_on(tmp_path, record):
    """Neither samples nor statistics; the second number of an action is its episode's."""
    stage = build(f"data={record(tmp_path / 'a', ['eeee'] * 6)}", "stage.val_fraction=0.5")
    learned = np.unique(stage.order(0))
    assert len(learned) == len(stage.validation) == 12
    assert sorted([*learned, *stage.validation]) == stage.frames.usable.tolist()
    for key, values in (("state", stage.frames.state), ("action", stage.frames.target)):
        np.testing.assert_allclose(stage.module.get_buffer(f"{key}_mean"), values[learned].mean(0), rtol=1e-5)
    assert not np.isclose(stage.frames.target[learned].mean(0)[1], stage.frames.target.mean(0)[1])


def test_the_seed_decides_weights_order_and_split(small_static, tmp_path, record):
    """Named data have a split of their own, so that their order is the seed's alone."""
    data, seeds = record(tmp_path / "a", ["eeee"] * 20), (1, 1, 2)
    named = [build("data=blockfind_static", "preset=static", f"seed={seed}") for seed in seeds]
    for one, same, other in (
        [stage.module.vision.stem.weight.detach().numpy() for stage in named],
        [stage.order(0) for stage in named],
        [build(f"data={data}", f"seed={seed}").validation for seed in seeds],
    ):
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)


def test_the_benchmark_trains_by_its_name(small_static):
    arguments = ["data=blockfind_static", "preset=static", "trainer.max_steps=4", "trainer.batch_size=8", "out=out"]
    assert main(["train", *SMALL, *arguments]) == 0
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["data"] == [str(small_static.store(split)) for split in ("train", "validation")]
    assert main(["train", *SMALL, *arguments, "resume=true"]) == 0


def test_a_resume_does_not_learn_from_what_was_validated_on(small_static, capsys):
    """The same stores in the same order, but all of them to learn from."""
    arguments = ["preset=static", "trainer.max_steps=2", "trainer.batch_size=8", "out=out"]
    assert main(["train", *SMALL, *arguments, "data=blockfind_static"]) == 0
    both = ",".join(str(small_static.store(split)) for split in ("train", "validation"))
    assert main(["train", *SMALL, *arguments, f"data=[{both}]", "resume=true"]) == 2
    assert "content of data has changed since out was begun, or its split" in capsys.readouterr().err


def test_chunks_longer_than_a_sample_are_refused(small_static):
    with pytest.raises(TandemError, match=r"chunk_size is 4 \(allowed: 1\.\.1"):
        build("data=blockfind_static")


def test_pictures_show_validation_samples(small_static, tmp_path, record):
    stages = [
        build("data=blockfind_static", "preset=static"),
        build(f"data={record(tmp_path / 'a', ['eeeee', 'ee|ee'])}", "policy.n_action_steps=2"),
    ]
    for stage in stages:
        stage.module.eval()
        pictures = stage.pictures()
        assert set(pictures) == {"predictions"}
        picture = pictures["predictions"]
        assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
        np.testing.assert_array_equal(picture, stage.pictures()["predictions"])


def test_controls_reach_the_batches(small_static):
    base = ("data=blockfind_static", "preset=static")
    dark = build(*base, "stage.ablate=language_only")
    assert not dark.frames.images["top"].any()
    assert build(*base, "stage.ablate=vision_only").tokens["tokens"].shape[0] == 1
    with pytest.raises(TandemError, match="did you mean 'shuffled'"):
        build(*base, "stage.ablate=shufled")


@pytest.mark.parametrize(("played", "error"), [(1, 0.0), (2, 2.0)])
def test_the_error_is_of_the_actions_that_are_played(tmp_path, record, played, error):
    """Of three frames all have a first action and two a second one, which misses by 5; the third is never played."""
    data = record(tmp_path / "a", ["eee"] * 4)
    stage = build(f"data={data}", "policy.chunk_size=3", f"policy.n_action_steps={played}")
    stage.module.eval()
    stage.module.predict = lambda batch: batch["action"] + torch.tensor([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]])
    assert stage.validate()["action_l2"] == pytest.approx(error, abs=1e-6)


def test_the_validation_loss_does_not_depend_on_the_batches(tmp_path, record, monkeypatch):
    """Ends of episodes are padded, so that a mean over batches is not the mean over actions."""
    stage = build(f"data={record(tmp_path / 'a', ['eeeee', 'eeee', 'ee|ee'])}")
    stage.module.eval()
    losses = []
    for size in (256, 2, 1):
        monkeypatch.setattr("tandem_training.stages.policy._VAL_BATCH", size)
        torch.manual_seed(0)
        losses.append(stage.validate()["loss"])
    assert len(stage.validation) > 2
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
