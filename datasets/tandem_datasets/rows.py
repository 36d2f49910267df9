"""Single rows of a column, anywhere in it, straight into the array that asks for them.

Locally a window costs one ``pread`` a camera: shards stay open, their indices are cached, and rows that follow each
other are read together. Remotely the rows of a shard are asked for in as few ranges as possible.
"""

import math
import os
import resource
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.files import open_data
from tandem_datasets.layout import Column
from tandem_datasets.places import LocalFile, Place, PlacedFile
from tandem_datasets.reading import damaged_row, decode_images, read_index
from tandem_datasets.shards import check_rows

_SCRATCH = 1 << 16  # bytes of encoded rows to begin with
_FEWEST_OPEN, _MANY_OPEN, _MOST_INDICES = 8, 4096, 16384
_LIVE: "weakref.WeakSet[ColumnRows]" = weakref.WeakSet()  # they share the descriptors that a process may hold
_UNUSED = 2  # references to a block: the list's and the question's
_LENT_FROM, _MOST_LENT = 1 << 18, 4
_Run = tuple[int, int, int]  # rows that follow each other in one file: (place of the first in the batch, count, row)


class ColumnRows:
    """A numeric column (N, *row) that is read when it is indexed: by a number, a slice or an array of any shape.

    Threads may share it, and it can be pickled.

    Args:
        place: where the store lies.
        column: of images or numbers.
        count: N, the committed rows.
        where: begins the errors.
        threads: that read and decode a batch; 0: the one that asks.
    """

    def __init__(self, place: Place, column: Column, count: int, where: str, threads: int = 0) -> None:
        assert column.dtype is not None
        self.column, self.dtype, self.shape = column, column.dtype, (count, *column.row)
        self.threads = threads
        self._plain_pixels = column.codec is not None and column.codec.name == "raw"
        self._place, self._where = place, where
        self._start()

    def _start(self) -> None:
        self._files: dict[int, _OpenFile] = {}
        self._buffers = Buffers()
        self._indices: dict[int, np.ndarray] = {}  # of remote shards
        self._pool: tuple[int, ThreadPoolExecutor] | None = None  # with the process that made it
        _LIVE.add(self)

    def __getstate__(self) -> dict[str, Any]:
        left = ("_files", "_buffers", "_indices", "_pool")
        return {key: value for key, value in self.__dict__.items() if key not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted = np.asarray(rows)
        if wanted.dtype == np.bool_:
            wanted = np.flatnonzero(wanted)
        flat = np.where(wanted < 0, wanted + len(self), wanted).reshape(-1)
        out = self._buffers((len(flat), *self.column.row), self.dtype)
        self.read_into(flat, out)
        return out.reshape(*wanted.shape, *self.column.row)

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fills ``out`` (n, *row), C-contiguous, with ``rows`` int (n,); raises TandemError if one is damaged."""
        assert out.shape[1:] == self.column.row
        assert out.flags.c_contiguous
        if not len(rows) or not self.column.row_bytes:
            return
        if rows.min() < 0 or rows.max() >= len(self):
            wrong = rows[(rows < 0) | (rows >= len(self))][0]
            raise TandemError(f"{self._where}: {self.column.key}: row {wrong} (allowed: 0..{len(self) - 1})")
        fresh = np.append(True, rows[1:] != rows[:-1])  # padding repeats a row
        found = _runs(rows, fresh, self.column.rows_per_file)
        if self._place.local is None:
            self._read_remote(found, out)
        else:
            self._spread(found, out)
        for k in np.flatnonzero(~fresh).tolist():
            out[k] = out[k - 1]

    # -- local files

    def _spread(self, found: list[_Run], out: np.ndarray) -> None:
        """All runs, by this thread or several."""
        if self.threads < 2 or len(found) < 2:
            self._read_runs(found, out)
            return
        share = -(-len(found) // self.threads)
        parts = [found[k : k + share] for k in range(0, len(found), share)]
        for _ in self._workers(self.threads).map(lambda part: self._read_runs(part, out), parts):
            pass

    def _read_runs(self, found: list[_Run], out: np.ndarray) -> None:
        size = self.column.rows_per_file
        if not self.column.sharded:
            for at, count, row in found:
                number, first = divmod(row, size)
                self._file(number).read_into(first * self.column.row_bytes, out[at : at + count])
            return
        assert self.column.codec is not None
        decode, scratch = self.column.codec.decode, memoryview(bytearray(_SCRATCH))
        for at, count, row in found:
            number, first = divmod(row, size)
            file = self._file(number)
            if self._plain_pixels and file.even:
                file.read_into(file.lows[first], out[at : at + count])
                continue
            lows, highs = file.lows[first : first + count], file.highs[first : first + count]
            for k in range(count):
                if k == 0 or not file.in_order:  # else one call reads all
                    start, stop = lows[k], highs[-1] if file.in_order else highs[k]
                    if stop - start > len(scratch):
                        scratch = memoryview(bytearray(2 * (stop - start)))
                    file.fill(scratch[: stop - start], start)
                try:
                    decode(scratch[lows[k] - start : highs[k] - start], out[at + k])
                except (ValueError, RuntimeError) as error:
                    raise damaged_row(self.column, number, first + k, error, self._where) from error

    def _file(self, number: int) -> "_OpenFile":
        return self._files.get(number) or self._open(number)

    def _open(self, number: int) -> "_OpenFile":
        """Opens a file and keeps it so, as long as not too many are."""
        while len(self._files) >= _most_open():
            try:
                oldest = next(iter(self._files), None)
            except RuntimeError:  # another thread has just opened one
                continue
            self._files.pop(oldest, None)  # type: ignore[arg-type]  # closed when its last reader is done
        assert self._place.local is not None
        try:
            file = _OpenFile(self._place.local, self.column, number, len(self), self._where)
        finally:
            self._place.require_same(self._where)
        self._files[number] = file
        return file

    def _workers(self, count: int) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            self._pool = os.getpid(), ThreadPoolExecutor(count, "tandem-rows")
        return self._pool[1]

    # -- remote files

    def _read_remote(self, found: list[_Run], out: np.ndarray) -> None:
        by_file: dict[int, list[_Run]] = {}
        for run in found:
            by_file.setdefault(run[2] // self.column.rows_per_file, []).append(run)
        pool = self._workers(self._place.lanes)
        for _ in pool.map(lambda number: self._read_remote_file(number, by_file[number], out), by_file):
            pass

    def _read_remote_file(self, number: int, found: list[_Run], out: np.ndarray) -> None:
        size, row_bytes = self.column.rows_per_file, self.column.row_bytes
        wanted = [(at + k, row % size + k) for at, count, row in found for k in range(count)]
        name = f"{self.column.key}/{self.column.file_name(number)}"
        with self._place.file(name, self._where) as file:
            if self.column.sharded:
                index = self._remote_index(file, number)
                spans = [(int(index[k, 0]), int(index[k].sum())) for _, k in wanted]
            else:
                spans = [(k * row_bytes, (k + 1) * row_bytes) for _, k in wanted]
            found_bytes = file.spans(spans)
        if not self.column.sharded:
            for (at, _), data in zip(wanted, found_bytes, strict=True):
                out[at] = np.frombuffer(data, self.dtype).reshape(self.column.row)
            return
        for at, count, row in found:
            part, found_bytes = found_bytes[:count], found_bytes[count:]
            decode_images(
                self.column, number, range(row % size, row % size + count), part, out[at : at + count], self._where
            )

    def _remote_index(self, file: PlacedFile, number: int) -> np.ndarray:
        if number not in self._indices:
            if len(self._indices) >= _MOST_INDICES:
                self._indices.clear()
            self._indices[number] = _checked_index(file, self.column, number, len(self), self._where)
        return self._indices[number]


class JoinedRows:
    """Chosen rows of several columns of one kind, one after the other, read when they are indexed.

    Args:
        parts: columns, and which of their rows, int64.
    """

    def __init__(self, parts: Sequence[tuple[ColumnRows, np.ndarray]]) -> None:
        self._columns = [column for column, _ in parts]
        self._rows = [rows for _, rows in parts]
        self._ends = np.cumsum([len(rows) for rows in self._rows])
        self.dtype = self._columns[0].dtype
        self.shape = (int(self._ends[-1]), *self._columns[0].column.row)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.asarray(rows)
        flat = np.where(wanted < 0, wanted + len(self), wanted).reshape(-1)
        if len(flat) and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"row {flat.max()} of {len(self)}")
        owner = np.searchsorted(self._ends, flat, side="right")
        starts = np.append(0, self._ends)
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for part in np.unique(owner).tolist():
            here = owner == part
            of_part = self._rows[part][flat[here] - starts[part]]
            if here.all():
                self._columns[part].read_into(of_part, out)
            else:
                out[here] = self._columns[part][of_part]
        return out.reshape(*wanted.shape, *self.shape[1:])


class Buffers:
    """``np.empty``, but large memory is handed out again once nobody holds an array of it any more.

    A batch of images is fresh memory otherwise, and having it mapped page by page costs as much as copying it.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Buffers"], tuple[()]]:
        return Buffers, ()

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size < _LENT_FROM:
            return np.empty(shape, kind)
        with self._lock:
            blocks = self._blocks.setdefault(size, [])
            for k in range(len(blocks)):
                if sys.getrefcount(blocks[k]) == _UNUSED:  # arrays over it, and views of these, each hold it
                    return blocks[k].view(kind).reshape(shape)
            block = np.empty(size, np.uint8)
            if len(blocks) < _MOST_LENT:
                blocks.append(block)
            return block.view(kind).reshape(shape)


class _OpenFile:
    """A shard or chunk that is held open; closed with its last reference, so that threads need no lock."""

    def __init__(self, folder: str, column: Column, number: int, rows: int, where: str) -> None:
        name = column.file_name(number)
        self._name, self._where = name, where
        with open_data(os.path.join(folder, column.key, name), where) as opened:
            file = LocalFile(opened.fileno(), name, where)
            if column.sharded:
                index = _checked_index(file, column, number, rows, where)
                self.lows = index[:, 0].tolist()
                self.highs = index.sum(axis=1, dtype=np.uint64).tolist()
                self.in_order = self.lows[1:] == self.highs[:-1]  # one row after the other
                self.even = self.in_order and bool((index[:, 1] == column.row_bytes).all())
            elif file.size != column.rows_per_file * column.row_bytes:
                raise TandemError(f"{where}: {column.key} is truncated")
            self._descriptor = os.dup(opened.fileno())

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fills a contiguous array from a position on."""
        self.fill(memoryview(out).cast("B"), start)

    def fill(self, out: memoryview, start: int) -> None:
        """Fills ``out`` from a position on."""
        while out:
            try:
                count = os.preadv(self._descriptor, [out], start)  # at most 2 GB
            except OSError as error:
                raise TandemError(f"{self._where}: cannot read {self._name}: {error.strerror or error}") from error
            if not count:
                raise TandemError(f"{self._where}: {self._name} is truncated")
            out, start = out[count:], start + count


def _checked_index(file: PlacedFile, column: Column, number: int, rows: int, where: str) -> np.ndarray:
    """Offset and size of each committed row of a shard, each found to lie within it: uint64 (n, 2)."""
    index, size = read_index(file, column, where)
    committed = index[: min(rows - number * column.rows_per_file, column.rows_per_file)]
    check_rows(committed, size, column, where)
    return committed


def _runs(rows: np.ndarray, fresh: np.ndarray, size: int) -> list[_Run]:
    """Stretches of fresh ``rows`` that follow each other within a file of ``size`` rows."""
    goes_on = np.append(False, (rows[1:] == rows[:-1] + 1) & (rows[1:] % size != 0) & fresh[:-1])
    starts = np.flatnonzero(fresh & ~goes_on)
    breaks = np.append(np.flatnonzero(~goes_on), len(rows))
    stops = breaks[np.searchsorted(breaks, starts, side="right")]
    return list(zip(starts.tolist(), (stops - starts).tolist(), rows[starts].tolist(), strict=True))


def _most_open() -> int:
    """Files that one column may hold open: all of them together half of what the process may."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MANY_OPEN if most == resource.RLIM_INFINITY else max(_FEWEST_OPEN, most // 2 // max(1, len(_LIVE)))
