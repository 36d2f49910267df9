"""Parquet files of others, read by episode within limits."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.lerobot.arrow import arrow_to_numbers
from tandem_datasets.formats.packages import package

_MAX_ROWS = 1 << 26  # of one file: an index column of this length takes 0.5 GB
_MAX_BYTES = 8 << 30  # of one row group, uncompressed
_INDEX = "episode_index"


class ParquetFile:
    """One file; raises TandemError naming it where it is missing, damaged or too large."""

    def __init__(self, path: Path, name: str, where: str) -> None:
        self._pa = package("pyarrow", where)
        self.where = f"{where}: {name}"
        if not path.is_file():
            raise TandemError(f"{self.where}: there is no such file")
        try:
            self._file = package("pyarrow.parquet", where).ParquetFile(os.fspath(path))
        except (self._pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        found = self._file.metadata
        if found.num_rows > _MAX_ROWS:
            raise TandemError(f"{self.where}: {found.num_rows} rows (allowed: {_MAX_ROWS})")
        sizes = [found.row_group(k) for k in range(found.num_row_groups)]
        if any(each.total_byte_size > _MAX_BYTES for each in sizes):
            raise TandemError(f"{self.where}: a row group above {_MAX_BYTES} bytes")
        self._bounds = np.cumsum([0, *(each.num_rows for each in sizes)])
        self._episodes: np.ndarray | None = None
        self._held: tuple[int, tuple[str, ...], Any] | None = None  # the row group read last

    @property
    def n_rows(self) -> int:
        return int(self._bounds[-1])

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return self._file.schema_arrow.names

    def row_bytes(self, key: str) -> int:
        """What a row of fixed size takes; 0 if it has none."""
        kind = self._file.schema_arrow.field(key).type
        try:
            return kind.bit_width // 8 or 1
        except ValueError:
            return 0

    def episode_rows(self, episode: int) -> slice:
        """The rows of one episode, which must lie together."""
        if self._episodes is None:
            table = self.read(slice(0, self.n_rows), [_INDEX])
            self._episodes = self.numbers(table, _INDEX, ()).astype(np.int64)
        rows = np.flatnonzero(self._episodes == episode)
        if not len(rows) or rows[-1] - rows[0] + 1 != len(rows):
            raise TandemError(f"{self.where}: {len(rows)} rows of episode {episode}, not together (allowed: a run)")
        return slice(int(rows[0]), int(rows[-1]) + 1)

    def read(self, rows: slice, keys: Sequence[str]) -> Any:
        """A table with these rows and columns."""
        missing = [key for key in keys if key not in self.names]
        if missing:
            raise TandemError(f"{self.where}: no column {missing[0]} (it has: {', '.join(self.names)!s:.200})")
        width = sum(self.row_bytes(key) for key in keys)
        if width * (rows.stop - rows.start) > _MAX_BYTES:
            raise TandemError(
                f"{self.where}: {rows.stop - rows.start} rows of {width} bytes (allowed: {_MAX_BYTES} in all)"
            )
        first = int(np.searchsorted(self._bounds, rows.start, side="right")) - 1
        last = int(np.searchsorted(self._bounds, rows.stop, side="left"))
        if first + 1 == last:
            table = self._group(first, tuple(keys))
        else:
            table = self._call(lambda: self._file.read_row_groups(list(range(first, last)), columns=list(keys)))
        return table.slice(rows.start - int(self._bounds[first]), rows.stop - rows.start)

    def numbers(self, table: Any, key: str, row: tuple[int, ...]) -> np.ndarray:
        """A column of ``table`` as an array (T, *row)."""
        column = table.column(key).combine_chunks()
        if isinstance(column, self._pa.ChunkedArray):  # no rows, or more than one array holds
            column = self._pa.concat_arrays(column.chunks)
        kind, types = column.type, self._pa.types
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            column = column.flatten()
        found = arrow_to_numbers(column, self.where)
        if found is None:
            raise TandemError(f"{self.where}: column {key} holds {kind!s:.60} or gaps (allowed: numbers)")
        size = int(np.prod(row)) if row else 1
        if len(found) != len(table) * size:
            raise TandemError(f"{self.where}: column {key} has not {size} numbers in each row")
        return found.reshape(len(table), *row)

    def texts(self, table: Any, key: str) -> list[str]:
        """A column of texts."""
        found = table.column(key).to_pylist()
        if not all(isinstance(text, str) for text in found):
            raise TandemError(f"{self.where}: column {key} (allowed: texts)")
        return found

    def blobs(self, table: Any, key: str) -> Any:
        """A column of encoded images as a sequence of arrow scalars."""
        column = table.column(key)
        if self._pa.types.is_struct(column.type):
            names = [field.name for field in column.type]
            if "bytes" not in names:
                raise TandemError(f"{self.where}: column {key} has no bytes (allowed: pictures inside the file)")
            column = self._pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])
        if not (self._pa.types.is_binary(column.type) or self._pa.types.is_large_binary(column.type)):
            raise TandemError(f"{self.where}: column {key} holds {column.type!s:.60} (allowed: encoded pictures)")
        return column

    def _group(self, index: int, keys: tuple[str, ...]) -> Any:
        """One row group; the last one is held, since short episodes often share theirs."""
        if self._held is None or self._held[:2] != (index, keys):
            self._held = (index, keys, self._call(lambda: self._file.read_row_group(index, columns=list(keys))))
        return self._held[2]

    def _call(self, read: Any) -> Any:
        try:
            return read()
        except (self._pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> TandemError:
        return TandemError(f"{self.where}: damaged: {str(error).splitlines()[0]:.120}")
