"""What goes wrong in the writing thread reaches the caller, who never waits for a thread that is gone."""

import subprocess
import sys
import textwrap
import threading

import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.parts import EpisodeRows
from tandem_datasets.pipeline import Pipeline
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


class _BrokenError(Exception):
    pass


def _add_all(recorder: Recorder, frames: list[Frame]) -> None:
    for frame in frames:
        recorder.add(frame)


def test_a_job_that_fails_is_told_by_the_next_call_and_the_thread_goes_on():
    def fail() -> None:
        raise _BrokenError

    pipeline = Pipeline(lambda: None, lambda rows, part: None, 0)  # type: ignore[arg-type, return-value]  # no blocks
    try:
        pipeline.post(fail)
        with pytest.raises(_BrokenError):
            pipeline.call(lambda: 1)
        assert pipeline.call(lambda: 2) == 2
    finally:
        pipeline.close()


@pytest.mark.timeout(60)
def test_rows_that_cannot_be_taken_lose_their_episode_only(tmp_path, embodiment, make_frames, monkeypatch):
    """Bug to keep out: the writing thread died of it, and `add` waited for ever once the queue was full."""

    def full(rows: EpisodeRows, part: object) -> None:
        raise MemoryError("none left")

    frames = make_frames(embodiment, 300)
    with Recorder(tmp_path / "a", embodiment, queue_bytes=1) as recorder:
        recorder.write_episode(EpisodeInfo(0, ""), frames[:5])
        with monkeypatch.context() as patch:
            patch.setattr(EpisodeRows, "add", full)
            recorder.begin(EpisodeInfo(1, ""))
            with pytest.raises(TandemError, match="an episode is lost, 0 frames of it: its frames cannot be taken"):
                _add_all(recorder, frames)
        assert recorder.n_open_frames == 0
        recorder.write_episode(EpisodeInfo(2, ""), frames[:6])
    assert Store(tmp_path / "a").episode_ends.tolist() == [5, 11]


def test_closing_commits_what_is_finished_whatever_went_wrong_before(tmp_path, embodiment, make_frames):
    """Bug: the error of a job before it ended the closing, and episodes that waited for their group were dropped."""

    def fail() -> None:
        raise _BrokenError

    recorder = Recorder(tmp_path / "a", embodiment, group=5)
    recorder.write_episode(EpisodeInfo(0, ""), make_frames(embodiment, 5))
    recorder.begin(EpisodeInfo(1, ""))
    recorder._pipeline.post(fail)
    with pytest.raises(_BrokenError):
        recorder.close()
    Recorder(tmp_path / "a", embodiment).close()
    assert Store(tmp_path / "a").episode_ends.tolist() == [5]


@pytest.mark.parametrize("closing", ["forgotten", "atexit"])
def test_what_is_finished_goes_in_when_the_interpreter_ends(tmp_path, closing):
    """Bug: it was dropped without a word, and with `atexit` the pools of threads took no more work by then."""
    code = """
        import atexit, sys
        import numpy as np
        from tandem_datasets.embodiment import Camera, Embodiment
        from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
        from tandem_datasets.recorder import Recorder

        rig = Embodiment("rig", 30.0, False, (Camera("top", 4, 4),), (), ())
        nothing = np.zeros(0, np.float32)
        frames = [
            Frame(Observation({"top": np.zeros((4, 4, 3), np.uint8)}, nothing, "", t), nothing, Source.PERSON)
            for t in range(3)
        ]
        recorder = Recorder(sys.argv[1], rig, group=5)
        if sys.argv[2] == "atexit":
            atexit.register(recorder.close)
        for _ in range(2):
            recorder.write_episode(EpisodeInfo(0, ""), frames)
        recorder.begin(EpisodeInfo(0, ""))
        recorder.add(frames[0])
    """
    run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a"), closing]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert "closed with an open episode of 1 frames, which is dropped" in done.stderr
    assert Store(tmp_path / "a").episode_ends.tolist() == [3, 6]


def test_what_finishes_while_a_loss_is_told_is_committed(tmp_path, embodiment, make_frames):
    """Bug: it was counted before it had finished, and never committed."""
    recorder = Recorder(tmp_path / "a", embodiment, group=5)
    recorder.begin(EpisodeInfo(1, ""))
    _add_all(recorder, make_frames(embodiment, 5))
    held = threading.Event()
    recorder._pipeline.post(lambda: held.wait(10) and None)
    recorder.commit()
    recorder._committer.lost = "an episode is lost"  # an earlier one of the group
    threading.Timer(0.1, held.set).start()
    with pytest.raises(TandemError, match="an episode is lost"):
        recorder.begin(EpisodeInfo(2, ""))
    assert (recorder.n_episodes, recorder.n_frames) == (1, 5)
    recorder.close()
    assert Store(tmp_path / "a").episode_ends.tolist() == [5]
