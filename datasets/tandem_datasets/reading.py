"""What a store holds, straight from its files: much faster than through zarr-python, the same values.

Nothing here trusts a file: sizes, checksums and codes are checked before they are used.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tandem_datasets.codecs import Codec, decode_text
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.layout import EPISODE_ENDS, Column, parse_root
from tandem_datasets.places import LocalPlace, Place, PlacedFile
from tandem_datasets.shards import TRAILER_BYTES, check_rows, parse_index

ROOT_FILE = "zarr.json"
Root = str | Place  # a folder, or any place

_JSON_LIMIT = 16 << 20  # bytes; a hostile zarr.json must not fill the memory
_WAVE = 256  # files that are asked for at once
_TRUSTED = 64 << 20  # bytes of images that are allocated before any of them was looked at


def metadata_path(root: str, column: Column) -> str:
    """Where the column's ``zarr.json`` lies."""
    return os.path.join(root, column.key, ROOT_FILE)


def read_root(root: Root, where: str) -> tuple[Embodiment, Codec]:
    """What the store at ``root`` was made for; raises TandemError if there is none that this code reads."""
    place = _placed(root)
    place.require_store(ROOT_FILE, where)
    return parse_root(read_json(place, ROOT_FILE, where), where)


def read_declared(root: Root, column: Column, where: str) -> int:
    """The number of rows in the column's ``zarr.json``; raises TandemError if it is another kind of array."""
    found = read_json(_placed(root), f"{column.key}/{ROOT_FILE}", f"{where}: {column.key}")
    return column.check_metadata(found, where)


def read_ends(root: Root, where: str) -> np.ndarray:
    """Cumulative frame counts of the committed episodes, int64 (N,)."""
    return read_growing(root, EPISODE_ENDS, read_declared(root, EPISODE_ENDS, where), where)


def read_growing(root: Root, column: Column, rows: int, where: str) -> np.ndarray:
    """Where each of ``rows`` things ends that lie one after the other, int64; raises TandemError if they cannot."""
    ends = read_array(root, column, 0, rows, where)
    if len(ends) and (ends[0] < 1 or (ends[1:] <= ends[:-1]).any() or ends[-1] >= 2**48):
        raise TandemError(f"{where}: {column.key} is damaged (allowed: growing counts)")
    return ends


def read_json(place: Place, name: str, where: str) -> Any:
    """A small JSON file's content; raises TandemError if there is none, or it is damaged or too large."""
    short = name.rpartition("/")[2]
    with place.file(name, where) as file:
        if file.size > _JSON_LIMIT:
            raise TandemError(f"{where}: {short} is larger than {_JSON_LIMIT} bytes")
        data = bytes(file.spans([(0, file.size)])[0])
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{where}: {short} is damaged: {str(error)[:100]}") from error


def read_array(root: Root, column: Column, start: int, stop: int, where: str) -> np.ndarray:
    """Rows ``start..stop-1`` of a numeric column, shape (stop - start, *row)."""
    place = _placed(root)
    _check_files(place, column, start, stop, where)
    if column.sharded and (stop - start) * column.row_bytes > _TRUSTED:  # first see whether a row is what it should be
        read_array(place, column, start, start + min(stop - start - 1, 1), where)
    out = _allocate(column, stop - start, where)

    def fill(piece: tuple[int, int, int]) -> None:
        number, first, last = piece
        at = number * column.rows_per_file + first - start
        part = out[at : at + last - first]
        if column.sharded:
            _decode_images(place, column, number, first, part, where)
        else:
            _read_chunk(place, column, number, first, part, where)

    _each(place, fill, _pieces(column, start, stop))
    return out


def read_stored(root: Root, column: Column, start: int, stop: int, where: str) -> list[bytes]:
    """Rows ``start..stop-1`` of a numeric column as they lie on the disk: each encoded image, or all numbers."""
    place = _placed(root)
    if not column.sharded:
        return [read_array(place, column, start, stop, where).tobytes()]
    _check_files(place, column, start, stop, where)
    rows: list[bytes] = []
    for number, first, last in _pieces(column, start, stop):
        rows += map(bytes, read_shard_rows(place, column, number, range(first, last), where))
    return rows


def read_texts(root: Root, column: Column, start: int, stop: int, where: str) -> list[str]:
    """Rows ``start..stop-1`` of a text column."""
    place = _placed(root)
    _check_files(place, column, start, stop, where)
    texts: list[str] = []
    for number, first, last in _pieces(column, start, stop):
        rows = read_shard_rows(place, column, number, range(first, last), where)
        texts += [decode_text(row, f"{where}: {column.key}") for row in rows]
    return texts


