"""Plain uncompressed chunks: vectors, numbers and flags, 4096 rows to a file.

A file has its full size from the start (a sparse one), as Zarr wants it. Rows are added in place: bytes of
committed rows are never written again, and what lies past them has no meaning.
"""

import os

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.files import Syncer, open_data, open_file, resize, write_at
from tandem_datasets.layout import Column
from tandem_datasets.shards import drop_files


class ChunkWriter:
    """Writes rows of one column from any row on; repeating it after a failure is harmless."""

    def __init__(self, root: str, column: Column, where: str, syncer: Syncer) -> None:
        self._folder = os.path.join(root, column.key)
        self._column = column
        self._where = where
        self._syncer = syncer
        self._file_bytes = column.rows_per_file * column.row_bytes
        self._number = -1  # of the chunk that is held open
        self._descriptor = -1

    def recover(self, rows: int) -> None:
        """Drops the files past the first ``rows``; raises TandemError if the last one is damaged."""
        self.close()
        drop_files(self._folder, self._column, rows)
        if rows % self._column.rows_per_file and self._file_bytes:
            with open_data(self._path(rows // self._column.rows_per_file), self._where) as file:
                if os.fstat(file.fileno()).st_size != self._file_bytes:
                    raise TandemError(f"{self._where}: {self._column.key} is truncated")

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes ``values`` (n, *row) from ``row`` on. Readers see at once what is not past the committed ones."""
        assert values.shape[1:] == self._column.row
        assert values.dtype == self._column.dtype
        data = memoryview(values.tobytes())
        start = row * self._column.row_bytes
        while data:
            number, offset = divmod(start, self._file_bytes)
            self._open(number)
            piece = data[: self._file_bytes - offset]
            write_at(self._descriptor, (piece,), offset, self._path(number))
            self._syncer.note(self._descriptor, self._path(number))
            data, start = data[len(piece) :], start + len(piece)

    @property
    def gone(self) -> bool:
        """Whether the chunk that is held open was removed from its folder."""
        return self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Closes the chunk that is held open; what it holds past the committed rows is not needed any more."""
        if self._descriptor >= 0:
            self._syncer.forget(self._descriptor)
            os.close(self._descriptor)
        self._number = self._descriptor = -1

    def _open(self, number: int) -> None:
        """Holds chunk ``number`` open, made at its full size if it is new."""
        if number == self._number:
            return
        if self._descriptor >= 0:
            self._syncer.take(self._descriptor, self._path(self._number))
            self._number = self._descriptor = -1
        path = self._path(number)
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size != self._file_bytes:
                resize(descriptor, self._file_bytes, path)
                self._syncer.note_folder(self._folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._number, self._descriptor = number, descriptor

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, self._column.file_name(number))
