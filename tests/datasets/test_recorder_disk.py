"""Recording while the disk is slow, full, forbidden or gone: nothing committed changes, nothing is dropped unsaid."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import threading
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from tandem_datasets import files
from tandem_datasets.codecs import CODECS
from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.locks import WriterLock
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

INFO = EpisodeInfo(seed=3, instruction="find the red block")


@pytest.fixture
def limit():
    """Sets the largest size of a file; beyond it the disk answers as if it were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


class Refusing:
    """Lets operations of one kind fail."""

    def __init__(self, operation: str, part: str = "", number: int = errno.EIO) -> None:
        self.operation, self.part, self.number = operation, part, number
        self.refused = 0

    def run(self, operation, path, whole, half):
        if operation == self.operation and self.part in path:
            self.refused += 1
            raise OSError(self.number, os.strerror(self.number))
        return whole()


@pytest.fixture
def refuse():
    yield files.inject
    files.inject(None)


def _record(recorder, frames):
    recorder.begin(INFO)
    for frame in frames:
        recorder.add(frame)


def _settled(recorder):
    """When its threads have done what was asked of them so far."""
    recorder._pipeline.call(lambda: None)


def test_long_episodes_reach_the_disk_while_they_are_open(tmp_path, embodiment, make_frames, assert_same_frames):
    frames = make_frames(embodiment, 1500)
    with Recorder(tmp_path / "a", embodiment, codec="raw") as recorder:
        recorder.write_episode(INFO, frames[:100])
        _record(recorder, frames)
        _settled(recorder)
        shards = sorted(path.name for path in (tmp_path / "a/data/top").glob("c.*"))
        assert {f"c.{k}.0.0.0" for k in range(1, 6)} <= set(shards)
        store = Store(tmp_path / "a")
        assert (store.n_episodes, store.n_frames) == (1, 100)
        assert_same_frames(store.frames(0), frames[:100])
        recorder.abort()
        assert [path.name for path in (tmp_path / "a/data/top").glob("c.*")] == ["c.0.0.0.0"]
        _record(recorder, frames)
        recorder.commit()
        recorder.write_episode(INFO, frames[:7])
    store = Store(tmp_path / "a")
    for k, expected in enumerate((frames[:100], frames, frames[:7])):
        assert_same_frames(store.frames(k), expected)
        store.verify(k)


def test_memory_stays_bounded(tmp_path, embodiment, make_frames):
    """An episode of 500 MB of images through a queue of 8 MB."""
    rig = replace(embodiment, cameras=(Camera("top", 240, 320),))
    frames = make_frames(rig, 4)
    with Recorder(tmp_path / "a", rig, codec="raw", fsync=False, queue_bytes=8 << 20) as recorder:
        _record(recorder, frames)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for t in range(4, 2200):
            seen = replace(frames[t % 4].observation, stamp_ns=t * rig.period_ns, stream_stamps_ns={})
            recorder.add(replace(frames[t % 4], observation=seen))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB
        assert recorder.stats.most_queued_bytes <= recorder.stats.queue_bytes <= 8 << 20
        recorder.abort()


def test_memory_stays_bounded_while_the_disk_is_full(tmp_path, embodiment, make_frames, refuse):
    """Bug: whoever went on calling `add` in spite of its errors got some of the frames in, without end."""
    rig = replace(embodiment, cameras=(Camera("top", 128, 128),))
    frame = make_frames(rig, 1)[0]
    with Recorder(tmp_path / "a", rig, codec="raw", fsync=False, queue_bytes=1) as recorder:
        recorder.begin(INFO)
        refuse(Refusing("write", number=errno.ENOSPC))
        for t in range(2000):
            with contextlib.suppress(TandemError):
                recorder.add(replace(frame, observation=replace(frame.observation, stamp_ns=t, stream_stamps_ns={})))
        assert 170 <= recorder.n_open_frames < 400
        refuse(None)
        recorder.commit()
        assert 170 <= recorder.n_frames < 400


def test_a_group_does_not_wait_in_memory_without_bounds(tmp_path, embodiment, make_frames, monkeypatch):
    monkeypatch.setattr("tandem_datasets.committing.GROUP_BYTES", 30_000)
    with Recorder(tmp_path / "a", embodiment, codec="raw", fsync=False, group=1000) as recorder:
        for k in range(12):
            recorder.write_episode(INFO, make_frames(embodiment, 50, seed=k))
        _settled(recorder)
        assert 6 <= Store(tmp_path / "a").n_episodes < 12
        assert (recorder.n_episodes, recorder.n_frames) == (12, 600)
    assert Store(tmp_path / "a").n_episodes == 12


