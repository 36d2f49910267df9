"""The facts of episodes, :class:`EpisodeInfo`, as rows of the per-episode columns and back."""

import json
import operator
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.layout import EPISODE_COLUMNS, TEXT_BYTES

NAMED = ("outcome", "failure_reason", "env")
"""Fields that are rows of ``meta/names``; ``instruction`` is a row of ``meta/instructions``, in the column ``task``."""

_NUMBERS = ("seed", "begin_ns", "end_ns")
_FLAGS = ("success", "deleted")


def check_info(info: EpisodeInfo, where: str) -> EpisodeInfo:
    """``info`` with plain types; raises TandemError naming the first field that cannot be stored."""
    values: dict[str, Any] = {key: integer(getattr(info, key), f"{where}: {key}") for key in _NUMBERS}
    values |= {key: bool(getattr(info, key)) for key in _FLAGS}
    for key in ("instruction", *NAMED):
        values[key] = text(getattr(info, key), f"{where}: {key}")
    try:
        values["uuid"] = str(uuid.UUID(info.uuid))
    except (ValueError, AttributeError, TypeError) as error:
        raise TandemError(f"{where}: uuid is {info.uuid!r:.80} (allowed: a UUID)") from error
    if not isinstance(info.provenance, Mapping):
        raise TandemError(f"{where}: provenance is {info.provenance!r:.80} (allowed: a mapping)")
    try:
        values["provenance"] = json.loads(json.dumps(dict(info.provenance), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TandemError(f"{where}: provenance cannot be stored as JSON: {error}") from error
    return replace(info, **values)


def fact_rows(
    infos: Sequence[EpisodeInfo],
    checksums: Sequence[int],
    instructions: Mapping[str, int],
    names: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Rows of every column of ``layout.EPISODE_COLUMNS``, by its key; the mappings number the texts."""
    rows: dict[str, list[Any]] = {key: [getattr(info, key) for info in infos] for key in (*_NUMBERS, *_FLAGS)}
    rows |= {key: [names[getattr(info, key)] for info in infos] for key in NAMED}
    rows["task"] = [instructions[info.instruction] for info in infos]
    rows["uuid"] = [list(uuid.UUID(info.uuid).bytes) for info in infos]
    rows["checksum"] = list(checksums)
    return {
        column.key: np.array(rows.pop(column.key.removeprefix("meta/")), column.dtype) for column in EPISODE_COLUMNS
    }


def provenance_text(info: EpisodeInfo) -> bytes:
    """What ``meta/provenance`` holds of an episode."""
    return json.dumps(dict(info.provenance), sort_keys=True).encode()


def texts_by_code(codes: np.ndarray, table: Sequence[str], where: str) -> list[str]:
    """The texts that ``codes`` (N,) stand for; raises TandemError if one is not in the table."""
    if len(codes) and (codes.min() < 0 or codes.max() >= len(table)):
        raise TandemError(f"{where} is damaged (allowed: codes 0..{len(table) - 1})")
    return [table[code] for code in codes.tolist()]


def infos_from_rows(
    rows: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]], provenance: Sequence[bytes], where: str
) -> list[EpisodeInfo]:
    """The inverse of :func:`fact_rows` and :func:`provenance_text`, for untrusted rows; ``texts`` by field."""
    plain = {key: rows[f"meta/{key}"].tolist() for key in (*_NUMBERS, *_FLAGS)} | dict(texts)
    return [
        EpisodeInfo(
            uuid=str(uuid.UUID(bytes=rows["meta/uuid"][k].tobytes())),
            provenance=_provenance(text, where),
            **{key: values[k] for key, values in plain.items()},
        )
        for k, text in enumerate(provenance)
    ]


def _provenance(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{where}: provenance is damaged: {str(error)[:100]}") from error
    if not isinstance(found, dict):
        raise TandemError(f"{where}: provenance is damaged (allowed: a mapping)")
    return found


def integer(value: Any, where: str) -> int:
    """``value`` as a Python int; raises TandemError unless it is a whole number of 64 bits."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TandemError(f"{where} is {value!r:.80} (allowed: a whole number)") from error
    if not -(2**63) <= number < 2**63:
        raise TandemError(f"{where} is {number} (allowed: 64 bits)")
    return number


def text(value: Any, where: str) -> str:
    """``value`` if it is text that UTF-8 can hold, and not too long; raises TandemError otherwise."""
    try:
        size = len(value.encode()) if isinstance(value, str) else -1
    except UnicodeEncodeError:  # a lone surrogate
        size = -1
    if size < 0:
        raise TandemError(f"{where} is {value!r:.80} (allowed: text)")
    if size > TEXT_BYTES:
        raise TandemError(f"{where} has {size} bytes (allowed: at most {TEXT_BYTES})")
    return value


def texts_of(infos: Iterable[EpisodeInfo]) -> list[str]:
    """All texts of ``infos`` that belong into ``meta/names``."""
    return [getattr(info, key) for info in infos for key in NAMED]
