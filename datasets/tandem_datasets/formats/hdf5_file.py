"""HDF5 files of others, read so that they can neither reach other files nor take more memory than they hold."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.packages import package

_MAX_NUMBERS = 1 << 28  # bytes of one array of numbers that is loaded whole
_MAX_ROW = 16384 * 16384  # bytes of a picture
_MAX_CHUNK = 1 << 28  # bytes that the library takes for one chunk
_MAX_MEMBERS = 200_000
_MAX_TEXT = 1 << 20
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}


class Array:
    """One dataset, checked before anything of it is read."""

    def __init__(self, dataset: Any, where: str) -> None:
        self._dataset = dataset
        self._where = where
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype = np.dtype(dataset.dtype)
        if dataset.is_virtual or dataset.external:
            raise TandemError(f"{where}: its data is in other files (allowed: in this one)")
        if self.dtype.kind not in "biufS" or self.dtype.subdtype is not None:
            raise TandemError(f"{where}: type {self.dtype} (allowed: plain numbers)")
        if not self.shape or 0 in self.shape:
            raise TandemError(f"{where}: shape {self.shape} (allowed: at least one row)")
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
        odd = [code for code in filters if code not in _FILTERS]
        if odd:
            raise TandemError(f"{where}: filters {odd} (allowed: {', '.join(_FILTERS.values())})")
        if dataset.chunks and math.prod(dataset.chunks) * self.dtype.itemsize > _MAX_CHUNK:
            raise TandemError(f"{where}: chunks of {dataset.chunks} (allowed: {_MAX_CHUNK} bytes)")
        if self.row_bytes > _MAX_ROW:
            raise TandemError(f"{where}: rows of {self.row_bytes} bytes (allowed: {_MAX_ROW})")
        stored, told = dataset.id.get_storage_size(), self.row_bytes * len(self)
        if not stored or (not filters and dataset.chunks is None and stored < told):
            raise TandemError(f"{where}: {told} bytes declared, {stored} stored")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def load(self) -> np.ndarray:
        """All of it, for arrays of numbers."""
        size = self.row_bytes * len(self)
        if size > _MAX_NUMBERS:
            raise TandemError(f"{self._where}: {size} bytes (allowed: {_MAX_NUMBERS} for numbers)")
        return self._read(slice(None))

    def row(self, index: int) -> np.ndarray:
        """One row."""
        return self._read(index)

    def _read(self, index: Any) -> np.ndarray:
        try:
            return self._dataset[index]
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise TandemError(f"{self._where}: cannot be read: {' '.join(str(error).split())[:120]}") from None


class Hdf5File:
    """A file opened for reading.

    Raises:
        TandemError: from any member: it is no HDF5 file or damaged, or holds links to other places.
    """

    def __init__(self, path: Path) -> None:
        self.where = f"hdf5 {path}"
        self._h5py = package("h5py", self.where)
        try:
            self._file = self._h5py.File(path, "r")
        except OSError as error:
            raise TandemError(f"{self.where}: cannot be opened: {' '.join(str(error).split())[:120]}") from None

    def members(self, group: str = "/") -> list[str]:
        """Names in a group, in no order that matters; [] if there is no such group."""
        found = self._find(group)
        if found is None or not isinstance(found, self._h5py.Group):
            return []
        if len(found) > _MAX_MEMBERS:
            raise TandemError(f"{self.where}: {group} has {len(found)} members (allowed: {_MAX_MEMBERS})")
        return list(found)

    def has(self, path: str) -> bool:
        """Whether there is a group or a dataset."""
        return self._find(path) is not None

    def is_group(self, path: str) -> bool:
        """Whether there is a group."""
        return isinstance(self._find(path), self._h5py.Group)

    def array(self, path: str) -> Array:
        """The dataset at ``path``."""
        found, where = self._find(path), f"{self.where}: {path}"
        if not isinstance(found, self._h5py.Dataset):
            raise TandemError(f"{where}: {'missing' if found is None else 'a group'} (allowed: an array)")
        return Array(found, where)

    def text(self, path: str, name: str) -> str:
        """A text attribute; "" if there is none."""
        found = self._find(path)
        if found is None or name not in found.attrs:
            return ""
        if found.attrs.get_id(name).shape != ():
            raise TandemError(f"{self.where}: attribute {name} of {path} is an array (allowed: a text)")
        value = found.attrs[name]
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            raise TandemError(f"{self.where}: attribute {name} of {path} is no text of at most {_MAX_TEXT} characters")
        return text

    def _find(self, path: str) -> Any:
        """What is at ``path``, reached over hard links only; None if there is nothing."""
        place: Any = self._file
        for part in filter(None, path.split("/")):
            if not isinstance(place, self._h5py.Group):
                return None
            try:
                link = place.get(part, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    raise TandemError(f"{self.where}: {path} is a {type(link).__name__} (allowed: hard links)")
                place = place[part]
            except (OSError, KeyError, RuntimeError) as error:
                raise TandemError(f"{self.where}: {path} is damaged: {' '.join(str(error).split())[:120]}") from None
        return place

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()


def leaves(file: Hdf5File, group: str, depth: int = 4) -> Iterator[str]:
    """Paths of all datasets below a group."""
    for name in sorted(file.members(group)):
        path = f"{group}/{name}"
        if not file.is_group(path):
            yield path
        elif depth:
            yield from leaves(file, path, depth - 1)


def same_rows(arrays: Mapping[str, Array], where: str) -> int:
    """How many rows all have; raises TandemError if they differ."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise TandemError(f"{where}: arrays of different lengths: {str(lengths)[:160]}")
    return next(iter(lengths.values()))
