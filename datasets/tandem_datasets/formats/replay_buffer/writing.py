"""A store's episodes as a Zarr v2 replay buffer, chunk by chunk."""

import json
import os
import zipfile
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.columns import chosen, plain_columns
from tandem_datasets.formats.importing import require_vacant, write_beside
from tandem_datasets.formats.replay_buffer.arrays import ENDS, folder_bytes
from tandem_datasets.progress import Progress
from tandem_datasets.store import Store
from tandem_datasets.workers import in_order

OURS = "tandem"
FACTS = f"{OURS}/facts"
_CHUNK_BYTES = 2_000_000  # Diffusion Policy's
_COMPRESSORS = ("disk", "default", "none", "jpegxl")


@dataclass(frozen=True)
class _Column:
    key: str  # theirs, with its group
    ours: str
    chunk_rows: int
    image: bool


@dataclass(frozen=True)
class _Plan:
    store: Store
    folder: str
    spans: tuple[tuple[int, int], ...]  # the episodes' rows in the store

    def rows(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Runs of the store's rows that make up the buffer's rows ``start..stop-1``."""
        runs, first = [], 0
        for a, b in self.spans:
            low, high = max(start - first, 0), min(stop - first, b - a)
            if low < high:
                runs.append((a + low, a + high))
            first += b - a
        return runs


def write(
    store: Store, target: Path, episodes: list[int] | None, names: dict[str, str], compressor: str, workers: int,
    progress: Progress,
) -> Path:  # fmt: skip
    """See ``formats.replay_buffer.export``."""
    where = f"export {store.name}"
    require_vacant(target, where)
    picked = chosen(store, episodes, where)
    if compressor not in _COMPRESSORS:
        raise unknown(f"{where}: compressor", compressor, _COMPRESSORS)
    columns = _columns(store, names, compressor, where)
    slices = [store.episode_slice(episode) for episode in picked]
    spans = tuple((rows.start, rows.stop) for rows in slices)
    ends = np.cumsum([b - a for a, b in spans])

    def fill(beside: Path) -> None:
        zipped = target.suffix == ".zip"
        folder = beside.with_suffix(".folder") if zipped else beside
        _make(store, folder, picked, ends, columns, compressor)
        plan = _Plan(store, os.fspath(folder), spans)
        tasks = [(column, k) for column in columns for k in range(-(-int(ends[-1]) // column.chunk_rows))]
        with closing(in_order(partial(_write_chunk, plan), tasks, workers, where)) as done:
            for count, _ in enumerate(done, 1):
                progress(count, len(tasks), "chunks")
        if zipped:
            _zip(folder, beside)

    return write_beside(target, fill, where)


def _columns(store: Store, names: dict[str, str], compressor: str, where: str) -> list[_Column]:
    cameras = [camera.name for camera in store.embodiment.cameras]
    main = [*cameras, *(["state"] if store.embodiment.state else []), *(["action"] if store.embodiment.action else [])]
    for name in names:
        if name not in main:
            raise unknown(f"{where}: map", name, main)
    theirs = [names.get(name, name) for name in main]
    if len(set(theirs)) != len(theirs) or not all(key.replace("_", "").isalnum() for key in theirs):
        raise TandemError(f"{where}: keys {', '.join(theirs)} (allowed: letters, digits and underscores, each once)")
    keys = [(f"data/{key}", name) for key, name in zip(theirs, main, strict=True)]
    keys += [(f"{OURS}/{name}", name) for name in (*plain_columns(store), "instruction")]
    columns = []
    for key, name in keys:
        row = store.load(name, 0, 1)
        image = name in cameras
        rows = 1 if image and compressor == "jpegxl" else max(1, _CHUNK_BYTES // max(1, row.nbytes))
        if row.nbytes:
            columns.append(_Column(key, name, min(rows, store.n_frames), image))
    return columns


def _make(
    store: Store, folder: Path, picked: list[int], ends: np.ndarray, columns: list[_Column], compressor: str
) -> None:
    """All arrays, with what is small already in them."""
    import zarr

    root = zarr.open_group(os.fspath(folder), mode="w", zarr_format=2)
    root.attrs["tandem"] = {"embodiment": store.embodiment.to_dict(), "instructions": store.instructions,
                            "keys": {column.ours: column.key for column in columns}}  # fmt: skip
    root.require_group("data")
    root.require_group("meta")
    facts = (asdict(store.info(episode)) for episode in picked)
    lines = "\n".join(json.dumps({**fact, "provenance": dict(fact["provenance"])}, sort_keys=True) for fact in facts)
    for key, values in ((ENDS, ends.astype(np.int64)), (FACTS, np.frombuffer(lines.encode(), np.uint8))):
        array = root.create_array(key, shape=values.shape, chunks=values.shape, dtype=values.dtype, compressors=None)
        array[:] = values
    for column in columns:
        row = store.load(column.ours, 0, 1)
        root.create_array(
            column.key,
            shape=(int(ends[-1]), *row.shape[1:]),
            chunks=(column.chunk_rows, *row.shape[1:]),
            dtype=row.dtype,
            compressors=_codec(compressor, column.image),
        )


def _codec(name: str, image: bool) -> Any:
    if name == "none":
        return None
    if name == "jpegxl" and image:
        from imagecodecs.numcodecs import Jpegxl

        return Jpegxl(lossless=True, effort=1, numthreads=1)
    from numcodecs import Blosc

    if name == "default":
        return Blosc("lz4", clevel=5, shuffle=Blosc.NOSHUFFLE)
    return Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)


def _write_chunk(plan: _Plan, task: tuple[_Column, int]) -> None:
    column, index = task
    array = _array(plan.folder, column.key)
    start = index * column.chunk_rows
    stop = min(start + column.chunk_rows, array.shape[0])
    array[start:stop] = np.concatenate([plan.store.load(column.ours, a, b) for a, b in plan.rows(start, stop)])


@lru_cache(maxsize=64)
def _array(folder: str, key: str) -> Any:
    import imagecodecs.numcodecs
    import zarr

    imagecodecs.numcodecs.register_codecs(verbose=False)
    return zarr.open_array(folder, path=key, mode="r+")


def _zip(folder: Path, target: Path) -> None:
    """Stored as they are: the chunks are compressed already."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for path, name in folder_bytes(folder):
            file.writestr(zipfile.ZipInfo(name), path.read_bytes())
