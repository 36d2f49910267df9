"""A store's training windows as tar shards."""

import io
import json
import tarfile
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.codecs import codec_by_name
from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.columns import chosen
from tandem_datasets.formats.importing import require_vacant, write_beside
from tandem_datasets.formats.webdataset.shards import (
    CONTENTS,
    FORMAT,
    JPG,
    PNG,
    TAR_BLOCK,
    VERSION,
    Windows,
    encode,
    npy_bytes,
    shard_name,
)
from tandem_datasets.layout import Column, frame_columns
from tandem_datasets.places import place_of
from tandem_datasets.progress import Progress
from tandem_datasets.reading import read_stored
from tandem_datasets.store import Store
from tandem_datasets.windows import WindowReader, WindowSpec
from tandem_datasets.workers import in_order

_BATCH = 32  # windows decoded at once


@dataclass(frozen=True)
class Options:
    """See ``formats.webdataset.export``."""

    image: str
    shard_windows: int
    shuffle: bool
    seed: int

    def check(self, where: str) -> None:
        if self.image not in ("auto", PNG, JPG):
            raise unknown(f"{where}: image", self.image, ("auto", PNG, JPG))
        if not 1 <= self.shard_windows <= 1_000_000:
            raise TandemError(f"{where}: shard_windows is {self.shard_windows} (allowed: 1..1000000)")
        if self.seed < 0:
            raise TandemError(f"{where}: seed is {self.seed} (allowed: from 0)")


@dataclass(frozen=True)
class _Plan:
    """What is the same for all shards; it travels to worker processes."""

    reader: WindowReader
    windows: Windows
    folder: str
    as_stored: bool  # a jpeg store's own bytes
    where: str

    def columns(self) -> dict[str, Column]:
        store = self.reader.store
        return frame_columns(store.embodiment, codec_by_name(store.codec, self.where))


def write(
    store: Store, target: Path, episodes: list[int] | None, spec: WindowSpec, options: Options, workers: int,
    progress: Progress,
) -> Path:  # fmt: skip
    """See ``formats.webdataset.export``."""
    where = f"export {store.name}"
    require_vacant(target, where)
    options.check(where)
    reader = WindowReader(store, spec, chosen(store, episodes, where))
    if not len(reader):
        raise TandemError(f"{where}: no windows (wanted: frames with a target, or learn=executed)")
    image = options.image if options.image != "auto" else JPG if store.codec == "jpeg" else PNG
    windows = Windows(store.embodiment, spec.history, spec.chunk, image)
    count = len(reader)
    order = np.random.default_rng(options.seed).permutation(count) if options.shuffle else np.arange(count)
    size = options.shard_windows
    tasks = [(k, order[start : start + size]) for k, start in enumerate(range(0, len(order), size))]

    def fill(folder: Path) -> None:
        folder.mkdir()
        plan = _Plan(reader, windows, str(folder), store.codec == "jpeg" and image == JPG, where)
        shards: list[dict[str, Any]] = []
        with closing(in_order(partial(_write_shard, plan), tasks, workers, where)) as done:
            for shard in done:
                shards.append(shard)
                progress(len(shards), len(tasks), "shards")
        _write_contents(folder, windows, spec, options, store, shards)

    return write_beside(target, fill, where)


def _write_contents(
    folder: Path, windows: Windows, spec: WindowSpec, options: Options, store: Store, shards: list[dict[str, Any]]
) -> None:
    contents = {
        "format": FORMAT,
        "version": VERSION,
        "embodiment": windows.embodiment.to_dict(),
        "history": windows.history,
        "chunk": windows.chunk,
        "image": windows.image,
        "members": windows.members,
        "stride": spec.stride,
        "learn": spec.learn,
        "shuffled": options.shuffle,
        "seed": options.seed,
        "store": store.digest,
        "instructions": store.instructions,
        "shards": shards,
    }
    (folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n", "utf-8")


def _write_shard(plan: _Plan, task: tuple[int, np.ndarray]) -> dict[str, Any]:
    """Writes a tar and its index; returns its line in the contents."""
    number, wanted = task
    path = Path(plan.folder, shard_name(number))
    places = []
    first = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for start in range(0, len(wanted), _BATCH):
            for sample in _samples(plan, wanted[start : start + _BATCH]):
                places.append([_add(tar, f"{number:06d}{first:08d}.{name}", data) for name, data in sample])
                first += 1
    path.with_name(f"{path.name}.index.npy").write_bytes(npy_bytes(np.array(places, np.int64)))
    return {"name": path.name, "windows": len(wanted)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Returns where the member's data lies."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    begin = tar.offset + TAR_BLOCK
    tar.addfile(member, io.BytesIO(data))
    return begin, len(data)


def _samples(plan: _Plan, wanted: np.ndarray) -> list[list[tuple[str, bytes]]]:
    """Members of several windows, each with its name after the sample's key."""
    batch = plan.reader.read(wanted)
    names = plan.windows.members
    texts = plan.reader.instructions
    stored = _Stored(plan, batch["index"]) if plan.as_stored else None
    samples = []
    for k, window in enumerate(wanted.tolist()):
        pictures = [
            stored.picture(camera, k, t)
            if stored is not None and kind == JPG
            else encode(batch[f"images.{camera.name}"][k, t], kind)
            for camera, t, kind in plan.windows.pictures
        ]
        told = {
            "instruction": texts[int(batch["instruction"][k])],
            "episode": int(batch["episode"][k]),
            "index": int(batch["index"][k]),
            "window": window,
            "observation_pad": int(batch["observation_is_pad"][k].sum()),
            "action_pad": int(batch["action_is_pad"][k].sum()),
        }
        arrays = [npy_bytes(np.ascontiguousarray(batch[key][k], np.float32)) for key in ("state", "action")]
        samples.append(list(zip(names, [*pictures, *arrays, json.dumps(told).encode()], strict=True)))
    return samples


class _Stored:
    """The bytes that a jpeg store holds: decoding and encoding again would lose once more."""

    def __init__(self, plan: _Plan, frames: np.ndarray) -> None:
        reader, spec = plan.reader, plan.reader.spec
        self._place, self._where, self._columns = place_of(reader.store.name), plan.where, plan.columns()
        ends = reader.store.episode_ends
        first = np.append(0, ends)[np.searchsorted(ends, frames, side="right")][:, None]
        steps = np.arange(spec.history - 1, -1, -1)
        self._rows = np.maximum(frames[:, None] - spec.spacing * steps, first)

    def picture(self, camera: Camera, k: int, t: int) -> bytes:
        row = int(self._rows[k, t])
        return read_stored(self._place, self._columns[camera.name], row, row + 1, self._where)[0]
