"""Rows of `tandem bench data` about reading windows: against decoding alone, against memory, against other formats."""

import io
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.dataset import WindowDataset
from tandem_datasets.errors import TandemError
from tandem_datasets.rows import Buffers
from tandem_datasets.sampling import WindowSampler
from tandem_datasets.store import Store
from tandem_datasets.windows import WindowReader, WindowSpec
from tandem_training.benches._data_scenes import SIDE
from tandem_training.loading import WindowLoader
from tandem_training.results import Row

SPEC = WindowSpec(history=2, chunk=16)
BATCH, WORKERS = 64, 2


def read_jpeg(path: Path, batches: int, repeats: int) -> Row:
    """Windows a CPU second, against decoding the same bytes, which lie in memory, and nothing else."""
    reader, drawn = _drawn(path, batches)
    encoded = _encoded(reader)
    out = _pictures(len(encoded))
    seen = [_seen(reader, batch) for batch in drawn]

    def ours() -> None:
        for batch in drawn:
            reader.read(batch)

    def decoding() -> None:
        for rows in seen:
            _decode(encoded, rows, out)

    return _compared(ours, decoding, batches * BATCH, repeats, "decoding alone", time.process_time)


def read_raw(path: Path, batches: int, repeats: int) -> Row:
    """Windows a CPU second, against the same windows out of arrays in memory."""
    reader, drawn = _drawn(path, batches)
    held, buffers = InMemory(WindowDataset([reader])), Buffers()

    def ours() -> None:
        for batch in drawn:
            reader.read(batch)

    def memory() -> None:
        for batch in drawn:
            held.read(batch, buffers)

    return _compared(ours, memory, batches * BATCH, repeats, "memory", time.process_time)


def vs_webdataset(path: Path, shards: Path, batches: int, repeats: int) -> Row:
    """Windows a CPU second, against the same windows streamed by ``webdataset``, decoded by the same decoder."""
    import webdataset

    reader, drawn = _drawn(path, batches)
    urls = [str(file) for file in sorted(shards.glob("*.tar"))]

    def ours() -> None:
        for batch in drawn:
            reader.read(batch)

    def theirs() -> None:
        stream = webdataset.WebDataset(urls, shardshuffle=False).map(_sample)
        batch: list[dict[str, np.ndarray]] = []
        done = 0
        for sample in stream:
            batch.append(sample)
            if len(batch) == BATCH:
                {key: np.stack([one[key] for one in batch]) for key in batch[0]}
                batch, done = [], done + 1
                if done == batches:
                    return
        raise TandemError(f"vs_webdataset: only {done} batches in {shards} (allowed: {batches})")

    return _compared(ours, theirs, batches * BATCH, repeats, "webdataset", time.process_time)


