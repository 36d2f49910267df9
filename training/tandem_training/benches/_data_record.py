"""Rows of ``tandem bench data`` about recording: how fast, at what cost, and how long it holds its caller up."""

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.recorder import Recorder
from tandem_training.benches._data_scenes import BODY, frames
from tandem_training.benches._measuring import median_row
from tandem_training.results import Row

_RATE_HZ = 50.0
_DRAWN = 64  # different frames; they are shown in turns
_TASK = "put the disc into the box"


def shown_frames(count: int) -> list[Frame]:
    """Frames of one episode as a robot's driver hands them over: images in memory of their own, stamps that move on."""
    drawn = list(frames(min(count, _DRAWN), seed=0))
    stamps = (t * BODY.period_ns for t in range(count))
    return [
        replace(
            drawn[t % len(drawn)],
            observation=replace(
                drawn[t % len(drawn)].observation,
                stamp_ns=stamp,
                stream_stamps_ns={"left": stamp - 2_000, "right": stamp - 1_000, "state": stamp},
            ),
            requested=drawn[t % len(drawn)].action,
        )
        for t, stamp in enumerate(stamps)
    ]


def recording(folder: Path, repeats: int = 5, count: int = 1000, paced_s: float = 12.0) -> list[Row]:
    """The rows ``record_rate``, ``record_cpu_ms`` and ``add_p99_ms``, as JPEG.

    Args:
        folder: an empty place.
        repeats: of writing files and recording, in turn.
        count: frame pairs of each repeat.
        paced_s: length of the episode at 50 Hz.
    """
    shown = shown_frames(count)
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
    paced = _paced(folder / "paced", shown_frames(round(paced_s * _RATE_HZ)))
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
    with Recorder(path, BODY, codec="jpeg") as recorder:
        recorder.begin(EpisodeInfo(0, _TASK))
        started, busy = time.perf_counter(), time.process_time()
        for frame in shown:
            recorder.add(frame)
        recorder.commit(success=True, outcome="success")
        return time.perf_counter() - started, time.process_time() - busy


def _paced(path: Path, shown: Sequence[Frame]) -> list[float]:
    """Milliseconds that each ``add`` took while the recorder encoded and wrote what came before."""
    shutil.rmtree(path, ignore_errors=True)
    taken = []
    with Recorder(path, BODY, codec="jpeg") as recorder:
        recorder.begin(EpisodeInfo(0, _TASK))
        due = time.perf_counter()
        for frame in shown:
            due += 1 / _RATE_HZ
            time.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            recorder.add(frame)
            taken.append((time.perf_counter() - started) * 1e3)
        recorder.commit(success=True, outcome="success")
    return taken
