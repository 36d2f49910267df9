"""Plain uncompressed chunks: vectors, numbers and flags, 4096 rows to a file.

A file has its full size from the start (a sparse one), as Zarr wants it. Rows are added in place: bytes of
committed rows are never written again, and what lies past them has no meaning.
"""

import os

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.files import Syncer, open_data, write_all_at
from tandem_datasets.layout import Column
from tandem_datasets.shards import drop_files


class ChunkWriter:
    """Appends rows to one column. ``rows`` below is always the number of committed ones."""

    def __init__(self, root: str, column: Column, where: str, syncer: Syncer) -> None:
        self._folder = os.path.join(root, column.key)
        self._column = column
        self._where = where
        self._syncer = syncer
        self._file_bytes = column.rows_per_file * column.row_bytes
        self._number = -1  # of the chunk that is held open
        self._descriptor = -1

    def recover(self, rows: int) -> None:
        """Drops the files past ``rows``; raises TandemError if the last one is damaged."""
        self.close()
        drop_files(self._folder, self._column, rows)
        if rows % self._column.rows_per_file and self._file_bytes:
            path = os.path.join(self._folder, self._column.file_name(rows // self._column.rows_per_file))
            with open_data(path, self._where) as file:
                if os.fstat(file.fileno()).st_size != self._file_bytes:
                    raise TandemError(f"{self._where}: {self._column.key} is truncated")

    def append(self, rows: int, values: np.ndarray) -> None:
        """Adds ``values`` (n, *row) after the first ``rows``; a crash in between leaves those untouched."""
        assert values.shape[1:] == self._column.row
        assert values.dtype == self._column.dtype
        data = memoryview(values.tobytes())
        start = rows * self._column.row_bytes
        while data:
            number, offset = divmod(start, self._file_bytes)
            self._open(number)
            piece = data[: self._file_bytes - offset]
            write_all_at(self._descriptor, piece, offset)
            data, start = data[len(piece) :], start + len(piece)
            self._syncer.note(self._descriptor)

    def close(self) -> None:
        """Closes the chunk that is held open."""
        if self._descriptor >= 0:
            self._syncer.forget(self._descriptor)
            os.close(self._descriptor)
        self._number = self._descriptor = -1

    def _open(self, number: int) -> None:
        """Holds chunk ``number`` open, made at its full size if it is new."""
        if number == self._number:
            return
        self.close()
        path = os.path.join(self._folder, self._column.file_name(number))
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._number = number
        if os.fstat(self._descriptor).st_size != self._file_bytes:
            os.ftruncate(self._descriptor, self._file_bytes)
            self._syncer.note_folder(self._folder)
