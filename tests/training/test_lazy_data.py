"""Images that are not held in memory, stores behind URLs, episodes marked as deleted, and stores mixed by weight."""

import json

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_training import images
from tandem_training.cli import main
from tandem_training.config import compose, section
from tandem_training.data import WeightedOrder, load_frames
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages import build_stage
from tandem_training.train import run

EPISODES = ["eeeee", "eeNNnee", "pe|ee", "eee"]


def delete(path, episode):
    with (path / "meta/deleted/c.0").open("r+b") as file:
        file.seek(episode)
        file.write(b"\1")


def build(tiny, *overrides):
    config = compose("train", [*tiny, *overrides])
    return build_stage(config, TrainerSettings.from_mapping(section(config.trainer)))


@pytest.fixture
def stores(tmp_path, record):
    return [record(tmp_path / "a", EPISODES), record(tmp_path / "b", ["ee", "eeee"], wording="go to {}")]


def test_lazy_images_make_the_same_batches(stores, tiny):
    data = f"data=[{','.join(map(str, stores))}]"
    delete(stores[0], 2)
    held, lazy = (build(tiny, data, f"stage.images={kind}") for kind in ("memory", "lazy"))
    assert isinstance(held.frames.images["top"], np.ndarray)
    assert not isinstance(lazy.frames.images["top"], np.ndarray)
    for index in range(4):
        mine, theirs = held._gather(held.order(index)), lazy._gather(lazy.order(index))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    seen = np.array([[0, 1], [15, 3]])
    np.testing.assert_array_equal(held.frames.images["top"][seen], lazy.frames.images["top"][seen])
    np.testing.assert_array_equal(held.frames.images["top"][-1], lazy.frames.images["top"][-1])
    dark = build(tiny, data, "stage.images=lazy", "stage.ablate=language_only")
    assert not dark.frames.images["top"][seen].any()


def test_a_training_from_lazy_images_and_a_url_is_the_same(tmp_path, stores, tiny):
    fsspec.filesystem("memory").put(str(stores[0]), "/training", recursive=True)
    try:
        for name, overrides in (
            ("held", [f"data={stores[0]}"]),
            ("lazy", [f"data={stores[0]}", "stage.images=lazy"]),
            ("remote", ["data='memory://training'", "stage.images=lazy"]),
        ):
            run(compose("train", [*tiny, *overrides, f"out={tmp_path / name}"]))
    finally:
        fsspec.filesystem("memory").rm("/training", recursive=True)
    held = load_file(tmp_path / "held/final/model.safetensors")
    for name in ("lazy", "remote"):
        found = load_file(tmp_path / name / "final/model.safetensors")
        assert all(torch.equal(value, found[key]) for key, value in held.items())


def test_images_that_do_not_fit_are_read_when_asked_for(stores, monkeypatch):
    monkeypatch.setattr(images, "_MOST_MEMORY", 0.0)
    frames, _ = load_frames([stores[0]])
    assert not isinstance(frames.images["top"], np.ndarray)
    with pytest.raises(TandemError, match=r"19 frames need 0\.0 GB of memory, .*stage\.images=lazy"):
        load_frames([stores[0]], images="memory")
    with pytest.raises(TandemError, match="unknown name 'disk'"):
        load_frames([stores[0]], images="disk")


def test_deleted_episodes_teach_nothing(stores):
    whole, digest = load_frames([stores[0]])
    delete(stores[0], 1)
    frames, after = load_frames([stores[0]])
    kept = whole.episode != 1
    assert frames.episode.tolist() == [0] * 5 + [1] * 4 + [2] * 3
    for key in ("state", "target", "origin", "instruction"):
        np.testing.assert_array_equal(getattr(frames, key), getattr(whole, key)[kept], err_msg=key)
    np.testing.assert_array_equal(frames.images["top"], whole.images["top"][kept])
    assert frames.run_end[-1] == len(frames.origin) == 12
    assert after == Store(stores[0]).digest != digest


def test_a_store_whose_episodes_are_all_deleted_is_empty(stores):
    for episode in range(2):
        delete(stores[1], episode)
    with pytest.raises(TandemError, match="is empty"):
        load_frames([stores[1]])


def test_weights_set_the_share_of_each_store(stores, tiny):
    stage = build(tiny, f"data=[{','.join(map(str, stores))}]", "data_weights=[1,3]", "trainer.batch_size=64")
    drawn = np.concatenate([stage.order(index) for index in range(64)])
    assert np.mean(stage.frames.store[drawn] == 1) == 0.75
    np.testing.assert_array_equal(stage.order(7), drawn[7 * 64 : 8 * 64])
    assert stage.facts["data_weights"] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("[1]", "data_weights: 1 for 2 stores"),
        ("[1,0]", r"data_weights is \[1, 0\]"),
        ("[1,-2]", "allowed: positive numbers"),
        ("[1,a]", "allowed: positive numbers"),
        ("3", "data_weights is 3"),
        ("[1,1e9]", "each at least 1/4096"),
    ],
)
def test_weights_that_cannot_be(stores, tiny, weights, words):
    with pytest.raises(TandemError, match=words):
        build(tiny, f"data=[{','.join(map(str, stores))}]", f"data_weights={weights}")


def test_a_weighted_store_must_teach_something():
    with pytest.raises(TandemError, match="here: nothing to learn from in b"):
        WeightedOrder({"a": np.arange(3), "b": np.arange(0)}, [1, 1], 4, 0, "here")


def test_named_data_take_no_weights(small_static, tiny):
    with pytest.raises(TandemError, match="data_weights: 1 for a named data set"):
        build(tiny, "data=blockfind_static", "policy.chunk_size=1", "data_weights=[1]")


def test_weights_are_kept_and_may_not_change(tmp_path, stores, tiny, refused):
    arguments = ["train", *tiny, f"data=[{','.join(map(str, stores))}]", f"out={tmp_path / 'out'}"]
    assert main([*arguments, "data_weights=[1,3]"]) == 0
    assert json.loads((tmp_path / "out/metrics.json").read_text())["data_weights"] == [1.0, 3.0]
    assert main([*arguments, "data_weights=[1,3]", "stage.images=lazy", "resume=true"]) == 0
    said = refused(*arguments, "data_weights=[3,1]", "resume=true")
    assert "resume: data_weights is [3, 1], but" in said
    assert "data_weights is None" in refused(*arguments, "resume=true")


def test_stores_that_are_not_there(refused, tiny, tmp_path):
    said = refused("train", *tiny, "data='http://127.0.0.1:9/a.zarr'", f"out={tmp_path / 'out'}")
    assert "http://127.0.0.1:9/a.zarr" in said
