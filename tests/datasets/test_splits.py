import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.splits import split
from tandem_datasets.store import Store

PARTS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def _record(path, blind, make_frames, wordings, uuids=None, deleted=()):
    with Recorder(path, blind, fsync=False, group=100) as recorder:
        for k, wording in enumerate(wordings):
            identity = {} if uuids is None else {"uuid": uuids[k]}
            info = EpisodeInfo(k, wording, deleted=k in deleted, **identity)
            recorder.write_episode(info, make_frames(blind, 1, seed=k))
    return Store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory, blind, make_frames):
    path = tmp_path_factory.mktemp("split") / "store"
    return _record(path, blind, make_frames, [f"task {k % 10}" for k in range(50)], deleted=(3, 4))


def test_every_kept_episode_is_in_one_part(store):
    parts = split(store, PARTS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == store.kept.tolist()
    assert {name: len(part) for name, part in parts.items()} == {"train": 38, "validation": 5, "test": 5}
    assert all(part.tolist() == sorted(part.tolist()) for part in parts.values())
    assert {3, 4}.isdisjoint(np.concatenate(list(parts.values())).tolist())


def test_a_split_is_seeded(store):
    one, again, other = split(store, PARTS, seed=1), split(store, PARTS, seed=1), split(store, PARTS, seed=2)
    assert all(one[name].tolist() == again[name].tolist() for name in PARTS)
    assert one["test"].tolist() != other["test"].tolist()


def test_tasks_stay_together(store):
    parts = split(store, PARTS, by="task")
    tasks = np.array(store.episode_texts("task"))
    seen = {name: set(tasks[part].tolist()) for name, part in parts.items()}
    assert {name: len(some) for name, some in seen.items()} == {"train": 8, "validation": 1, "test": 1}
    assert set.union(*seen.values()) == set(tasks.tolist())


def test_the_order_of_recording_does_not_matter(tmp_path, blind, make_frames):
    uuids = [f"00000000-0000-0000-0000-{k:012d}" for k in range(20)]
    one = _record(tmp_path / "a", blind, make_frames, ["say"] * 20, uuids)
    other = _record(tmp_path / "b", blind, make_frames, ["say"] * 20, uuids[::-1])
    first, second = split(one, PARTS)["test"], split(other, PARTS)["test"]
    assert sorted(first.tolist()) == sorted((19 - second).tolist())


@pytest.mark.parametrize("count", [3, 4, 5])
def test_every_part_of_a_small_store_holds_an_episode(tmp_path, blind, make_frames, count):
    store = _record(tmp_path / "a", blind, make_frames, ["say"] * count)
    parts = split(store, {"train": 0.98, "validation": 0.01, "test": 0.01})
    assert [len(part) for part in parts.values()] == [count - 2, 1, 1]


@pytest.mark.parametrize(
    ("fractions", "by", "words"),
    [
        ({"a": 0.5}, "episode", "fractions are"),
        ({"a": 1.5, "b": -0.5}, "episode", "fractions are"),
        ({}, "episode", "fractions are"),
        ({"a": 1.0}, "robot", "unknown name 'robot'"),
        ({f"p{k}": 1 / 11 for k in range(11)}, "task", "10 tasks for 11 parts"),
    ],
)
def test_splits_that_cannot_be(store, fractions, by, words):
    with pytest.raises(TandemError, match=words):
        split(store, fractions, by)
    with pytest.raises(TandemError, match="seed is -1"):
        split(store, {"a": 1.0}, seed=-1)
