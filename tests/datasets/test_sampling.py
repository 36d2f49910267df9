"""The same windows in the same order, whichever processes read them, and after a stop exactly the next ones."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.dataset import WindowDataset
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.sampling import WindowSampler
from tandem_datasets.store import Store
from tandem_datasets.windows import SOURCES, WindowReader, WindowSpec

SPEC = WindowSpec(history=2, chunk=4)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, embodiment, make_frames):
    found = []
    for name, lengths in (("a", (30, 40)), ("b", (20,))):
        path = tmp_path_factory.mktemp("sampling") / name
        with Recorder(path, embodiment, fsync=False) as recorder:
            for k, length in enumerate(lengths):
                frames = make_frames(embodiment, length, seed=k)
                if name == "b":  # only this one holds a person's actions
                    frames = [replace(frame, source=Source.PERSON, label=None) for frame in frames]
                else:
                    frames = [
                        replace(frame, source=Source.EXPERT) if frame.source is Source.PERSON else frame
                        for frame in frames
                    ]
                recorder.write_episode(EpisodeInfo(k, "say"), frames)
        found.append(Store(path))
    return found


@pytest.fixture(scope="module")
def dataset(stores):
    return WindowDataset.of(stores, SPEC)


def test_windows_of_two_stores(stores, dataset):
    first, second = (WindowReader(store, SPEC) for store in stores)
    assert len(dataset) == len(first) + len(second)
    batch = dataset.read([len(first), 0, len(first) + 3])
    assert batch["store"].tolist() == [1, 0, 1]
    for key in ("images.top", "state", "action"):
        np.testing.assert_array_equal(batch[key][[0, 2]], second.read([0, 3])[key])
        np.testing.assert_array_equal(batch[key][1], first.read([0])[key][0])
    texts = [dataset.instructions[code] for code in batch["instruction"]]
    assert texts[1] == stores[0].instructions[first.read([0])["instruction"][0]]
    item = dataset[len(first)]
    assert item["images.top"].shape == (2, 6, 8, 3)
    np.testing.assert_array_equal(item["action"], batch["action"][0])


def test_stores_that_do_not_belong_together(tmp_path, stores, blind):
    Recorder(tmp_path / "blind", blind).close()
    with pytest.raises(TandemError, match="is of another embodiment than"):
        WindowDataset.of([stores[0], Store(tmp_path / "blind")])
    with pytest.raises(TandemError, match="has other windows than"):
        WindowDataset([WindowReader(stores[0], SPEC), WindowReader(stores[1])])
    with pytest.raises(TandemError, match="no store"):
        WindowDataset([])


def test_ranks_share_one_order(dataset):
    alone = list(WindowSampler(dataset, 8, seed=7))
    ranks = [list(WindowSampler(dataset, 4, seed=7, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in alone]
    one = WindowSampler(dataset, 8, seed=7)
    drawn = [batch for _, batch in zip(range(2), one, strict=False)]
    half = WindowSampler(dataset, 4, seed=7, rank=1, world=2)  # goes on with twice as many processes
    half.load_state_dict(one.state_dict())
    assert next(iter(half)) == alone[2][1::2]
    assert drawn == alone[:2]


def test_an_epoch_whose_rest_makes_no_batch_of_another_size(dataset):
    """Bug: resumed so, every pass was empty, for ever."""
    small = WindowSampler(dataset, 8, seed=7)
    list(zip(range(len(small) - 1), small, strict=False))
    large = WindowSampler(dataset, 30, seed=7)
    large.load_state_dict(small.state_dict())
    assert large.epoch == 1
    again = WindowSampler(dataset, 30, seed=7)
    list(again)
    assert list(large) == list(again)


def test_epochs_differ_and_are_whole(dataset):
    sampler = WindowSampler(dataset, 8)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert sampler.epoch == 2
    assert len({window for batch in first for window in batch}) == 8 * len(sampler)
    ordered = WindowSampler(dataset, 8, shuffle=False)
    assert next(iter(ordered)) == list(range(8))


def test_stores_and_sources_by_weight(dataset):
    sampler = WindowSampler(dataset, 8, store_weights=[3, 1])
    drawn = np.concatenate([list(sampler) for _ in range(120)]).reshape(-1)
    assert np.mean(dataset.stores[drawn] == 0) == pytest.approx(0.75, abs=0.01)
    sampler = WindowSampler(dataset, 8, source_weights={"person": 1, "label": 1})
    drawn = np.concatenate([list(sampler) for _ in range(120)]).reshape(-1)
    kinds = dataset.sources[drawn]
    assert set(kinds.tolist()) == {SOURCES["person"], SOURCES["label"]}
    assert np.mean(kinds == SOURCES["person"]) == pytest.approx(0.5, abs=0.01)


def test_a_store_has_its_share_whatever_sources_it_has(dataset):
    """Bug: a store that lacks a source was drawn less often than its weight says."""
    both = WindowSampler(dataset, 8, store_weights=[1, 1], source_weights={"person": 1, "label": 3, "expert": 1})
    drawn = np.concatenate([list(both) for _ in range(120)]).reshape(-1)
    stores, sources = dataset.stores[drawn], dataset.sources[drawn]
    assert np.mean(stores == 0) == pytest.approx(0.5, abs=0.01)
    assert set(sources[stores == 1].tolist()) == {SOURCES["person"]}
    assert np.mean(sources[stores == 0] == SOURCES["label"]) == pytest.approx(0.75, abs=0.01)
    with pytest.raises(TandemError, match="b has no window from label, expert"):
        WindowSampler(dataset, 8, store_weights=[1, 1], source_weights={"label": 3, "expert": 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"store_weights": [1]}, "1 weights for 2 stores"),
        ({"store_weights": [1, 0]}, "weights are"),
        ({"source_weights": {"robot": 1}}, "unknown name 'robot'"),
        ({"source_weights": {"hold": 1, "person": 1}}, "no window is from hold"),
        ({"store_weights": [1, 1], "shuffle": False}, "shuffle=False with weights"),
        ({"batch_size": 10_000}, "windows for batches of 10000"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
    ],
)
def test_samplers_that_cannot_be(dataset, options, words):
    with pytest.raises(TandemError, match=words):
        WindowSampler(dataset, **{"batch_size": 4, **options})


def test_an_order_of_something_else_is_not_resumed(dataset, stores):
    state = WindowSampler(dataset, 8, seed=1).state_dict()
    with pytest.raises(TandemError, match="resume: seed is 2, but was 1"):
        WindowSampler(dataset, 8, seed=2).load_state_dict(state)
    with pytest.raises(TandemError, match="resume: content is"):
        WindowSampler(WindowDataset.of(stores[:1], SPEC), 8, seed=1).load_state_dict(state)
    first, later = (WindowReader(stores[0], SPEC) for _ in range(2))
    later.frames = later.frames + 1  # as many, but others
    assert WindowDataset([first]).content != WindowDataset([later]).content
    with pytest.raises(TandemError, match="resume: weights is"):
        WindowSampler(dataset, 8, seed=1, store_weights=[1, 2]).load_state_dict(state)
    with pytest.raises(TandemError, match="resume: samples is"):
        WindowSampler(dataset, 8, seed=1).load_state_dict(state | {"samples": -1})


def test_a_store_without_windows(tmp_path, embodiment):
    Recorder(tmp_path / "store", embodiment).close()
    with pytest.raises(TandemError, match="there is no window"):
        WindowSampler(WindowDataset.of([Store(tmp_path / "store")]), 1)


def test_torch_is_not_needed():
    code = "import sys, tandem_datasets.sampling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
