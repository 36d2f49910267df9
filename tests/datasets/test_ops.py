"""Merging, splitting, filtering, trimming, relabelling, deleting and compacting real stores."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tandem_datasets import files
from tandem_datasets.compare import episodes_equal
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.ops.changing import Ends, Facts, compact, delete, relabel, trim
from tandem_datasets.ops.choosing import Choice, choose, ranges
from tandem_datasets.ops.joining import filtered, merge, split
from tandem_datasets.ops.validate import validate
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

LENGTHS = (200, 70, 30, 2)
KILLER = Path(__file__).with_name("ops_killed.py")


@pytest.fixture(scope="module")
def make_store(tmp_path_factory, embodiment, make_frames):
    def make(seed, codec="zstd", rig=None):
        path = tmp_path_factory.mktemp("made") / "store"
        rig = rig or embodiment
        with Recorder(path, rig, codec=codec, fsync=False) as recorder:
            for k, length in enumerate(LENGTHS):
                good = k % 2 == 0
                info = EpisodeInfo(
                    10 * seed + k,
                    f"pick cup {k % 2}",
                    env="lab",
                    outcome="success" if good else "dropped",
                    success=good,
                    provenance={"operator": "Ada"},
                )
                recorder.write_episode(info, make_frames(rig, length, seed=seed + k))
        return path

    return make


@pytest.fixture(scope="module")
def first(make_store):
    return make_store(1)


@pytest.fixture(scope="module")
def second(make_store):
    return make_store(2)


@pytest.fixture
def path(first, tmp_path):
    return shutil.copytree(first, tmp_path / "store")


def same(found, episodes, store, wanted):
    for k, w in zip(episodes, wanted, strict=True):
        found.verify(k)
        assert episodes_equal(found, k, store, w) == []


def stored_bytes(store, episode):
    rows = store.episode_slice(episode)
    return store.stored("top", rows.start, rows.stop)


# -- merge


def test_merging_copies_what_is_stored(first, second, tmp_path):
    told = []
    merged = merge([first, second], tmp_path / "both", progress=lambda *args: told.append(args))
    a, b = Store(first), Store(second)
    same(merged, range(4), a, range(4))
    same(merged, range(4, 8), b, range(4))
    assert [merged.info(k) for k in range(4)] == a.infos()  # uuid and provenance, too
    assert stored_bytes(merged, 5) == stored_bytes(b, 1)
    assert told[-1] == (8, 8, "episodes")
    assert not validate(tmp_path / "both").broken
    assert os.listdir(tmp_path) == ["both"]


def test_merging_other_codecs_encodes_anew(first, make_store, tmp_path):
    third = make_store(3, "jpegxl")
    with pytest.raises(TandemError, match="zstd, jpegxl"):
        merge([first, third], tmp_path / "both")
    merged = merge([first, third], tmp_path / "both", codec="jpegxl")
    same(merged, range(4), Store(first), range(4))
    same(merged, range(4, 8), Store(third), range(4))
    assert stored_bytes(merged, 4) == stored_bytes(Store(third), 0)


def test_what_does_not_fit_is_not_merged(first, embodiment, make_store, path, tmp_path):
    wider = replace(embodiment, action=(embodiment.action[0], replace(embodiment.action[1], high=0.5)))
    other = make_store(4, rig=wider)
    with pytest.raises(TandemError, match=r"tcp/dx.*high"):
        merge([first, other], tmp_path / "both")
    assert merge([first, other], tmp_path / "wide", widen=True).embodiment == wider
    with pytest.raises(TandemError, match="does not fit"):
        merge(
            [first, make_store(5, rig=replace(embodiment, cameras=embodiment.cameras[:1]))], tmp_path / "x", widen=True
        )
    with pytest.raises(TandemError, match="duplicates=skip"):
        merge([first, path], tmp_path / "twice")
    assert merge([first, path], tmp_path / "once", duplicates="skip").n_episodes == 4
    with pytest.raises(TandemError, match="in use"):
        merge([first], tmp_path / "once")
    with pytest.raises(TandemError, match="there is none"):
        merge([first, tmp_path / "none"], tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["once", "store", "wide"]


def test_damage_is_not_copied(path, tmp_path):
    with (path / "data/state/c.0.0").open("r+b") as file:
        file.seek(205 * 12)
        file.write(b"\1\2\3\4")
    with pytest.raises(TandemError, match="episode 1 is damaged"):
        merge([path], tmp_path / "new")
    assert os.listdir(tmp_path) == ["store"]
    assert validate(path, repair=True).deleted == [1]
    assert merge([path], tmp_path / "new").n_episodes == 3


def test_merging_empty_stores(tmp_path, embodiment):
    Recorder(tmp_path / "empty", embodiment).close()
    assert merge([tmp_path / "empty"], tmp_path / "new").n_episodes == 0
    with pytest.raises(TandemError, match="no episode is left"):
        filtered(tmp_path / "empty", tmp_path / "none", Choice())
    with pytest.raises(TandemError, match="no episode"):
        delete(tmp_path / "empty", Choice(episodes=0))
    assert compact(tmp_path / "empty") == 0


# -- choosing


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), [0, 1, 2, 3]),
        (Choice(episodes="[0,2-3]"), [0, 2, 3]),
        (Choice(episodes=[1, "2-3"], success=True), [2]),
        (Choice(task="PICK*1"), [1, 3]),
        (Choice(task=["pick cup 0", "*1"]), [0, 1, 2, 3]),
        (Choice(outcome="dropped", env="lab"), [1, 3]),
        (Choice(seeds="11-12"), [1, 2]),
        (Choice(min_frames=30, max_frames=100), [1, 2]),
        (Choice(source="expert"), [0, 1, 2]),  # who acts goes round: the last one has two frames
        (Choice(source=["person"]), [0, 1, 2, 3]),
    ],
)
def test_conditions(first, choice, wanted):
    assert choose(Store(first), choice).tolist() == wanted


@pytest.mark.parametrize(
    "choice",
    [
        Choice(episodes=4), Choice(episodes=-1), Choice(episodes="a"), Choice(episodes="3-1"), Choice(episodes=True),
        Choice(episodes="0-99999999999"), Choice(episodes={"a": 1}), Choice(task="nothing"), Choice(source="robot"),
        Choice(task=[None]), Choice(episodes="__import__('os')"),
    ],
)  # fmt: skip
def test_conditions_that_cannot_be(first, choice):
    with pytest.raises(TandemError) as caught:
        choose(Store(first), choice)
    assert len(str(caught.value).splitlines()) == 1


def test_ranges():
    assert ranges("[0, 3,5-9]", "").tolist() == [0, 3, 5, 6, 7, 8, 9]
    assert ranges([3, 3, "1-2"], "").tolist() == [1, 2, 3]


def test_filter_and_split(first, tmp_path):
    store = Store(first)
    made = filtered(first, tmp_path / "good", Choice(success=True))
    same(made, range(2), store, [0, 2])
    parts = split(first, tmp_path / "parts", {"train": 0.5, "rest": 0.5}, by="task")
    assert sorted(os.listdir(tmp_path / "parts")) == ["rest.zarr", "train.zarr"]
    assert {info.uuid for part in parts.values() for info in part.infos()} == {info.uuid for info in store.infos()}
    assert len({info.instruction for info in parts["train"].infos()}) == 1
    with pytest.raises(TandemError, match="letters"):
        split(first, tmp_path / "more", {"../up": 1.0})


# -- trim


def test_trimming(first, tmp_path):
    store = Store(first)
    made, frames, short = trim(first, tmp_path / "cut", Ends(first=10, last=5, min_frames=20), Choice(max_frames=100))
    assert (frames, short) == (2 * 15 - 15, 2)  # of 30 frames 15 would be left, of 2 none
    assert made.n_episodes == 2
    same(made, [0], store, [0])
    before, after = store.frames(1), made.frames(1)
    assert [f.action.tobytes() for f in after] == [f.action.tobytes() for f in before[10:65]]
    assert all(
        np.array_equal(a.observation.images["top"], b.observation.images["top"])
        for a, b in zip(after, before[10:65], strict=True)
    )
    old, info = store.info(1), made.info(1)
    assert info.begin_ns == after[0].observation.stamp_ns
    assert info.end_ns == before[65].observation.stamp_ns
    assert info.provenance["trimmed"] == {"uuid": old.uuid, "first": 10, "last": 64, "frames": 70}
    assert info.uuid != old.uuid
    assert after[-1].truncated
    assert not validate(tmp_path / "cut").broken
    again, _, _ = trim(first, tmp_path / "again", Ends(first=10, last=5), Choice(episodes=1))
    assert again.info(1).uuid == info.uuid


def test_trimming_seconds_and_stillness(tmp_path, embodiment, make_frames):
    still = make_frames(embodiment, 1)[0]
    frames = make_frames(embodiment, 60)
    for t in (*range(12), *range(50, 60)):
        seen = replace(frames[t].observation, state=still.observation.state)
        frames[t] = replace(frames[t], observation=seen, action=still.action)
    with Recorder(tmp_path / "store", embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, "say"), frames)
    made, _, _ = trim(tmp_path / "store", tmp_path / "a", Ends(still=0.0, margin=2))
    assert made.info(0).provenance["trimmed"]["first"] == 10
    assert made.info(0).provenance["trimmed"]["last"] == 52
    made, _, _ = trim(tmp_path / "store", tmp_path / "b", Ends(first_s=0.5, last_s=0.5))
    assert made.n_frames == 60 - 15 - 15
    with pytest.raises(TandemError, match="nothing to cut off"):
        trim(tmp_path / "store", tmp_path / "c", Ends())
    with pytest.raises(TandemError, match="no episode is left"):
        trim(tmp_path / "store", tmp_path / "c", Ends(first=60))


# -- in place


def test_marks_are_one_byte(path, first):
    before = {file: file.read_bytes() for file in path.rglob("c.*") if file.is_file()}
    assert delete(path, Choice(outcome="dropped")).tolist() == [1, 3]
    assert Store(path).kept.tolist() == [0, 2]
    changed = [file for file, data in before.items() if file.read_bytes() != data]
    assert changed == [path / "meta/deleted/c.0"]
    with pytest.raises(TandemError, match="not marked"):
        delete(path, Choice(episodes=1))
    assert delete(path, Choice(episodes="0-3"), deleted=False).tolist() == [1, 3]
    assert {file: file.read_bytes() for file in before} == before
    with pytest.raises(TandemError, match="no condition"):
        delete(path, Choice())


def test_other_facts(path, first):
    assert relabel(path, Choice(episodes=0), Facts(outcome="dropped", failure_reason="too fast")).tolist() == [0]
    store, old = Store(path), Store(first)
    wanted = replace(old.info(0), outcome="dropped", success=False, failure_reason="too fast")
    assert store.info(0) == wanted
    same(store, [1, 2, 3], old, [1, 2, 3])
    assert not validate(path).broken
    for facts in (Facts(), Facts(success=False), Facts(outcome="success", success=False), Facts(outcome="too fast")):
        with pytest.raises(TandemError):
            relabel(path, Choice(episodes=0), facts)


def test_another_task_is_in_every_frame(path, tmp_path, embodiment, make_frames):
    delete(path, Choice(episodes=3))
    with Recorder(path, embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(9, "find the red block"), make_frames(embodiment, 9))
    before = Store(path)
    info = before.info(4)
    relabel(path, Choice(episodes=4), Facts(task="find the blue block"))
    store = Store(path)
    heard = {frame.observation.instruction for frame in store.frames(4)}
    assert heard == {"find the blue block", "finde den roten Würfel"}
    assert store.info(4) == replace(info, instruction="find the blue block")
    assert store.kept.tolist() == [0, 1, 2, 4]  # marks stay
    assert not validate(path).broken
    with pytest.raises(TandemError, match="replaced"):
        before.frames(4)


def test_compacting(path, first, embodiment, make_frames):
    delete(path, Choice(episodes="0,3"))
    reader, untouched = Store(path), Store(path)
    reader.load("top", 0, 1)
    rows = untouched.rows("top")
    rows[np.array([0])]
    told = []
    assert compact(path, progress=lambda *args: told.append(args)) == 2
    assert told[-1] == (2, 2, "episodes")
    same(Store(path), [0, 1], Store(first), [1, 2])
    assert Store(path).info(0) == Store(first).info(1)
    for attempt in (lambda: reader.load("top", 0, 1), lambda: rows[np.array([290])], reader.refresh, reader.infos):
        with pytest.raises(TandemError, match="replaced by another while it was open"):
            attempt()
    assert len(rows[np.array([3])]) == 1  # of a file that it has open
    assert not (path.parent / ".store.beside").exists()
    with Recorder(path, embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(9, "again"), make_frames(embodiment, 4))
    assert compact(path, path.parent / "other") == 0
    assert Store(path.parent / "other").n_episodes == 3


def test_strangers_are_not_thrown_away(path):
    delete(path, Choice(episodes=0))
    (path / "data/mine").mkdir()
    with pytest.raises(TandemError, match="data/mine"):
        compact(path)
    assert (path / "data/mine").exists()


# -- two at once, and disks that refuse


def test_two_at_once(path, first, tmp_path, embodiment):
    with Recorder(path, embodiment, fsync=False):
        for attempt in (lambda: compact(path), lambda: delete(path, Choice(episodes=0)), lambda: validate_repair(path)):
            with pytest.raises(TandemError, match="another writer"):
                attempt()
    delete(path, Choice(episodes=0))
    seen = []

    def meanwhile(done, total, unit):
        for attempt in (
            lambda: Recorder(path, embodiment),
            lambda: compact(path),
            lambda: delete(path, Choice(episodes=1)),
        ):
            with pytest.raises(TandemError, match="another writer"):
                attempt()
        seen.append(Store(path).n_episodes)

    assert compact(path, progress=meanwhile) == 1
    assert seen == [4, 4, 4]

    def merge_again(done, total, unit):
        with pytest.raises(TandemError, match="another writer"):
            merge([first], tmp_path / "new")

    assert merge([first], tmp_path / "new", progress=merge_again).n_episodes == 4


def validate_repair(path):
    (path / "data/zarr.json").unlink()
    validate(path, repair=True)


class Refusing:
    """Lets the operation of this number fail."""

    def __init__(self, number):
        self.number, self.count = number, 0

    def run(self, operation, path, whole, half):
        self.count += 1
        if self.count == self.number:
            raise OSError(28, "No space left on device")
        return whole()


def test_read_only_folders(path, tmp_path):
    """The tests may run as root, whom no permission stops."""

    class ReadOnly:
        def run(self, operation, path, whole, half):
            raise OSError(30, "Read-only file system")

    (path / "data/top/c.9.0.0.0").touch()  # a leftover, which a writer removes
    wanted = Store(path).digest
    files.inject(ReadOnly())
    try:
        for attempt in (
            lambda: delete(path, Choice(episodes=0)),
            lambda: relabel(path, Choice(episodes=0), Facts(outcome="dropped")),
            lambda: compact(path),
            lambda: merge([path], tmp_path / "new"),
            lambda: merge([path], tmp_path / "a/b/new"),
            lambda: validate(path, repair=True),
        ):
            with pytest.raises(TandemError, match="Read-only") as caught:
                attempt()
            assert len(str(caught.value).splitlines()) == 1
    finally:
        files.inject(None)
    assert Store(path).digest == wanted
    (tmp_path / "file").touch()
    with pytest.raises(TandemError, match="cannot be written"):
        merge([path], tmp_path / "file/new")


@pytest.mark.parametrize("work", ["merge", "compact"])
def test_a_disk_that_refuses_anywhere(path, first, tmp_path, work):
    """A few of all operations here; `tandem drill store` tries every one."""
    delete(path, Choice(episodes=0))
    wanted = Store(path).digest

    def said():
        """What the failed attempt says; nothing if it did not fail."""
        try:
            merge([path], tmp_path / "new") if work == "merge" else compact(path)
        except TandemError as error:
            return str(error)
        finally:
            files.inject(None)
        return ""

    number, step = 1, 37
    while True:
        files.inject(Refusing(number))
        reason = said()
        if not reason:
            break
        assert "No space left" in reason
        assert Store(path).digest == wanted
        assert not (tmp_path / "new").exists()
        number += step
    assert number > 5 * step
    found = Store(tmp_path / "new" if work == "merge" else path)
    same(found, range(3), Store(first), [1, 2, 3])


@pytest.mark.parametrize("work", ["merge", "compact"])
def test_killed_in_the_middle(path, first, tmp_path, work):
    delete(path, Choice(episodes=0))
    killed = subprocess.run(
        [sys.executable, str(KILLER), work, str(path), str(tmp_path / "new"), "8"],
        capture_output=True,
        text=True,
        check=False,
    )
    counts = [int(line) for line in killed.stdout.split()]
    assert killed.returncode == 0, killed.stderr[-2000:]
    assert len(counts) == 8
    assert set(counts) <= ({3, 4} if work == "compact" else {0, 3})
    found = merge([path], tmp_path / "last") if work == "merge" else Store(path)
    same(found, range(3), Store(first), [1, 2, 3])
    assert sorted(os.listdir(tmp_path)) == (["last", "new", "store"] if work == "merge" else ["store"])
