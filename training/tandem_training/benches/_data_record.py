"""Rows of ``tandem bench data`` about recording, and the robot and frames that its other rows are measured with."""

import shutil
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_training.benches._measuring import median_row
from tandem_training.results import Row

JOINTS = [f"joint_{k}" for k in range(28)]
RIG = Embodiment(
    "bench",
    50.0,
    True,
    (Camera("left", 128, 128), Camera("right", 128, 128)),
    tuple(StateScalar(name, "rad", -3.0, 3.0, StateSource.JOINT_POSITION) for name in JOINTS),
    tuple(ActionScalar(name, "rad", -3.0, 3.0, ActionKind.ABSOLUTE) for name in JOINTS),
)

_PICTURES = 64  # different ones; frames take them in turn


@cache
def pictures() -> tuple[np.ndarray, ...]:
    """Pictures like a camera's, uint8 (128, 128, 3): gradients, a moving block with a shadow, slight noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:128, 0:128]
    made = []
    for k in range(_PICTURES):
        image = np.stack([70 + (x + y) / 3, 120 + 60 * np.sin(x / 25 + k / 9), 90 + 0.6 * y], -1)
        top, left = 30 + int(40 * np.sin(k / 10) ** 2), 20 + k
        image[top + 4 : top + 34, left + 4 : left + 34] *= 0.6
        image[top : top + 30, left : left + 30] = (200, 60, 50)
        made.append((image + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8))
    return tuple(made)


def frames(count: int, seed: int = 0) -> list[Frame]:
    """Frames of one episode, in which a person moves the arm slowly."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(0, 0.01, (count + 1, len(JOINTS))), axis=0).astype(np.float32)
    shown, period = pictures(), RIG.period_ns
    return [
        Frame(
            Observation(
                {"left": shown[(t + seed) % _PICTURES], "right": shown[(t * 3 + seed) % _PICTURES]},
                path[t],
                "put the red block away",
                t * period,
                {"left": t * period - 2_000_000, "right": t * period - 1_000_000, "state": t * period},
            ),
            path[t + 1],
            Source.PERSON,
            requested=path[t + 1],
        )
        for t in range(count)
    ]


def recording(folder: Path, repeats: int = 5, count: int = 1000, paced_s: float = 12.0) -> list[Row]:
    """The rows ``record_rate``, ``record_cpu_ms`` and ``add_p99_ms``, as JPEG.

    Args:
        folder: an empty place.
        repeats: of writing files and recording, in turn.
        count: frame pairs of each repeat.
        paced_s: length of the episode at 50 Hz.
    """
    shown = frames(count)
    rates, bare, cpu, codec = [], [], [], []
    for _ in range(repeats):
        seconds, busy = _write_files(folder / "files", shown)
        bare.append(count / seconds)
        codec.append(busy / count * 1e3)
        seconds, busy = _record(folder / "store", shown)
        rates.append(count / seconds)
        cpu.append(busy / count * 1e3)
    ratio = statistics.median(mine / other for mine, other in zip(rates, bare, strict=True))
    said = f"{statistics.median(rates):.0f} against {statistics.median(bare):.0f} frame pairs/s"
    spread = f"{min(rates) / max(bare):.2f} to {max(rates) / min(bare):.2f} x"
    rate = Row("", ratio, reference=1.0, ratio=ratio, repeats=repeats, note=f"{said}, {spread}; until the disk has it")
    paced = _paced(folder / "paced", frames(round(paced_s * RIG.rate_hz)))
    p50, p99, most = (float(value) for value in np.percentile(paced, [50, 99, 100]))
    latency = Row("", p99, repeats=len(paced), note=f"p50 {p50:.3f}, longest {most:.2f} ms, at 50 Hz for {paced_s:g} s")
    note = f"all threads, checks and commit included; the codec alone {statistics.median(codec):.3f} ms"
    return [rate, median_row(cpu, note), latency]


def _write_files(folder: Path, shown: Sequence[Frame]) -> tuple[float, float]:
    """The reference: wall seconds to encode every image and write it to a file, CPU seconds of the encoding alone."""
    import imagecodecs

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started, busy = time.perf_counter(), 0.0
    for number, frame in enumerate(shown):
        for name, image in frame.observation.images.items():
            before = time.thread_time()
            data = imagecodecs.jpeg8_encode(image, level=95, subsampling="444")
            busy += time.thread_time() - before
            with open(folder / f"{name}-{number}.jpg", "wb", buffering=0) as file:
                file.write(data)
    return time.perf_counter() - started, busy


def _record(path: Path, shown: Sequence[Frame]) -> tuple[float, float]:
    """Wall and CPU seconds from the first frame to the end of the commit."""
    shutil.rmtree(path, ignore_errors=True)
    with Recorder(path, RIG, codec="jpeg") as recorder:
        recorder.begin(EpisodeInfo(0, "put the red block away"))
        started, busy = time.perf_counter(), time.process_time()
        for frame in shown:
            recorder.add(frame)
        recorder.commit(success=True, outcome="success")
        return time.perf_counter() - started, time.process_time() - busy


def _paced(path: Path, shown: Sequence[Frame]) -> list[float]:
    """Milliseconds that each ``add`` took while the recorder encoded and wrote what came before."""
    shutil.rmtree(path, ignore_errors=True)
    taken = []
    with Recorder(path, RIG, codec="jpeg") as recorder:
        recorder.begin(EpisodeInfo(0, "put the red block away"))
        due = time.perf_counter()
        for frame in shown:
            due += 1 / RIG.rate_hz
            time.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            recorder.add(frame)
            taken.append((time.perf_counter() - started) * 1e3)
        recorder.commit(success=True, outcome="success")
    return taken
