"""Messages over a pair of pipes: a JSON object and the raw bytes of arrays. Nothing that is received can run."""

import json
import math
import os
import select
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError

_HEAD = struct.Struct("<4sIQ")  # mark, bytes of the object, bytes of the arrays
_MARK = b"tnd1"
_LARGEST_OBJECT, _LARGEST_ARRAYS = 64 << 20, 8 << 30
_KINDS = "biuf"  # bool, whole numbers, floats


class EndedError(Exception):
    """The other side has closed its end, or is gone."""


class LateError(Exception):
    """Nothing came in time."""


def pack(message: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> list[bytes]:
    """One message as bytes; TandemError if it is larger than what :func:`receive` takes."""
    rows = [np.asarray(array, order="C") for array in arrays]
    shapes = [[row.dtype.str, list(row.shape)] for row in rows]
    text = json.dumps({**message, "arrays": shapes}).encode()
    size = sum(row.nbytes for row in rows)
    if len(text) > _LARGEST_OBJECT or size > _LARGEST_ARRAYS:
        raise TandemError(
            f"pipe: a message of {len(text)} bytes of text and {size} of arrays "
            f"(allowed: {_LARGEST_OBJECT} and {_LARGEST_ARRAYS})"
        )
    return [_HEAD.pack(_MARK, len(text), size), text, *(row.tobytes() for row in rows)]


def send(descriptor: int, packed: Sequence[bytes], timeout_s: float | None = None) -> None:
    """Writes what :func:`pack` made. The descriptor does not block any more.

    Raises:
        EndedError: nobody reads any more.
        LateError: it was not taken whole within ``timeout_s``.
    """
    until = _deadline(timeout_s)
    os.set_blocking(descriptor, False)
    for part in packed:
        rest = memoryview(part)
        while rest:
            _wait(descriptor, select.POLLOUT, until)
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise EndedError from error


def receive(descriptor: int, timeout_s: float | None = None) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads one message.

    Raises:
        EndedError: the end of the pipe.
        LateError: it did not come whole within ``timeout_s``.
        TandemError: what came is no message.
    """
    until = _deadline(timeout_s)
    mark, length, rest = _HEAD.unpack(_exactly(descriptor, _HEAD.size, until))
    if mark != _MARK or length > _LARGEST_OBJECT or rest > _LARGEST_ARRAYS:
        raise TandemError("pipe: what came is no message")
    message = json.loads(_exactly(descriptor, length, until))
    data, at = _exactly(descriptor, rest, until), 0
    arrays = []
    for code, shape in message.pop("arrays"):
        dtype = np.dtype(code)
        if dtype.kind not in _KINDS:
            raise TandemError(f"pipe: an array of {code} (allowed: numbers)")
        size = dtype.itemsize * math.prod(shape)
        arrays.append(np.frombuffer(data[at : at + size], dtype).reshape(shape))
        at += size
    return message, arrays


def _exactly(descriptor: int, size: int, until: float) -> bytes:
    parts: list[bytes] = []
    while size:
        _wait(descriptor, select.POLLIN, until)
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EndedError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _deadline(timeout_s: float | None) -> float:
    return math.inf if timeout_s is None else time.monotonic() + timeout_s


def _wait(descriptor: int, event: int, until: float) -> None:
    """Until one can read or write, or the other side is gone; poll, for select takes no descriptor above 1023."""
    poll = select.poll()
    poll.register(descriptor, event)
    while not poll.poll(1000 * min(max(0.0, until - time.monotonic()), 3600.0)):
        if time.monotonic() >= until:
            raise LateError
