"""Shards of Zarr's ``sharding_indexed`` codec, written and read whole: 256 encoded rows and an index at the end.

The index holds (offset, size) of every row as little-endian uint64, all ones where there is none, and its
CRC-32C. The last shard is shared by episodes: it is written beside and renamed, never changed in place.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.files import PARTIAL, Syncer, open_data, write_file
from tandem_datasets.layout import SHARD_ROWS, Column

_EMPTY = np.uint64(2**64 - 1)
_INDEX_BYTES = SHARD_ROWS * 16
TRAILER_BYTES = _INDEX_BYTES + 4
_BLOCK = 1 << 20  # bytes copied at a time when a shard is rewritten


class ShardWriter:
    """Appends encoded rows to one column. ``rows`` below is always the number of committed ones.

    Between :meth:`append` and :meth:`publish` the caller may wait for the disk.
    """

    def __init__(self, root: str, column: Column, where: str, syncer: Syncer) -> None:
        self._folder = os.path.join(root, column.key)
        self._column = column
        self._where = where
        self._syncer = syncer
        self._index = _empty_index()  # of the last shard
        self._end = 0  # bytes of rows in the last shard
        self._rewritten: str | None = None  # shard whose new version still lies beside it

    def recover(self, rows: int) -> None:
        """Reads the last shard and drops from disk whatever lies past ``rows``."""
        drop_files(self._folder, self._column, rows)
        self._index, self._end, self._rewritten = _empty_index(), 0, None
        kept = rows % SHARD_ROWS
        if kept:
            path = self._path(rows // SHARD_ROWS)
            with open_data(path, self._where) as file:
                index, size = _read_index(file, self._where, self._column.key)
            check_rows(index[:kept], size, f"{self._where}: {self._column.key}")
            partial = bool((index[kept:] != _EMPTY).any())
            self._index[:kept] = index[:kept]
            self._end = int(index[:kept].sum(axis=1, dtype=np.uint64).max())
            if partial:
                self._write(rows // SHARD_ROWS, (), kept)
                self._syncer.flush()
                self.publish()

    def append(self, rows: int, encoded: Sequence[bytes]) -> None:
        """Writes rows after the first ``rows``; a crash in between leaves those untouched."""
        done = 0
        while done < len(encoded):
            shard, used = divmod(rows + done, SHARD_ROWS)
            if not used:
                self._index, self._end = _empty_index(), 0
            batch = encoded[done : done + SHARD_ROWS - used]
            self._write(shard, batch, used)
            done += len(batch)
        self._syncer.note_folder(self._folder)

    def publish(self) -> None:
        """Renames the rewritten shard, which holds committed rows and new ones, into place."""
        if self._rewritten is not None:
            path, self._rewritten = self._rewritten, None
            os.replace(path + PARTIAL, path)
            self._syncer.note_folder(self._folder)

    def _write(self, shard: int, batch: Sequence[bytes], used: int) -> None:
        path = self._path(shard)
        sizes = np.fromiter((len(data) for data in batch), np.uint64, len(batch))
        new = self._index[used : used + len(batch)]
        new[:, 1] = sizes
        new[:, 0] = self._end + np.cumsum(sizes) - sizes
        index = self._index.tobytes()
        parts = (b"".join(batch), index, _crc(index))
        if used:
            write_file(path + PARTIAL, chain(_blocks(path, self._end), parts), self._syncer)
            self._rewritten = path
        else:
            write_file(path, parts, self._syncer)
        self._end += int(sizes.sum())

    def _path(self, shard: int) -> str:
        return os.path.join(self._folder, self._column.file_name(shard))


def drop_files(folder: str, column: Column, rows: int) -> None:
    """Removes the files of a column that hold no committed row, and half-written ones."""
    first_stale = column.files(rows)
    tail = ".0" * len(column.row)
    for name in os.listdir(folder):
        number = name.removeprefix("c.").removesuffix(tail)
        stale = number.isdecimal() and name == column.file_name(int(number)) and int(number) >= first_stale
        if stale or name.endswith(PARTIAL):
            os.unlink(os.path.join(folder, name))


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


def check_rows(index: np.ndarray, size: int, where: str) -> None:
    """Raises TandemError unless the rows of this part of an index are there and within the first ``size`` bytes."""
    offsets, sizes = index[:, 0], index[:, 1]
    limit = np.uint64(size)
    if (offsets > limit).any() or (sizes > limit - np.minimum(offsets, limit)).any():
        raise TandemError(f"{where} is damaged (a shard lacks committed rows)")


def _blocks(path: str, size: int) -> Iterator[bytes]:
    """The first ``size`` bytes of a file, piece by piece."""
    with open(path, "rb", buffering=0) as file:
        while size:
            block = file.read(min(size, _BLOCK))
            if not block:
                raise OSError(f"{path} became shorter")
            size -= len(block)
            yield block