def test_a_slow_disk_is_waited_for_and_counted(tmp_path, embodiment, make_frames, assert_same_frames, monkeypatch):
    frames = make_frames(embodiment, 300)
    turn = threading.Semaphore(0)

    def encode(row):
        turn.acquire()
        return row.tobytes()

    monkeypatch.setattr(CODECS["raw"], "encode", encode)
    with Recorder(tmp_path / "a", embodiment, codec="raw", fsync=False, queue_bytes=1) as recorder:
        threading.Timer(0.2, turn.release, (2 * len(frames),)).start()
        _record(recorder, frames)
        stats = recorder.stats
        recorder.commit()
    assert stats.waits >= 1
    assert stats.waited_s > 0.05
    assert_same_frames(Store(tmp_path / "a").frames(0), frames)


def test_a_full_disk_while_an_episode_is_open(tmp_path, embodiment, make_frames, assert_same_frames, limit):
    """``add`` says so, with the episode's number, and what it took before goes in when there is room."""
    small, large = make_frames(embodiment, 3), make_frames(embodiment, 900, seed=1)
    taken = []
    with Recorder(tmp_path / "a", embodiment, codec="raw") as recorder:
        recorder.write_episode(INFO, small)
        recorder.begin(INFO)
        errors = []
        for number, frame in enumerate(large):
            limit(20_000 if 100 < number < 600 else None)
            if number % 50 == 0:
                _settled(recorder)
            try:
                recorder.add(frame)
                taken.append(frame)
            except TandemError as error:
                errors.append(str(error))
        limit(None)
        assert errors
        assert all("episode 1: not written: File too large (it is kept" in error for error in errors)
        assert recorder.n_open_frames == len(taken) == 900 - len(errors)
        assert_same_frames(Store(tmp_path / "a").frames(0), small)
        recorder.commit()
        recorder.write_episode(INFO, small)
    store = Store(tmp_path / "a")
    for k, frames in enumerate((small, taken, small)):
        assert_same_frames(store.frames(k), frames)
        store.verify(k)


@pytest.mark.parametrize("group", [1, 2])
def test_a_full_disk_at_the_commit(tmp_path, embodiment, make_frames, assert_same_frames, limit, group):
    first, second, third = (make_frames(embodiment, n, seed=n) for n in (3, 50, 200))
    with Recorder(tmp_path / "a", embodiment, codec="raw", group=group) as recorder:
        for frames in (first, second) if group == 1 else (first, second, first):
            recorder.write_episode(INFO, frames)
        _record(recorder, third)
        for size in (5000, 9000, 20_000):
            limit(size)
            with pytest.raises(TandemError, match=r"not written: File too large .kept: commit again"):
                recorder.commit()
            limit(None)
            assert recorder.n_open_frames == 200
            assert Store(tmp_path / "a").n_episodes == 2
        recorder.abort()
        assert recorder.n_episodes == (2 if group == 1 else 3)
        _record(recorder, third)
        recorder.commit()
    expected = (first, second, third) if group == 1 else (first, second, first, third)
    store = Store(tmp_path / "a")
    assert store.n_episodes == len(expected)
    for k, frames in enumerate(expected):
        assert_same_frames(store.frames(k), frames)
        store.verify(k)


def test_a_full_disk_at_the_commit_after_a_long_one(tmp_path, embodiment, make_frames, assert_same_frames, refuse):
    """Bug: dropping the second one took the first with it, whose rows only the disk had."""
    long, short = make_frames(embodiment, 600), make_frames(embodiment, 40, seed=1)
    for struck in ("meta/", "data/"):
        path = tmp_path / struck
        with Recorder(path, embodiment, group=2) as recorder:
            recorder.write_episode(INFO, long)
            _record(recorder, short)
            refuse(Refusing("write", struck, errno.ENOSPC))
            with pytest.raises(TandemError, match=r"No space left on device .kept"):
                recorder.commit()
            recorder.abort()
            assert recorder.n_episodes == 1
            refuse(None)
            recorder.write_episode(INFO, short)
        store = Store(path)
        assert store.episode_ends.tolist() == [600, 640]
        assert_same_frames(store.frames(0), long)
        assert_same_frames(store.frames(1), short)


