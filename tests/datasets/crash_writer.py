"""Records episodes in forked children of its own and kills them: `python crash_writer.py STORE SEED TIMED LINES`.

Prints one JSON line per kill: {"committed": episodes that the child reported, "found": [content hash per episode]}.
TIMED kills strike after a random time, LINES just before a random line of the code that writes runs.
"""

import hashlib
import itertools
import json
import os
import random
import signal
import sys
import threading
import time

import numpy as np

from tandem_datasets.codecs import CODECS
from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

RIG = Embodiment(
    "rig",
    30.0,
    True,
    (Camera("top", 8, 8), Camera("side", 4, 4)),
    (StateScalar("x", "m", 0.0, 1.0, StateSource.JOINT_POSITION),),
    (ActionScalar("x", "m", -1.0, 1.0, ActionKind.ABSOLUTE),),
)
DISK_CODE = ("writer.py", "tables.py", "shards.py", "chunks.py", "files.py", "committing.py")
LINES = 12000  # that the disk's code runs for opening and the first few commits


def frames_of(episode: int) -> list[Frame]:
    """The same for the same episode, and of a length that moves over the bounds of shards."""
    rng = np.random.default_rng(episode)

    def frame(t: int) -> Frame:
        images = {c.name: rng.integers(0, 255, c.shape, np.uint8) for c in RIG.cameras}
        state, action = rng.random((2, 1), np.float32)
        wording = f"wording {episode % 7}"
        return Frame(Observation(images, state, wording, t * RIG.period_ns), action, Source.EXPERT, reward=rng.random())

    return [frame(t) for t in range(1 + episode * 37 % 101)]


def hash_of(frames: list[Frame]) -> str:
    parts = hashlib.sha256()
    for frame in frames:
        seen = frame.observation
        parts.update(b"".join(seen.images[c.name].tobytes() for c in RIG.cameras))
        parts.update(seen.state.tobytes() + frame.action.tobytes())
        parts.update(f"{seen.instruction} {seen.stamp_ns} {frame.reward!r}".encode())
    return parts.hexdigest()


def write_for_ever(path: str, group: int, pipe: int, kill_at_line: int | None) -> None:
    """The child. Reports the number of committed episodes after each commit."""
    if kill_at_line is not None:
        _kill_at(kill_at_line)
    recorder = Recorder(path, RIG, fsync=kill_at_line is None, group=group)
    os.write(pipe, b"%d\n" % recorder.n_episodes)
    for written in itertools.count(1):
        episode = recorder.n_episodes
        recorder.write_episode(EpisodeInfo(episode, f"wording {episode % 7}"), frames_of(episode))
        if written % group == 0:
            os.write(pipe, b"%d\n" % recorder.n_episodes)


def _kill_at(line: int) -> None:
    counter = iter(range(line))

    def trace(frame, event, argument):
        if os.path.basename(frame.f_code.co_filename) not in DISK_CODE:
            return None
        if event == "line" and next(counter, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def killed_run(path: str, group: int, delay_s: float | None, line: int | None) -> int:
    """Forks a writer, kills it, and returns how many episodes it said were committed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        write_for_ever(path, group, writing, line)
    os.close(writing)
    if delay_s is not None:
        first = os.read(reading, 100)  # it has the store open
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
    else:
        first = b""
    with os.fdopen(reading, "rb") as pipe:
        told = (first + pipe.read()).split()
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, f"the writer ended by itself: {status}"
    return int(told[-1]) if told else 0


def main() -> None:
    path, (seed, timed, at_lines) = sys.argv[1], map(int, sys.argv[2:])
    rng = random.Random(seed)
    CODECS["zstd"].encode(np.zeros((1, 1, 3), np.uint8))  # loads it here, so that the children need not
    plans: list[tuple[float | None, int | None]] = [(rng.uniform(0.0, 0.2), None) for _ in range(timed)]
    plans += [(None, rng.randrange(LINES)) for _ in range(at_lines)]
    rng.shuffle(plans)
    for delay_s, line in plans:
        group = rng.choice([1, 1, 2])
        committed = killed_run(path, group, delay_s, line)
        found = []
        if os.path.exists(os.path.join(path, "zarr.json")):
            store = Store(path)
            found = [hash_of(store.frames(k)) for k in range(store.n_episodes)]
        print(json.dumps({"committed": committed, "group": group, "line": line, "found": found}), flush=True)
    for episode in range(len(found)):
        assert found[episode] == hash_of(frames_of(episode)), episode
    with Recorder(path, RIG) as recorder:  # the next append works
        recorder.write_episode(EpisodeInfo(0, ""), frames_of(recorder.n_episodes))


if __name__ == "__main__":
    main()
