"""Windows of several stores as one map dataset. No torch is needed: ``DataLoader`` takes it by its methods."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tandem_datasets.checksums import crc32c
from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_datasets.windows import WindowReader, WindowSpec


class WindowDataset:
    """Windows of one or several stores of one embodiment, counted through. A map dataset for ``DataLoader``.

    Raises:
        TandemError: no store, stores of different embodiments, or of readers that give different windows.
    """

    def __init__(self, readers: Sequence[WindowReader]) -> None:
        if not readers:
            raise TandemError("windows: no store (allowed: at least one)")
        for reader in readers[1:]:
            if reader.store.embodiment != readers[0].store.embodiment:
                raise TandemError(f"windows: {reader.store.name} is of another embodiment than {readers[0].store.name}")
            if (reader.spec.history, reader.spec.chunk, reader.cameras) != (
                readers[0].spec.history,
                readers[0].spec.chunk,
                readers[0].cameras,
            ):
                raise TandemError(f"windows: {reader.store.name} has other windows than {readers[0].store.name}")
        self.readers = tuple(readers)
        self.ends = np.cumsum([len(reader) for reader in readers])
        self.instructions = tuple(dict.fromkeys(text for reader in readers for text in reader.instructions))
        """Texts by the code ``instruction`` of a batch."""
        places = {text: place for place, text in enumerate(self.instructions)}
        self._codes = [np.array([places[text] for text in reader.instructions], np.int64) for reader in readers]

    @classmethod
    def of(cls, stores: Sequence[Store], spec: WindowSpec | None = None, threads: int = 0) -> "WindowDataset":
        """Windows of all episodes that are not marked as deleted."""
        return cls([WindowReader(store, spec, threads=threads) for store in stores])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def stores(self) -> np.ndarray:
        """Which store each window is of, int64 (N,)."""
        return np.repeat(np.arange(len(self.readers)), np.diff(self.ends, prepend=0))

    @property
    def sources(self) -> np.ndarray:
        """Who each window's first action is from, uint8 (N,), see :data:`windows.SOURCES`."""
        return np.concatenate([reader.sources for reader in self.readers])

    @property
    def content(self) -> str:
        """What a resumed order must find again: the stores' digests, and where the windows of each begin."""
        return "+".join(f"{reader.store.digest}:{crc32c(reader.frames.tobytes()):08x}" for reader in self.readers)

    def read(self, windows: Any, empty: Callable[..., np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Windows of any of the stores as one batch, see :meth:`windows.WindowReader.read`.

        ``instruction`` is a code of :attr:`instructions`; ``store`` (B,) int64 says which store.
        """
        wanted = np.asarray(windows, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            wrong = wanted[(wanted < 0) | (wanted >= len(self))][0]
            raise TandemError(f"windows: number {wrong} (allowed: 0..{len(self) - 1})")
        owner = np.searchsorted(self.ends, wanted, side="right")
        starts = np.append(0, self.ends)
        used = np.unique(owner)
        if len(used) == 1:
            batch = self._of_one(int(used[0]), wanted - starts[used[0]], empty)
            return batch | {"store": owner}
        return self._merged(owner, wanted - starts[owner], empty) | {"store": owner}

    def __getitem__(self, window: int) -> dict[str, np.ndarray]:
        return {key: values[0] for key, values in self.read([window]).items()}

    def __getitems__(self, windows: Sequence[int]) -> "Samples":
        return Samples(self.read(windows))

    def _of_one(
        self, which: int, windows: np.ndarray, empty: Callable[..., np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        batch = self.readers[which].read(windows, empty)
        batch["instruction"] = self._codes[which][batch["instruction"]]
        return batch

    def _merged(
        self, owner: np.ndarray, windows: np.ndarray, empty: Callable[..., np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        """A batch of several stores, in the order that was asked for."""
        places = [np.flatnonzero(owner == which) for which in range(len(self.readers))]
        parts = [(place, self._of_one(which, windows[place], None)) for which, place in enumerate(places) if len(place)]
        merged = {}
        for key, first in parts[0][1].items():
            make = empty if empty and (key.startswith("images.") or key in ("state", "action")) else np.empty
            out = make((len(windows), *first.shape[1:]), first.dtype)
            for place, part in parts:
                out[place] = part[key]
            merged[key] = out
        return merged


class Samples(list[dict[str, np.ndarray]]):
    """What ``DataLoader`` fetched: a list of windows for any ``collate_fn``, of one batch that ours takes whole."""

    def __init__(self, batch: Mapping[str, np.ndarray]) -> None:
        self.batch = dict(batch)
        count = len(next(iter(self.batch.values())))
        super().__init__({key: values[k] for key, values in self.batch.items()} for k in range(count))