def test_a_full_disk_between_a_long_episode_and_the_next(tmp_path, embodiment, make_frames, assert_same_frames, refuse):
    """The first goes in by itself, and the second is not in for that."""

    class Full:
        commits = 0

        def run(self, operation, path, whole, half):
            self.commits += operation == "rename" and path.endswith("episode_ends/zarr.json")
            if self.commits and operation == "write":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole()

    long, short = make_frames(embodiment, 600), make_frames(embodiment, 40, seed=1)
    with Recorder(tmp_path / "a", embodiment, group=2) as recorder:
        recorder.write_episode(INFO, long)
        _record(recorder, short)
        refuse(Full())
        with pytest.raises(TandemError, match=r"episode 1: not written: No space left on device .kept"):
            recorder.commit()
        assert (recorder.n_episodes, recorder.n_open_frames) == (1, 40)
        refuse(None)
        recorder.commit()
        assert (recorder.n_episodes, recorder.n_frames) == (2, 640)
    store = Store(tmp_path / "a")
    assert_same_frames(store.frames(0), long)
    assert_same_frames(store.frames(1), short)


@pytest.mark.parametrize("operation", ["open", "write", "sync", "sync folder", "rename"])
def test_a_commit_that_fails_can_be_tried_again(
    tmp_path, embodiment, make_frames, assert_same_frames, refuse, operation
):
    frames = make_frames(embodiment, 40)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames)
        _record(recorder, frames)
        fault = Refusing(operation)
        refuse(fault)
        for _ in range(2):
            with pytest.raises(TandemError, match=r"episode 1: not written: Input/output error .kept"):
                recorder.commit()
        refuse(None)
        assert fault.refused
        assert_same_frames(Store(tmp_path / "a").frames(0), frames)
        recorder.commit()
    store = Store(tmp_path / "a")
    assert store.n_episodes == 2
    for k in range(2):
        assert_same_frames(store.frames(k), frames)
        store.verify(k)


def test_a_rename_that_was_done_and_reported_as_failed(tmp_path, embodiment, make_frames, assert_same_frames, refuse):
    """Bug: the second attempt found nothing to rename, and the episode could never be committed."""

    class Doubtful:
        failed = 0

        def run(self, operation, path, whole, half):
            done = whole()
            if operation == "rename" and not self.failed:
                self.failed += 1
                raise OSError(errno.EIO, "it was done all the same")
            return done

    frames = make_frames(embodiment, 600)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        for count in (7, 600):
            _record(recorder, frames[:count])
            _settled(recorder)
            refuse(Doubtful())
            for _ in range(20):
                try:
                    recorder.commit()
                    break
                except TandemError:
                    refuse(Doubtful() if count == 7 else None)
            refuse(None)
            assert recorder.n_open_frames == 0
    store = Store(tmp_path / "a")
    for k, count in enumerate((5, 7, 600)):
        assert_same_frames(store.frames(k), frames[:count])


def test_what_the_disk_does_not_confirm_is_lost_if_it_was_only_there(tmp_path, embodiment, make_frames, refuse):
    """After a failed fsync the kernel may have dropped the pages, and asking once more would lie."""
    frames = make_frames(embodiment, 700)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        _record(recorder, frames)
        refuse(Refusing("sync", "data/top"))
        with pytest.raises(TandemError, match="an episode is lost, 700 frames of it: Input/output error"):
            recorder.commit()
        refuse(None)
        assert (recorder.n_open_frames, recorder.n_episodes, recorder.n_frames) == (0, 1, 5)
        recorder.write_episode(INFO, frames[:9])
    store = Store(tmp_path / "a")
    assert store.episode_ends.tolist() == [5, 14]
    store.verify(1)


def test_what_is_not_confirmed_while_a_mark_is_set_is_lost_as_well(tmp_path, embodiment, make_frames, refuse):
    """Bug: only the mark was said to have failed, and the open episode was committed unconfirmed."""
    frames = make_frames(embodiment, 700)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        _record(recorder, frames)
        _settled(recorder)
        refuse(Refusing("sync", "data/state"))
        with pytest.raises(TandemError, match="not marked: Input/output error"):
            recorder.mark_deleted([0])
        refuse(None)
        with pytest.raises(TandemError, match="an episode is lost, 672 frames of it: Input/output error"):
            recorder.commit()
        recorder.mark_deleted([0])
        recorder.write_episode(INFO, frames[:9])
    store = Store(tmp_path / "a")
    assert (store.episode_ends.tolist(), store.kept.tolist()) == ([5, 14], [1])


