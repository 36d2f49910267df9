"""Shards as training windows at random: the same batches as ``windows.WindowReader`` gives, from one read a window."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.dataset import Samples
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.files import open_data
from tandem_datasets.formats.webdataset.shards import CONTENTS, decode, npy_head, parse_contents
from tandem_datasets.order import Shuffled
from tandem_datasets.places import LocalPlace
from tandem_datasets.reading import read_json

_OPEN = 64  # shards held open
_SAMPLE_LIMIT = 1 << 30  # bytes


class ShardWindows:
    """Windows of a folder of shards. A map dataset for ``DataLoader``, which can be pickled; no torch is needed.

    Raises:
        TandemError: it was not written by ``tandem data export ... webdataset``, or is damaged; later, from what reads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._where = f"shards {path}"
        found = read_json(LocalPlace(os.fspath(self.path)), CONTENTS, self._where)
        self.windows, self.instructions, shards = parse_contents(found, self._where)
        self._codes = {text: code for code, text in enumerate(self.instructions)}
        self._names = [name for name, _ in shards]
        self._ends = np.cumsum([count for _, count in shards])
        self._heads = {key: npy_head(shape) for key, shape in self.windows.arrays.items()}
        self._forget()
        if not shards:
            raise TandemError(f"{self._where}: no shards (allowed: at least one)")

    def _forget(self) -> None:
        self._files: dict[int, tuple[Any, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_files"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def embodiment(self) -> Embodiment:
        return self.windows.embodiment

    def __len__(self) -> int:
        return int(self._ends[-1])

    def order(self, seed: int) -> Shuffled:
        """Endless shuffled epochs, each place of which can be looked up: a resumed training goes on anywhere."""
        return Shuffled(np.arange(len(self)), seed)

    def batches(self, size: int, seed: int, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Endless shuffled batches from place ``start`` of :meth:`order` on."""
        order = self.order(seed)
        while True:
            yield self.read(order.take(start, start + size))
            start += size

    def read(self, windows: Any, empty: Callable[..., np.ndarray] = np.empty) -> dict[str, np.ndarray]:
        """Several windows as one batch, as ``windows.WindowReader.read`` gives it, and ``window``, their numbers there.

        Args:
            windows: their places in the shards, int (B,).
            empty: makes the arrays, as ``np.empty(shape, dtype)`` does.
        """
        wanted = np.asarray(windows, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise TandemError(f"{self._where}: window {wanted.max()} (allowed: 0..{len(self) - 1})")
        count, given = len(wanted), self.windows
        batch = {
            f"images.{camera.name}": empty((count, given.history, *camera.shape), camera.dtype)
            for camera in given.embodiment.cameras
        }
        batch |= {key: empty((count, *shape), np.float32) for key, shape in given.arrays.items()}
        batch |= {key: np.empty(count, np.int64) for key in ("instruction", "episode", "index", "window")}
        batch["observation_is_pad"] = np.zeros((count, given.history), np.bool_)
        batch["action_is_pad"] = np.zeros((count, given.chunk), np.bool_)
        for k, window in enumerate(wanted.tolist()):
            self._fill(batch, k, window)
        return batch

    def __getitem__(self, window: int) -> dict[str, np.ndarray]:
        return {key: values[0] for key, values in self.read([window]).items()}

    def __getitems__(self, windows: Sequence[int]) -> Samples:
        return Samples(self.read(windows))

    def _fill(self, batch: dict[str, np.ndarray], k: int, window: int) -> None:
        where, members = self._members(window)
        given = self.windows
        for (camera, t, kind), data in zip(given.pictures, members, strict=False):
            try:
                decode(data, kind, batch[f"images.{camera.name}"][k, t])
            except (ValueError, RuntimeError) as error:
                raise TandemError(f"{where}: {camera.name}.{t}: damaged picture: {str(error)[:100]}") from error
        for key, data in zip(("state", "action"), members[-3:-1], strict=True):
            head, out = self._heads[key], batch[key][k]
            if len(data) != len(head) + out.nbytes or data[: len(head)] != head:
                raise TandemError(f"{where}: {key}.npy (allowed: float32 {out.shape})")
            out[...] = np.frombuffer(data, np.float32, offset=len(head)).reshape(out.shape)
        self._fill_told(batch, k, members[-1], where)

    def _fill_told(self, batch: dict[str, np.ndarray], k: int, data: memoryview, where: str) -> None:
        try:
            told = json.loads(bytes(data))
            numbers = {key: int(told[key]) for key in ("episode", "index", "window", "observation_pad", "action_pad")}
            code = self._codes[told["instruction"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TandemError(f"{where}: json is damaged: {str(error)[:100]}") from error
        for key in ("episode", "index", "window"):
            batch[key][k] = numbers[key]
        batch["instruction"][k] = code
        batch["observation_is_pad"][k, : max(0, numbers["observation_pad"])] = True
        batch["action_is_pad"][k, max(0, self.windows.chunk - numbers["action_pad"]) :] = True

    def _members(self, window: int) -> tuple[str, list[memoryview]]:
        """One window's members, read at once, and how errors name it."""
        shard = int(np.searchsorted(self._ends, window, side="right"))
        place = window - (int(self._ends[shard - 1]) if shard else 0)
        where = f"{self._where}: {self._names[shard]}: window {place}"
        file, index = self._open(shard)
        spans = index[place].tolist()
        begin, end = spans[0][0], spans[-1][0] + spans[-1][1]
        fine = all(a >= begin and size >= 0 and a + size <= end for a, size in spans)
        if not fine or not 0 <= begin < end or end - begin > _SAMPLE_LIMIT:
            raise TandemError(f"{where}: its index is damaged")
        data = memoryview(os.pread(file.fileno(), end - begin, begin))
        if len(data) != end - begin:
            raise TandemError(f"{where}: the shard ends before it")
        return where, [data[a - begin : a - begin + size] for a, size in spans]

    def _open(self, shard: int) -> tuple[Any, np.ndarray]:
        if shard not in self._files:
            name = self._names[shard]
            index = self._index(shard, f"{name}.index.npy")
            with open_data(os.fspath(self.path / name), self._where):
                pass  # a clear error, and no pipe
            while len(self._files) >= _OPEN:
                self._files.pop(next(iter(self._files)))[0].close()
            self._files[shard] = ((self.path / name).open("rb"), index)
        return self._files[shard]

    def _index(self, shard: int, name: str) -> np.ndarray:
        count = int(np.diff(self._ends, prepend=0)[shard])
        shape = (count, len(self.windows.members), 2)
        try:
            found = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TandemError(f"{self._where}: {name}: {str(error)[:100]}") from error
        if found.shape != shape or found.dtype != np.int64:
            raise TandemError(f"{self._where}: {name} is {found.dtype} {found.shape} (allowed: int64 {shape})")
        return found
