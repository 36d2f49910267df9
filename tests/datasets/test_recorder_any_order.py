"""Whatever is called in whatever order on whatever disk: an episode is in the store, open, or said to be lost."""

import errno
import os
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets import committing, files
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

_KINDS = (("open", "write", "resize"), ("sync",), ("sync folder", "rename"), ("write", "sync", "rename", "remove"))
_LENGTHS = (1, 5, 33, 64, 100, 300, 600)


class Unreliable:
    """Lets some operations fail: before, after or halfway."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self.share, self.kinds = rng, 0.0, _KINDS[0]

    def run(self, operation, path, whole, half):
        if operation not in self.kinds or self._rng.random() >= self.share:
            return whole()
        way = self._rng.choice((half, whole, None))
        if way is not None:
            way()
        number = errno.ENOSPC if operation in _KINDS[0] else errno.EIO
        raise OSError(number, os.strerror(number))


class Story:
    """Calls a recorder as chance will have it, and keeps account of what it says."""

    def __init__(self, recorder: Recorder, frames: list, rng: random.Random) -> None:
        self._recorder, self._frames, self._rng = recorder, frames, rng
        self.finished: list[tuple[int, int]] = []  # seed and length of episodes whose commit returned
        self.lost = 0  # episodes that are said to be
        self._open: tuple[int, int, int] | None = None  # seed, length at most, frames so far
        self._seed = 0

    def go_on(self) -> None:
        try:
            self._next()
        except TandemError as error:
            self._hear(str(error))

    def end(self) -> None:
        self._recorder.abort()
        self._open = None
        try:
            self._recorder.close()
        except TandemError as error:
            self._hear(str(error))

    def _next(self) -> None:
        recorder, rng, chance = self._recorder, self._rng, self._rng.random()
        if self._open is None and chance < 0.75:
            self._seed += 1
            recorder.begin(EpisodeInfo(self._seed, f"say {rng.randint(0, 3)}"))
            self._open = (self._seed, rng.choice(_LENGTHS), 0)
        elif self._open is None and chance < 0.8:
            recorder.recover()
        elif chance < 0.55:
            self._add()
        elif chance < 0.8 and recorder.n_open_frames:
            assert self._open is not None
            seed, _, count = self._open
            recorder.commit()
            self.finished.append((seed, count))
            self._open = None
        elif chance < 0.85:
            recorder.abort()
            self._open = None
        elif chance < 0.93:
            recorder.flush()
        elif recorder.n_episodes:
            recorder.mark_deleted([rng.randrange(recorder.n_episodes)], rng.random() < 0.7)

    def _add(self) -> None:
        assert self._open is not None
        seed, most, count = self._open
        for _ in range(self._rng.randint(1, most)):
            if count < len(self._frames):
                self._recorder.add(self._frames[count])
                count += 1
                self._open = (seed, most, count)

    def _hear(self, said: str) -> None:
        dropped = re.search(r"closed with (\d+) finished", said)
        self.lost += said.count("episode is lost") + (int(dropped[1]) if dropped else 0)
        if self._open is not None and not self._recorder.n_open_frames and self._open[2]:
            seed, _, count = self._open
            if "in the store" in said:
                self.finished.append((seed, count))
            else:
                assert "lost" in said, said
            self._open = None


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 150), marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_no_episode_is_gone_without_a_word(tmp_path, embodiment, make_frames, monkeypatch, seeds):
    rig = replace(embodiment, cameras=embodiment.cameras[:1])
    frames = make_frames(rig, 700)
    for seed in seeds:
        rng, path = random.Random(seed), tmp_path / str(seed)
        monkeypatch.setattr(committing, "GROUP_BYTES", rng.choice((1 << 30, 5000)))
        monkeypatch.setattr(committing, "SPILL_ROWS", rng.choice((20, 64, 256)))
        disk = Unreliable(rng)
        story = Story(Recorder(path, rig, "raw", group=rng.choice((1, 1, 2, 3, 5))), frames, rng)
        files.inject(disk)
        try:
            for _ in range(rng.randint(5, 40)):
                if rng.random() < 0.3:
                    disk.share, disk.kinds = rng.choice((0, 0, 0.02, 0.1, 0.5)), rng.choice(_KINDS)
                story.go_on()
            disk.share = rng.choice((0, 0, 0.05))
            story.end()
        finally:
            files.inject(None)
        _check(Store(path), story, frames, seed)
        with Recorder(path, rig, "raw", fsync=False) as recorder:
            recorder.write_episode(EpisodeInfo(0, ""), frames[:3])


def _check(store: Store, story: Story, frames: list, seed: int) -> None:
    spans = [store.episode_slice(k) for k in range(store.n_episodes)]
    found = [(info.seed, rows.stop - rows.start) for info, rows in zip(store.infos(), spans, strict=True)]
    told = iter(story.finished)
    assert all(episode in told for episode in found), (seed, found, story.finished)  # in order
    assert len(story.finished) - len(found) <= story.lost, (seed, found, story.finished, story.lost)
    store.verify(*range(store.n_episodes))
    for rows in spans:
        expected = np.stack([frame.observation.state for frame in frames[: rows.stop - rows.start]])
        np.testing.assert_array_equal(store.load("state", rows.start, rows.stop), expected)
