"""Numpy arrays as Arrow arrays and back, by their memory.

pyarrow's own conversions import pandas first, which costs each process more than a second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.packages import package

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def numbers_to_arrow(values: np.ndarray, where: str) -> Any:
    """An array (T,) or (T, D): numbers, or lists of D numbers."""
    pa = package("pyarrow", where)
    flat = np.ascontiguousarray(values).ravel()
    held = np.packbits(flat, bitorder="little") if flat.dtype == np.bool_ else flat
    array = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(held)])
    return array if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(array, values.shape[1])


def blobs_to_arrow(blobs: Sequence[bytes], kind: Any, where: str) -> Any:
    """An array of ``pa.large_binary()``, ``pa.binary()`` or ``pa.string()``."""
    pa = package("pyarrow", where)
    wide = kind == pa.large_binary()
    ends = np.cumsum([0, *map(len, blobs)])
    offsets = ends.astype(np.int64 if wide else np.int32)
    if offsets[-1] != ends[-1]:
        raise TandemError(f"{where}: an episode of {ends[-1]} bytes of pictures (allowed: {2**31 - 1}; or video=true)")
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(blobs))]
    return pa.Array.from_buffers(kind, len(blobs), buffers)


def arrow_to_numbers(array: Any, where: str) -> np.ndarray | None:
    """The inverse for an array of plain numbers, read-only; None if it is none, or something is missing in it."""
    types = package("pyarrow", where).types
    kind = array.type
    if array.null_count:
        return None
    if types.is_boolean(kind):
        bits = np.frombuffer(array.buffers()[1] or b"", np.uint8)
        start = array.offset
        return np.unpackbits(bits, count=start + len(array), bitorder="little")[start:].astype(np.bool_)
    if not (types.is_integer(kind) or types.is_floating(kind)):
        return None
    dtype = np.dtype(_FLOATS.get(str(kind), str(kind)))
    return np.frombuffer(array.buffers()[1] or b"", dtype)[array.offset : array.offset + len(array)]
