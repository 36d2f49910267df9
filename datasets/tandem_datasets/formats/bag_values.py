"""Vectors out of messages of any type, by the path of a field."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_datasets.embodiment import ActionScalar, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.bag_index import Stream, decoded
from tandem_datasets.formats.bag_map import VectorEntry
from tandem_datasets.formats.bags import Bag
from tandem_datasets.formats.foreign import as_float32, data_limits, plain_name, qualified_name

_PART = re.compile(r"([A-Za-z]\w*)((?:\[\d{1,6}\])*)")
_MAX_SIZE = 4096  # numbers of a vector
_NAME_FIELDS = ("name", "joint_names", "names")  # that name the numbers beside them
_JOINTS = {
    "position": StateSource.JOINT_POSITION,
    "velocity": StateSource.JOINT_VELOCITY,
    "effort": StateSource.JOINT_EFFORT,
}


@dataclass(frozen=True)
class Vectors:
    """One part of the state or action over a whole recording."""

    entry: VectorEntry
    names: tuple[str, ...]  # as the message has them
    values: np.ndarray  # float32 (N, k), a row per message of the topic


def read_vectors(bag: Bag, stream: Stream, entry: VectorEntry, names: tuple[str, ...] = ()) -> Vectors:
    """All values of ``entry``, in the order of the stream; ``names`` are those of an earlier recording, if any."""
    where = f"{bag.where}: topic {entry.topic}"
    rows: list[np.ndarray] = []
    for message in decoded(bag, entry.topic, stream):
        found, values = _named(message, entry, where)
        names = names or found
        if found != names:
            missing = [name for name in names if name not in found]
            if missing:
                raise TandemError(f"{where}: {entry.field} of message {len(rows)} lacks {missing[:5]}")
            values = values[[found.index(name) for name in names]]
        rows.append(values)
    if not rows:
        return Vectors(entry, names, np.zeros((0, len(names)), np.float32))
    values = as_float32(np.stack(rows), f"{where}: {entry.field}")
    return Vectors(entry, names, values)


def _named(message: Mapping[str, Any], entry: VectorEntry, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """(names, values) in a message."""
    value, around, last = field_of(message, entry.field, where)
    pairs = list(_numbers(value, last if not isinstance(value, Mapping) else ""))
    if not 1 <= len(pairs) <= _MAX_SIZE:
        raise TandemError(f"{where}: {entry.field} has {len(pairs)} numbers (allowed: 1..{_MAX_SIZE})")
    names = tuple(name for name, _ in pairs)
    beside = [message[key] for key in _NAME_FIELDS if isinstance(message.get(key), list)]
    beside += [around[key] for key in _NAME_FIELDS if isinstance(around.get(key), list)]
    if isinstance(value, np.ndarray):
        for told in beside:
            if len(told) == len(pairs) == len(set(told)) and all(isinstance(name, str) for name in told):
                names = tuple(told)
    return names, np.array([number for _, number in pairs], np.float64)


def field_of(message: Mapping[str, Any], path: str, where: str) -> tuple[Any, Mapping[str, Any], str]:
    """(what is at ``path``, the message that it is a field of, the field's name)."""
    value: Any = message
    around: Mapping[str, Any] = message
    last = ""
    for part in path.split("."):
        found = _PART.fullmatch(part)
        if found is None:
            raise TandemError(f"{where}: field '{path:.60}' (allowed: names joined by dots, as points[0].positions)")
        if not isinstance(value, Mapping) or found[1] not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else "none"
            raise TandemError(f"{where}: no field '{part}' of '{path:.60}' (it has: {known})")
        around, last = value, found[1]
        value = value[found[1]]
        for index in re.findall(r"\d+", found[2]):
            if not isinstance(value, list | np.ndarray) or int(index) >= len(value):
                raise TandemError(f"{where}: '{path:.60}' has no element {index}")
            value = value[int(index)]
            last = f"{last}_{index}"
    return value, around, last


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """All numbers of a value with their names; texts and stamps in between are left out."""
    if isinstance(value, np.ndarray):
        for k, number in enumerate(value[: _MAX_SIZE + 1].tolist()):
            yield f"{name}_{k}", number
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("header", "stamp"):
                yield from _numbers(inner, f"{name}_{key}" if name else key)
    elif isinstance(value, bool | int | float | np.number):
        yield name, float(value)


def state_of(parts: Sequence[Vectors]) -> tuple[StateScalar, ...]:
    """Measurements from the parts; the limits are the data's own."""
    scalars: list[StateScalar] = []
    for part in parts:
        source = part.entry.source or _JOINTS.get(part.entry.field, StateSource.POSE)
        for name, (low, high) in zip(_clean(part, source.is_joint), _limits(part), strict=True):
            scalars.append(StateScalar(name, part.entry.unit, low, high, source))
    _refuse_twice([f"{scalar.name} ({scalar.source})" for scalar in scalars], "state")
    return tuple(scalars)


def action_of(parts: Sequence[Vectors]) -> tuple[ActionScalar, ...]:
    """Commands from the parts; the limits are the data's own."""
    scalars: list[ActionScalar] = []
    for part in parts:
        for name, (low, high) in zip(_clean(part, False), _limits(part), strict=True):
            scalars.append(ActionScalar(name, part.entry.unit, low, high, part.entry.kind))
    _refuse_twice([scalar.name for scalar in scalars], "action")
    return tuple(scalars)


def _refuse_twice(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TandemError(f"map: {what}: names twice: {twice[:5]} (give one topic a prefix)")


def _limits(part: Vectors) -> list[tuple[float, float]]:
    return data_limits(part.values.min(axis=0), part.values.max(axis=0))


def _clean(part: Vectors, is_joint: bool) -> list[str]:
    """The part's names as embodiments have them."""
    names, prefix = list(part.entry.names) or list(part.names), part.entry.prefix
    if len(names) != len(part.names):
        raise TandemError(f"map: topic {part.entry.topic}: {len(names)} names for {len(part.names)} numbers")
    if is_joint:
        return [plain_name(f"{prefix}_{name}" if prefix else name) or "x" for name in names]
    return [qualified_name(f"{prefix}/{name}" if prefix else name) for name in names]
