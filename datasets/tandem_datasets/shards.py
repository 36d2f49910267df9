"""Shards of Zarr's ``sharding_indexed`` codec: 256 encoded rows and an index at the end.

The index holds (offset, size) of every row as little-endian uint64, all ones where there is none, and its
CRC-32C. The last shard is shared by episodes: it is written beside and renamed, never changed in place.
"""

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.files import PARTIAL, Syncer, identity, open_data, open_file, remove, replace, write_at
from tandem_datasets.layout import SHARD_ROWS, Column

_EMPTY = np.uint64(2**64 - 1)
_INDEX_BYTES = SHARD_ROWS * 16
TRAILER_BYTES = _INDEX_BYTES + 4
_BLOCK = 1 << 20  # bytes copied at a time when a shard is rewritten


class ShardWriter:
    """Appends encoded rows to one column, some of them to the disk long before they are committed.

    Until the commit nothing of it is seen by readers: full shards have names past the committed ones, and a shard that
    committed rows share is written beside, until :meth:`publish`. Every method can be called again after an OSError.
    """

    def __init__(self, root: str, column: Column, where: str, syncer: Syncer) -> None:
        self.pending_bytes = 0  # of rows that are only in memory
        self._folder = os.path.join(root, column.key)
        self._column = column
        self._where = where
        self._syncer = syncer
        self._pending: list[bytes] = []
        self._filled: list[str] = []  # full shards that are not committed
        self._beside: str | None = None  # a shard that readers see, whose new version lies beside it
        self._beside_is = (0, 0)  # what tells that version's file from others
        self._descriptor, self._open_path = -1, ""
        self._begin_shard(0)

    def recover(self, rows: int) -> None:
        """Reads the last shard and drops from disk whatever lies past ``rows``."""
        self.close()
        drop_files(self._folder, self._column, rows)
        self._pending, self.pending_bytes, self._filled, self._beside = [], 0, [], None
        number, used = divmod(rows, SHARD_ROWS)
        self._begin_shard(number)
        if not used:
            return
        with open_data(self._path(), self._where) as file:
            index, size = _read_index(file, self._where, self._column.key)
        kept = index[:used]
        check_rows(kept, size, self._column, self._where)
        self._index[:used], self._used, self._seen = kept, used, True
        self._end = int(kept.sum(axis=1, dtype=np.uint64).max())
        if (index[used:] != _EMPTY).any():
            self._sealed = False
            self.seal()
            self._syncer.flush()
            self.publish()

    def append(self, encoded: Sequence[bytes]) -> None:
        """Takes rows into memory."""
        self._pending += encoded
        self.pending_bytes += sum(map(len, encoded))

    def write(self) -> None:
        """Brings all rows to the disk, and the index of each shard that they fill."""
        while self._pending or self._used == SHARD_ROWS:
            if self._used == SHARD_ROWS:
                self._end_shard()
                continue
            self._open()
            batch = self._pending[: SHARD_ROWS - self._used]
            end = write_at(self._descriptor, batch, self._end, self._open_path)
            sizes = np.fromiter(map(len, batch), np.uint64, len(batch))
            new = self._index[self._used : self._used + len(batch)]
            new[:, 1] = sizes
            new[:, 0] = self._end + np.cumsum(sizes) - sizes
            del self._pending[: len(batch)]
            self.pending_bytes -= end - self._end
            self._used, self._end, self._sealed = self._used + len(batch), end, False

    def seal(self) -> None:
        """Brings everything to the disk that a reader needs, the index of the last shard too."""
        self.write()
        if not self._sealed:
            self._write_index()
            self._syncer.note(self._descriptor, self._open_path)

    def publish(self) -> None:
        """Renames the new version of the shard with committed rows into place."""
        if self._beside is None:
            return
        try:
            replace(self._beside + PARTIAL, self._beside)
        except OSError:  # which network file systems also report of what they did
            if identity(self._beside) != self._beside_is:
                raise
        self._syncer.note_folder(self._folder)
        if self._open_path == self._beside + PARTIAL:
            self.close()  # what is added now goes beside once more
        self._beside = None

    def finish(self) -> None:
        """All rows are committed."""
        assert self._sealed
        assert not self._pending
        self.close()
        self._filled, self._seen = [], self._used > 0

    @property
    def gone(self) -> bool:
        """Whether somebody removed a file of rows that are not committed."""
        paths = [*self._filled, *([self._open_path] if self._descriptor >= 0 else [])]
        return not all(map(os.path.exists, paths))

    def close(self) -> None:
        """Closes the shard that is held open."""
        if self._descriptor >= 0:
            self._syncer.forget(self._descriptor)
            os.close(self._descriptor)
        self._descriptor, self._open_path = -1, ""

    def _begin_shard(self, number: int) -> None:
        self._number = number
        self._index = _empty_index()
        self._used = self._end = 0  # rows, and bytes of them
        self._seen = False  # whether readers see the file of this name
        self._sealed = True  # whether its index is written

    def _end_shard(self) -> None:
        if not self._sealed:
            self._write_index()
        if self._descriptor >= 0:
            self._syncer.take(self._descriptor, self._open_path)
            self._descriptor, self._open_path = -1, ""
        if not self._seen:
            self._filled.append(self._path())
        self._begin_shard(self._number + 1)

    def _open(self) -> None:
        """Opens the shard for writing, past the rows that it has."""
        if self._descriptor >= 0:
            return
        path = self._path()
        target = path + PARTIAL if self._seen else path
        descriptor = open_file(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            offset = 0
            for block in _blocks(path, self._end):
                offset = write_at(descriptor, (block,), offset, target)
        except BaseException:
            os.close(descriptor)
            raise
        self._syncer.note_folder(self._folder)
        self._descriptor, self._open_path = descriptor, target
        if self._seen:
            self._beside, self._beside_is = path, identity(descriptor)

    def _write_index(self) -> None:
        self._open()
        index = self._index.tobytes()
        write_at(self._descriptor, (index, _crc(index)), self._end, self._open_path)
        self._sealed = True

    def _path(self) -> str:
        return os.path.join(self._folder, self._column.file_name(self._number))


def whole_shard(rows: Sequence[bytes]) -> list[bytes]:
    """A shard of these encoded rows, in the parts of which its file consists."""
    assert len(rows) <= SHARD_ROWS
    index = _empty_index()
    index[: len(rows), 1] = [len(row) for row in rows]
    index[: len(rows), 0] = np.cumsum([0, *map(len, rows)])[: len(rows)]
    data = index.tobytes()
    return [*rows, data, _crc(data)]


def drop_files(folder: str, column: Column, rows: int) -> None:
    """Removes the files of a column that hold no committed row, and half-written ones."""
    first_stale = column.files(rows)
    tail = ".0" * len(column.row)
    for name in os.listdir(folder):
        number = name.removeprefix("c.").removesuffix(tail)
        stale = number.isdecimal() and name == column.file_name(int(number)) and int(number) >= first_stale
        if stale or name.endswith(PARTIAL):
            remove(os.path.join(folder, name))


def _empty_index() -> np.ndarray:
    return np.full((SHARD_ROWS, 2), _EMPTY, np.uint64)


def _crc(index: bytes) -> bytes:
    import google_crc32c

    return google_crc32c.value(index).to_bytes(4, "little")


def parse_index(trailer: bytes | memoryview, where: str, key: str) -> np.ndarray:
    """Offset and size of every row, uint64 (256, 2), from a shard's last bytes; empty rows are there, too."""
    if len(trailer) != TRAILER_BYTES or _crc(bytes(trailer[:_INDEX_BYTES])) != trailer[_INDEX_BYTES:]:
        raise TandemError(f"{where}: {key} is damaged (the checksum of a shard's index is wrong)")
    return np.frombuffer(trailer, "<u8", SHARD_ROWS * 2).reshape(SHARD_ROWS, 2)


def _read_index(file: BinaryIO, where: str, key: str) -> tuple[np.ndarray, int]:
    """The index and the size of the rows before it in bytes."""
    size = os.fstat(file.fileno()).st_size - TRAILER_BYTES
    if size < 0:
        raise TandemError(f"{where}: {key} is truncated")
    file.seek(size)
    return parse_index(file.read(TRAILER_BYTES), where, key), size


def check_rows(index: np.ndarray, size: int, column: Column, where: str) -> None:
    """Raises TandemError unless the rows of this part of an index are there, each in bytes of its own, all of them
    within the first ``size``, and none longer than it can be."""
    offsets, sizes = index[:, 0], index[:, 1]
    limit = np.uint64(size)
    if (offsets > limit).any() or (sizes > limit - np.minimum(offsets, limit)).any():
        raise TandemError(f"{where}: {column.key} is damaged (a shard lacks committed rows)")
    if len(sizes) and (sizes.max() > column.most_bytes or sizes.sum() > limit):
        raise TandemError(f"{where}: {column.key} is damaged (a shard says that it holds more than it can)")


def _blocks(path: str, size: int) -> Iterator[bytes]:
    """The first ``size`` bytes of a file, piece by piece; none of a file that need not be there."""
    if not size:
        return
    with open(path, "rb", buffering=0) as file:
        while size:
            block = file.read(min(size, _BLOCK))
            if not block:
                raise OSError(f"{path} became shorter")
            size -= len(block)
            yield block