def read_shard_rows(place: Place, column: Column, number: int, rows: Sequence[int], where: str) -> list[memoryview]:
    """Encoded rows (by their place in shard ``number``); raises TandemError if it is damaged or lacks one."""
    with place.file(f"{column.key}/{column.file_name(number)}", where) as file:
        index, size = read_index(file, column, where)
        index = index[rows]
        check_rows(index, size, column, where)
        ends = index.sum(axis=1, dtype=np.uint64)
        return file.spans(list(zip(index[:, 0].tolist(), ends.tolist(), strict=True)))


def read_index(file: PlacedFile, column: Column, where: str) -> tuple[np.ndarray, int]:
    """A shard's index as :func:`shards.parse_index` gives it, and the size of the rows before it in bytes."""
    size = file.size - TRAILER_BYTES
    if size < 0:
        raise TandemError(f"{where}: {column.key} is truncated")
    return parse_index(file.spans([(size, size + TRAILER_BYTES)])[0], where, column.key), size


def _placed(root: Root) -> Place:
    return LocalPlace(root) if isinstance(root, str) else root


def _each(place: Place, fill: Callable[[tuple[int, int, int]], None], pieces: Sequence[tuple[int, int, int]]) -> None:
    """``fill`` for every piece, several at a time where the place answers so."""
    if place.lanes == 1 or len(pieces) < 2:
        for piece in pieces:
            fill(piece)
        return
    with ThreadPoolExecutor(min(place.lanes, len(pieces)), "tandem-read") as pool:
        for start in range(0, len(pieces), _WAVE):  # a hostile place may promise millions that are not there
            for _ in pool.map(fill, pieces[start : start + _WAVE]):
                pass


def _read_chunk(place: Place, column: Column, number: int, first: int, out: np.ndarray, where: str) -> None:
    """Fills ``out`` (n, *row), C-contiguous, with the rows of one chunk from its ``first``."""
    with place.file(f"{column.key}/{column.file_name(number)}", where) as file:
        if file.size != column.rows_per_file * column.row_bytes:
            raise TandemError(f"{where}: {column.key} is truncated")
        start = first * column.row_bytes
        data = file.spans([(start, start + out.nbytes)])[0]
    out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)


def _decode_images(place: Place, column: Column, number: int, first: int, out: np.ndarray, where: str) -> None:
    encoded = read_shard_rows(place, column, number, range(first, first + len(out)), where)
    decode_images(column, number, range(first, first + len(out)), encoded, out, where)


def decode_images(
    column: Column, number: int, rows: Sequence[int], encoded: Sequence[memoryview], out: np.ndarray, where: str
) -> None:
    """Decodes ``rows`` of a shard into ``out`` (n, H, W, C); raises TandemError naming the first damaged one."""
    assert column.codec is not None
    decode, k = column.codec.decode, 0
    try:
        for k, data in enumerate(encoded):
            decode(data, out[k])
    except (ValueError, RuntimeError) as error:
        raise damaged_row(column, number, rows[k], error, where) from error


def damaged_row(column: Column, number: int, row: int, error: Exception, where: str) -> TandemError:
    """The error for a row of a shard that cannot be decoded."""
    return TandemError(f"{where}: row {row} of {column.key}/{column.file_name(number)} is damaged: {error}")


def _pieces(column: Column, start: int, stop: int) -> list[tuple[int, int, int]]:
    """(file, first row in it, last + 1) of each file that holds a part of the range."""
    size = column.rows_per_file
    if start >= stop or not column.files(stop):
        return []
    numbers = range(start // size, (stop - 1) // size + 1)
    return [(n, max(start - n * size, 0), min(stop - n * size, size)) for n in numbers]


def _check_files(place: Place, column: Column, start: int, stop: int, where: str) -> None:
    """Before memory is taken for them: as many files must be there as the rows need."""
    needed = column.files(stop) - start // column.rows_per_file if stop > start else 0
    if needed > 0 and not place.has_files(column.key, column.file_name(column.files(stop) - 1), needed, where):
        raise TandemError(f"{where}: {column.key} lacks files of committed rows")


def _allocate(column: Column, rows: int, where: str) -> np.ndarray:
    try:
        return np.empty((rows, *column.row), column.dtype)
    except (MemoryError, ValueError) as error:
        size = rows * column.row_bytes / 1e9
        raise TandemError(f"{where}: {column.key} is too large to load whole ({size:.3g} GB)") from error