@pytest.mark.parametrize("count", [40, 600])
def test_no_memory_at_the_commit(tmp_path, embodiment, make_frames, assert_same_frames, refuse, count):
    """Bug: the second attempt took the episode twice, and every one after it failed for that."""

    class Short:
        def run(self, operation, path, whole, half):
            if operation == "write":
                raise MemoryError
            return whole()

    frames = make_frames(embodiment, count)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        _record(recorder, frames)
        _settled(recorder)
        refuse(Short())
        words = "MemoryError .kept" if count == 40 else "an episode is lost, 600 frames of it: MemoryError"
        with pytest.raises(TandemError, match=words):
            recorder.commit()
        refuse(None)
        if count == 600:
            _record(recorder, frames)
        recorder.commit()
    assert_same_frames(Store(tmp_path / "a").frames(1), frames)


def test_the_disk_confirms_the_names_of_all_folders_that_are_new(tmp_path, embodiment, refuse):
    """Bug: a store in folders that had to be made for it could be gone with them after a power cut."""

    class Noting:
        folders: ClassVar[list[str]] = []

        def run(self, operation, path, whole, half):
            if operation == "sync folder":
                self.folders.append(path)
            return whole()

    refuse(Noting())
    Recorder(tmp_path / "x/y/store", embodiment).close()
    made = {tmp_path, *(tmp_path / "x").rglob("*")} - {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(path) for path in made | {tmp_path / "x"}} <= set(Noting.folders)


def test_a_commit_that_is_in_but_not_confirmed_says_so(tmp_path, embodiment, make_frames, refuse):
    frames = make_frames(embodiment, 5)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames)
        _record(recorder, frames)
        _settled(recorder)
        folder = str(tmp_path / "a/meta/episode_ends")
        refuse(Refusing("sync folder", folder))
        with pytest.raises(TandemError, match="in the store, but the disk did not confirm it"):
            recorder.commit()
        refuse(None)
        assert (recorder.n_open_frames, recorder.n_episodes) == (0, 2)
        recorder.write_episode(INFO, frames)
    assert Store(tmp_path / "a").n_episodes == 3


def test_a_folder_that_comes_back(tmp_path, embodiment, make_frames, assert_same_frames):
    frames = make_frames(embodiment, 600)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        _record(recorder, frames[:50])
        (tmp_path / "a").rename(tmp_path / "away")
        with pytest.raises(TandemError, match=r"removed or replaced .kept"):
            recorder.commit()
        (tmp_path / "away").rename(tmp_path / "a")
        recorder.commit()
    assert_same_frames(Store(tmp_path / "a").frames(1), frames[:50])


def test_a_folder_that_is_gone(tmp_path, embodiment, make_frames):
    frames = make_frames(embodiment, 700)
    recorder = Recorder(tmp_path / "a", embodiment)
    recorder.write_episode(INFO, frames[:5])
    _record(recorder, frames)
    _settled(recorder)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(TandemError, match="an episode is lost, 700 frames of it: its folder, or files in it, were rem"):
        recorder.commit()
    with pytest.raises(TandemError, match="removed or replaced"):
        recorder.write_episode(INFO, frames[:5])
    recorder.close()
    assert not (tmp_path / "a").exists()


def test_another_store_in_its_place_is_not_touched(tmp_path, embodiment, make_frames):
    frames = make_frames(embodiment, 20)
    for name in ("a", "b"):
        with Recorder(tmp_path / name, embodiment) as recorder:
            recorder.write_episode(INFO, frames[: 5 if name == "a" else 7])
    recorder = Recorder(tmp_path / "a", embodiment)
    _record(recorder, frames)
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    with pytest.raises(TandemError, match="removed or replaced"):
        recorder.commit()
    recorder.abort()
    recorder.close()
    assert [Store(tmp_path / name).n_frames for name in ("a", "c")] == [7, 5]


def test_another_store_in_its_place_is_not_touched_while_an_episode_is_open(tmp_path, embodiment, make_frames):
    """Bug: long episodes were written into it, over shards of its own."""
    frames = make_frames(embodiment, 900)
    recorder = Recorder(tmp_path / "a", embodiment)
    recorder.write_episode(INFO, frames[:10])
    _record(recorder, frames[:20])
    shutil.rmtree(tmp_path / "a")
    with Recorder(tmp_path / "a", embodiment) as another:
        another.write_episode(INFO, frames)
    told = ""
    for number, frame in enumerate(frames[20:]):
        if number % 300 == 0:
            _settled(recorder)
        try:
            recorder.add(frame)
        except TandemError as error:
            told = str(error)
    assert "episode 1: not written: its folder" in told
    with pytest.raises(TandemError, match="not marked: its folder was removed or replaced"):
        recorder.mark_deleted([0])
    recorder.abort()
    recorder.close()
    store = Store(tmp_path / "a")
    store.verify(0)
    assert store.kept.tolist() == [0]