def vs_lerobot_video(path: Path, dataset: Path, windows: int, repeats: int) -> Row:
    """Windows a CPU second, against the same windows from LeRobotDataset with videos (its defaults, read by PyAV)."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    reader, drawn = _drawn(path, windows // BATCH + 1)
    chosen = np.concatenate(drawn)[:windows]
    rate = reader.store.embodiment.rate_hz
    before = [-k / rate for k in range(SPEC.history - 1, -1, -1)]
    stamps = {f"observation.images.{name}": before for name in reader.cameras}
    stamps |= {"observation.state": before, "action": [k / rate for k in range(SPEC.chunk)]}
    theirs = LeRobotDataset("tandem/bench", root=dataset, delta_timestamps=stamps, video_backend="pyav")

    def ours() -> None:
        for start in range(0, windows, BATCH):
            reader.read(chosen[start : start + BATCH])

    def lerobot() -> None:
        for window in chosen.tolist():
            theirs[int(reader.frames[window])]

    return _compared(ours, lerobot, windows, repeats, "LeRobotDataset with video", time.process_time)


def loader_jpeg(path: Path, batches: int, repeats: int) -> Row:
    """Windows a second through a loader with two workers, against two processes that decode the same bytes at once."""
    reader, drawn = _drawn(path, batches)
    encoded, seen = _encoded(reader), [_seen(reader, batch) for batch in drawn]
    loader = _Loader(WindowDataset([reader]), batches)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(loader.rate())
        theirs.append(_decoded_by_two(encoded, seen))
    return _row(ours, theirs, "two processes that only decode")


def loader_raw(path: Path, batches: int, repeats: int) -> Row:
    """Windows a second through a loader with two workers, against the same loader over arrays in memory."""
    reader, _ = _drawn(path, batches)
    loaders = [_Loader(kind, batches) for kind in (WindowDataset([reader]), InMemory(WindowDataset([reader])))]
    rates: list[list[float]] = [[], []]
    for _ in range(repeats):
        for found, loader in zip(rates, loaders, strict=True):
            found.append(loader.rate())
    return _row(rates[0], rates[1], "memory through the same loader")


class InMemory(WindowDataset):
    """The same windows, everything being loaded: what no store can be quicker than."""

    def __init__(self, dataset: WindowDataset) -> None:
        super().__init__(dataset.readers)
        store = dataset.readers[0].store
        self._held = {key: store.load(key) for key in (*dataset.readers[0].cameras, "state", "action", "instruction")}

    def read(self, windows: Any, empty: Callable[..., np.ndarray] | None = None) -> dict[str, np.ndarray]:
        reader, held = self.readers[0], self._held
        frames = reader.frames[np.asarray(windows)]
        seen, seen_is_pad = reader.history(frames)
        acted, acted_is_pad = reader.chunk(frames)
        wanted = {f"images.{name}": (held[name], seen) for name in reader.cameras}
        wanted |= {"state": (held["state"], seen), "action": (held["action"], acted)}
        batch = {}
        for key, (column, rows) in wanted.items():
            batch[key] = (empty or np.empty)((*rows.shape, *column.shape[1:]), column.dtype)
            np.take(column, rows, axis=0, out=batch[key], mode="clip")
        ends = reader.store.episode_ends
        return batch | {
            "observation_is_pad": seen_is_pad,
            "action_is_pad": acted_is_pad,
            "instruction": held["instruction"][frames].astype(np.int64),
            "episode": np.searchsorted(ends, frames, side="right"),
            "index": frames,
            "store": np.zeros(len(frames), np.int64),
        }


class _Loader:
    """A loader whose workers run already, and how quick it is."""

    def __init__(self, dataset: WindowDataset, batches: int) -> None:
        self._loader = WindowLoader(dataset, WindowSampler(dataset, BATCH), WORKERS, context="fork")
        self._batches = batches
        for _ in self._loader:  # an epoch, so that files are open and memory is mapped
            pass

    def rate(self) -> float:
        """Windows a second of wall time, over whole epochs."""
        done, started = 0, time.perf_counter()
        while done < self._batches:
            done += sum(1 for _ in self._loader)
        return done * BATCH / (time.perf_counter() - started)


def _drawn(path: Path, batches: int) -> tuple[WindowReader, list[np.ndarray]]:
    """A reader that has read before, and batches of random windows."""
    reader = WindowReader(Store(path), SPEC)
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(reader), BATCH) for _ in range(batches)]
    reader.read(drawn[0])
    return reader, drawn


def _seen(reader: WindowReader, windows: np.ndarray) -> list[int]:
    """Rows of the images of a batch, each once a window."""
    rows, is_pad = reader.history(reader.frames[windows])
    return rows[~is_pad].tolist()


def _encoded(reader: WindowReader) -> list[list[bytes]]:
    """Every image of every camera as it lies on the disk."""
    return [reader.store.stored(name) for name in reader.cameras]


def _pictures(cameras: int) -> list[np.ndarray]:
    """Where the pictures of a batch are decoded to, mapped already."""
    return [np.zeros((BATCH * SPEC.history, SIDE, SIDE, 3), np.uint8) for _ in range(cameras)]


def _decode(encoded: Sequence[Sequence[bytes]], rows: Sequence[int], out: Sequence[np.ndarray]) -> None:
    from imagecodecs import jpeg8_decode

    for column, pictures in zip(encoded, out, strict=True):
        for k, row in enumerate(rows):
            jpeg8_decode(column[row], out=pictures[k])


def _decoded_by_two(encoded: list[list[bytes]], seen: list[list[int]]) -> float:
    """Windows a second of two processes that share the batches."""
    context = multiprocessing.get_context("fork")  # so that nothing has to be sent
    gate, times = context.Barrier(WORKERS), context.Array("d", 2 * WORKERS, lock=False)
    processes = [
        context.Process(target=_decode_some, args=(encoded, seen[k::WORKERS], gate, times, k), daemon=True)
        for k in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise TandemError("loader_jpeg: a process that only decodes failed")
    return len(seen) * BATCH / (max(times[1::2]) - min(times[::2]))


def _decode_some(encoded: list[list[bytes]], seen: list[list[int]], gate: Any, times: Any, k: int) -> None:
    """Notes when it began and ended by itself: whoever waits for it may wake up late."""
    out = _pictures(len(encoded))
    _decode(encoded, seen[0], out)
    gate.wait(60)
    times[2 * k] = time.perf_counter()
    for rows in seen:
        _decode(encoded, rows, out)
    times[2 * k + 1] = time.perf_counter()


def _sample(sample: dict[str, Any]) -> dict[str, np.ndarray]:
    """One sample of a shard as arrays."""
    from imagecodecs import jpeg8_decode

    found: dict[str, np.ndarray] = {}
    for name, data in sample.items():
        if name.endswith(".jpg"):
            found[name] = jpeg8_decode(data)
        elif name.endswith(".npy"):
            found[name] = np.load(io.BytesIO(data), allow_pickle=False)
        elif name == "json":
            told = json.loads(data)
            found["index"] = np.array(told["index"])
    return found


def _compared(
    ours: Callable[[], None],
    theirs: Callable[[], None],
    count: int,
    repeats: int,
    what: str,
    clock: Callable[[], float],
) -> Row:
    """Our windows a second over theirs, taken in turns."""
    rates: list[list[float]] = [[], []]
    for _ in range(repeats):
        for found, run in zip(rates, (ours, theirs), strict=True):
            started = clock()
            run()
            found.append(count / (clock() - started))
    return _row(rates[0], rates[1], what, " a CPU second" if clock is time.process_time else " a second")


def _row(ours: Sequence[float], theirs: Sequence[float], what: str, unit: str = " a second") -> Row:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    own, other = statistics.median(ours), statistics.median(theirs)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} repeats"
    note = f"{own:,.0f} windows{unit}, {what} {other:,.0f}; {spread}"
    ratio = statistics.median(ratios)
    return Row("", ratio, reference=other, ratio=ratio, repeats=len(ratios), note=note)
