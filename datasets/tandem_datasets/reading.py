"""What a store holds, straight from its files: much faster than through zarr-python, the same values.

Nothing here trusts a file: sizes, checksums and codes are checked before they are used.
"""

import os

import numpy as np

from tandem_datasets.chunks import read_rows_into
from tandem_datasets.codecs import Codec, decode_text
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.files import read_json
from tandem_datasets.layout import EPISODE_ENDS, Column, parse_root
from tandem_datasets.shards import read_rows

ROOT_FILE = "zarr.json"


def metadata_path(root: str, column: Column) -> str:
    """Where the column's ``zarr.json`` lies."""
    return os.path.join(root, column.key, ROOT_FILE)


def read_root(root: str, where: str) -> tuple[Embodiment, Codec]:
    """What the store at ``root`` was made for; raises TandemError if there is none that this code reads."""
    if not os.path.isdir(root):
        raise TandemError(f"{where}: {'a file, not a folder' if os.path.exists(root) else 'there is none'}")
    if not os.path.lexists(os.path.join(root, ROOT_FILE)) and os.access(root, os.X_OK):
        raise TandemError(f"{where}: no store (the folder has no {ROOT_FILE})")
    return parse_root(read_json(os.path.join(root, ROOT_FILE), where), where)


def read_declared(root: str, column: Column, where: str) -> int:
    """The number of rows in the column's ``zarr.json``; raises TandemError if it is another kind of array."""
    found = read_json(metadata_path(root, column), f"{where}: {column.key}")
    return column.check_metadata(found, where)


def read_ends(root: str, where: str) -> np.ndarray:
    """Cumulative frame counts of the committed episodes, int64 (N,)."""
    ends = read_array(root, EPISODE_ENDS, 0, read_declared(root, EPISODE_ENDS, where), where)
    if len(ends) and (ends[0] < 1 or (ends[1:] <= ends[:-1]).any() or ends[-1] >= 2**48):
        raise TandemError(f"{where}: {EPISODE_ENDS.key} is damaged (allowed: growing counts of frames)")
    return ends


def read_array(root: str, column: Column, start: int, stop: int, where: str) -> np.ndarray:
    """Rows ``start..stop-1`` of a numeric column, shape (stop - start, *row)."""
    _check_files(root, column, start, stop, where)
    out = _allocate(column, stop - start, where)
    for number, first, last in _pieces(column, start, stop):
        path = os.path.join(root, column.key, column.file_name(number))
        at = number * column.rows_per_file + first - start
        part = out[at : at + last - first]
        if column.sharded:
            _decode_images(path, column, first, part, where)
        else:
            read_rows_into(path, first, column, part, where)
    return out


def read_texts(root: str, column: Column, start: int, stop: int, where: str) -> list[str]:
    """Rows ``start..stop-1`` of a text column."""
    _check_files(root, column, start, stop, where)
    texts: list[str] = []
    for number, first, last in _pieces(column, start, stop):
        path = os.path.join(root, column.key, column.file_name(number))
        rows = read_rows(path, first, last, where, column.key)
        texts += [decode_text(row, f"{where}: {column.key}") for row in rows]
    return texts


def _decode_images(path: str, column: Column, first: int, out: np.ndarray, where: str) -> None:
    assert column.codec is not None
    for k, data in enumerate(read_rows(path, first, first + len(out), where, column.key)):
        try:
            column.codec.decode(data, out[k])
        except (ValueError, RuntimeError) as error:
            name = os.path.basename(path)
            raise TandemError(f"{where}: row {first + k} of {column.key}/{name} is damaged: {error}") from error


def _pieces(column: Column, start: int, stop: int) -> list[tuple[int, int, int]]:
    """(file, first row in it, last + 1) of each file that holds a part of the range."""
    size = column.rows_per_file
    if start >= stop or not column.files(stop):
        return []
    numbers = range(start // size, (stop - 1) // size + 1)
    return [(n, max(start - n * size, 0), min(stop - n * size, size)) for n in numbers]


def _check_files(root: str, column: Column, start: int, stop: int, where: str) -> None:
    """Before memory is taken for them: as many files must be there as the rows need."""
    needed = column.files(stop) - start // column.rows_per_file if stop > start else 0
    if needed <= 0:
        return
    folder = os.path.join(root, column.key)
    try:
        last_is_there = os.path.exists(os.path.join(folder, column.file_name(column.files(stop) - 1)))
        missing = not last_is_there or (needed > 1 and len(os.listdir(folder)) < needed)
    except OSError as error:
        raise TandemError(f"{where}: cannot read {column.key}: {error.strerror}") from error
    if missing:
        raise TandemError(f"{where}: {column.key} lacks files of committed rows")


def _allocate(column: Column, rows: int, where: str) -> np.ndarray:
    try:
        return np.empty((rows, *column.row), column.dtype)
    except (MemoryError, ValueError) as error:
        size = rows * column.row_bytes / 1e9
        raise TandemError(f"{where}: {column.key} is too large to load whole ({size:.3g} GB)") from error