def test_what_tells_a_store_from_another_is_the_lock_that_is_held(tmp_path):
    """Bug to keep out: the folder's inode, which a file system gives to the next one at once."""
    lock = WriterLock(tmp_path / "lock", "store")
    assert lock.in_place
    (tmp_path / "lock").unlink()
    assert not lock.in_place
    (tmp_path / "lock").touch()
    assert not lock.in_place
    lock.release()


def test_permission_lost(tmp_path, embodiment, make_frames, assert_same_frames, refuse):
    frames = make_frames(embodiment, 600)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        refuse(Refusing("open", number=errno.EACCES))
        recorder.begin(INFO)
        taken, told = [], ""
        for number, frame in enumerate(frames):
            if number % 100 == 0:
                _settled(recorder)
            try:
                recorder.add(frame)
                taken.append(frame)
            except TandemError as error:
                told = str(error)
        assert "episode 1: not written: Permission denied" in told
        refuse(None)
        recorder.commit()
    assert_same_frames(Store(tmp_path / "a").frames(1), taken)


def test_recover_drops_what_is_not_committed(tmp_path, embodiment, make_frames):
    frames = make_frames(embodiment, 600)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames[:5])
        _record(recorder, frames)
        recorder.recover()
        assert (recorder.n_open_frames, recorder.n_episodes) == (0, 1)
        assert len(list((tmp_path / "a/data/top").glob("c.*"))) == 1
        recorder.write_episode(INFO, frames[:6])
    assert Store(tmp_path / "a").episode_ends.tolist() == [5, 11]


def test_an_image_that_cannot_be_encoded_loses_its_episode_only(tmp_path, embodiment, make_frames, monkeypatch):
    frames = make_frames(embodiment, 300)
    with Recorder(tmp_path / "a", embodiment, codec="raw") as recorder:
        recorder.write_episode(INFO, frames[:5])
        monkeypatch.setattr(CODECS["raw"], "encode", lambda row: 1 // 0)
        recorder.begin(INFO)
        for frame in frames[:32]:
            recorder.add(frame)
        _settled(recorder)
        with pytest.raises(TandemError, match="an episode is lost, 0 frames of it: its images cannot be encoded"):
            recorder.add(frames[32])
        monkeypatch.undo()
        assert recorder.n_open_frames == 0
        recorder.write_episode(INFO, frames[:6])
    assert Store(tmp_path / "a").episode_ends.tolist() == [5, 11]


def test_add_does_not_wait_for_the_disk(tmp_path, embodiment, make_frames, refuse):
    """Bug to keep out: encoding or a flush in the caller's thread, which then misses its control step."""

    class Slow:
        def run(self, operation, path, whole, half):
            time.sleep(0.02)
            return whole()

    frames = make_frames(embodiment, 700)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.begin(INFO)
        refuse(Slow())
        times = []
        for frame in frames:
            begin = time.thread_time()
            recorder.add(frame)
            times.append(time.thread_time() - begin)
        refuse(None)
        assert recorder.stats.waits == 0
        assert np.median(times) < 0.001
        recorder.commit()


def test_finished_ones_go_in_without_the_one_whose_commit_failed(
    tmp_path, embodiment, make_frames, assert_same_frames, refuse
):
    """Bug: its rows stood behind theirs already, and nothing could be committed but with it."""
    first, second = make_frames(embodiment, 5), make_frames(embodiment, 7, seed=1)
    with Recorder(tmp_path / "a", embodiment, group=2) as recorder:
        recorder.write_episode(INFO, first)
        _record(recorder, second)
        refuse(Refusing("write", "meta/episode_ends", errno.ENOSPC))
        with pytest.raises(TandemError, match=r"No space left on device .kept"):
            recorder.commit()
        refuse(None)
        recorder.mark_deleted([0])
        assert (recorder.n_episodes, recorder.n_open_frames) == (1, 7)
        assert Store(tmp_path / "a").n_episodes == 1
        recorder.commit()
        recorder.flush()
    store = Store(tmp_path / "a")
    assert_same_frames(store.frames(0), first)
    assert_same_frames(store.frames(1), second)


def test_a_closing_that_fails_says_what_is_dropped(tmp_path, embodiment, make_frames, refuse):
    """Bug: it said that they are kept."""
    recorder = Recorder(tmp_path / "a", embodiment, group=9)
    for _ in range(2):
        recorder.write_episode(INFO, make_frames(embodiment, 5))
    refuse(Refusing("write", number=errno.ENOSPC))
    with pytest.raises(TandemError, match=r"closed with 2 finished episodes, which are dropped: .* No space left"):
        recorder.close()
    refuse(None)
    Recorder(tmp_path / "a", embodiment).close()
