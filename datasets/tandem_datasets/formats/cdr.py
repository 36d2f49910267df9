"""ROS 2 message definitions (``ros2msg`` texts) and CDR, both ways, without ROS and without generated code.

Definitions and data come from recordings of others: nothing is executed, nesting and lengths are checked against the
bytes that are there before memory is taken. Messages are plain dicts, sequences of numbers are numpy arrays (views of
the data when read). CDR as ROS 2 writes it: XCDR version 1, plain, of either byte order.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError

_NUMBERS = {
    "bool": "u1", "byte": "u1", "char": "u1", "uint8": "u1", "int8": "i1", "uint16": "u2", "int16": "i2",
    "uint32": "u4", "int32": "i4", "uint64": "u8", "int64": "i8", "float32": "f4", "float64": "f8",
}  # fmt: skip
_STRUCTS = {
    "u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i", "u8": "Q", "i8": "q", "f4": "f", "f8": "d",
}  # fmt: skip
_LINE = re.compile(
    r"(?P<type>[A-Za-z][\w/]*)(?P<bound><=\d+)?(?P<many>\[(?P<count>(<=)?\d{0,9})\])?\s+(?P<name>[A-Za-z]\w*)(?P<rest>\s*=.*|\s.*|)"
)
_MAX_TEXT = 1 << 20  # characters of a definition
_MAX_DEPTH = 32
_HEADER_BYTES = 4  # before the data: encapsulation kind and options; alignment counts from after them


@dataclass(frozen=True)
class Field:
    """One field of a message type."""

    name: str
    kind: str  # a number's or "string", else the full name of another type
    count: int | None = None  # None: one value; 0: a sequence; n: an array of n

    @property
    def code(self) -> str:
        """numpy's code of the number, or "" for texts and messages."""
        return _NUMBERS.get(self.kind, "")


@dataclass(frozen=True)
class Definition:
    """A message type with all types that it is made of."""

    name: str  # "sensor_msgs/Image"
    types: Mapping[str, tuple[Field, ...]]

    def decode(self, data: Any, where: str) -> dict[str, Any]:
        """The message in ``data`` (a buffer); raises TandemError if it does not hold one."""
        return _Reader(memoryview(data), self.types, where).message(self.name, 0)

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """``values`` as little-endian CDR; fields that it lacks are zero, empty or false."""
        writer = _Writer(self.types)
        writer.message(self.name, values)
        return bytes(writer.data)


def plain_name(name: str) -> str:
    """``sensor_msgs/msg/Image`` and ``sensor_msgs/Image`` as the latter."""
    return name.replace("/msg/", "/")


def parse_definition(name: str, text: str, where: str) -> Definition:
    """Reads a ``ros2msg`` text with its dependencies; raises TandemError if it is none or lacks a type."""
    if len(text) > _MAX_TEXT:
        raise TandemError(f"{where}: its definition has {len(text)} characters (allowed: {_MAX_TEXT})")
    top = plain_name(name)
    types: dict[str, tuple[Field, ...]] = {}
    for k, section in enumerate(re.split(r"^={3,}\s*$", text, flags=re.MULTILINE)):
        owner, body = top, section
        if k:
            head = re.match(r"\s*MSG:\s*(\S+)\s*\n?", section)
            if head is None:
                raise TandemError(f"{where}: its definition is no ros2msg text (a section without 'MSG: type')")
            owner, body = plain_name(head[1]), section[head.end() :]
        types[owner] = _fields(owner, body, where)
    _check_types(top, types, where, (), set())
    return Definition(top, types)


def _fields(owner: str, body: str, where: str) -> tuple[Field, ...]:
    fields = []
    for raw in body.splitlines():
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise TandemError(f"{where}: its definition has the line {line!r:.60} (allowed: 'type name')")
        if found["rest"].lstrip().startswith("="):
            continue  # a constant
        kind, many = plain_name(found["type"]), found["count"]
        if kind not in _NUMBERS and kind != "string":
            kind = _full_name(kind, owner, where)
        bound = None if many is None else 0 if not many or many.startswith("<=") else int(many)
        if many == "0":
            raise TandemError(f"{where}: its definition has an array of length 0 (allowed: at least 1)")
        fields.append(Field(found["name"], kind, bound))
    return tuple(fields)


def _full_name(kind: str, owner: str, where: str) -> str:
    if kind == "wstring":
        raise TandemError(f"{where}: its definition has a wstring (allowed: string)")
    if kind == "Header":
        return "std_msgs/Header"
    return kind if "/" in kind else f"{owner.rpartition('/')[0]}/{kind}"


def _check_types(
    name: str, types: Mapping[str, tuple[Field, ...]], where: str, inside: tuple[str, ...], fine: set[str]
) -> None:
    if name in inside or len(inside) > _MAX_DEPTH:
        raise TandemError(f"{where}: its definition of {name:.80} contains itself, or is nested too deeply")
    if name not in types:
        raise TandemError(f"{where}: its definition lacks {name:.80}")
    for kind in {field.kind for field in types[name] if not field.code and field.kind != "string"} - fine:
        _check_types(kind, types, where, (*inside, name), fine)
    fine.add(name)


class _Reader:
    """Walks over one message's bytes."""

    def __init__(self, data: memoryview, types: Mapping[str, tuple[Field, ...]], where: str) -> None:
        kind = bytes(data[:2])
        if len(data) < _HEADER_BYTES or kind not in (b"\0\1", b"\0\0"):
            raise TandemError(f"{where}: a message begins with {kind.hex() or 'nothing'} (allowed: plain CDR)")
        self._data = data[_HEADER_BYTES:]
        self._order = "<" if kind == b"\0\1" else ">"
        self._types = types
        self._where = where
        self._at = 0
        self._structs = {code: struct.Struct(self._order + char) for code, char in _STRUCTS.items()}

    def message(self, name: str, depth: int) -> dict[str, Any]:
        fields = self._types[name]
        if not fields:  # an empty message is one byte on the wire
            self._take(1)
        return {field.name: self._field(field, depth) for field in fields}

    def _field(self, field: Field, depth: int) -> Any:
        if field.count is None:
            return self._value(field, depth)
        count = field.count or self._number("u4")
        if field.code:
            return self._numbers(field.code, count)
        if count > len(self._data) - self._at:  # each takes at least one byte
            raise self._short(f"{count} x {field.kind}")
        return [self._value(field, depth) for _ in range(count)]

    def _value(self, field: Field, depth: int) -> Any:
        if field.code:
            value = self._number(field.code)
            return bool(value) if field.kind == "bool" else value
        if field.kind == "string":
            return self._text()
        return self.message(field.kind, depth + 1)

    def _number(self, code: str) -> Any:
        form = self._structs[code]
        self._align(form.size)
        return form.unpack(self._take(form.size))[0]

    def _numbers(self, code: str, count: int) -> np.ndarray:
        kind = np.dtype(self._order + code)
        if count:
            self._align(kind.itemsize)
        return np.frombuffer(self._take(count * kind.itemsize), kind)

    def _text(self) -> str:
        data = bytes(self._take(self._number("u4")))
        try:
            return data.removesuffix(b"\0").decode()
        except UnicodeDecodeError:
            raise TandemError(f"{self._where}: a message has a text that is no UTF-8") from None

    def _align(self, size: int) -> None:
        self._at += -self._at % size

    def _take(self, size: int) -> memoryview:
        if size > len(self._data) - self._at:
            raise self._short(f"{size} bytes")
        self._at += size
        return self._data[self._at - size : self._at]

    def _short(self, wanted: str) -> TandemError:
        left = max(len(self._data) - self._at, 0)
        return TandemError(f"{self._where}: a message is cut short: {wanted} at byte {self._at}, {left} left")


class _Writer:
    """Collects one message's bytes."""

    def __init__(self, types: Mapping[str, tuple[Field, ...]]) -> None:
        self.data = bytearray(b"\0\1\0\0")
        self._types = types

    def message(self, name: str, values: Mapping[str, Any]) -> None:
        fields = self._types[name]
        unknown = set(values) - {field.name for field in fields}
        assert not unknown, f"{name} has no {sorted(unknown)}"
        if not fields:
            self.data += b"\0"
        for field in fields:
            self._field(field, values.get(field.name))

    def _field(self, field: Field, value: Any) -> None:
        if field.count is None:
            return self._value(field, value)
        items = () if value is None else value
        if field.count:
            items = items if len(items) else [0] * field.count
            assert len(items) == field.count, f"{field.name}: {len(items)} of {field.count}"
        else:
            self._number("u4", len(items))
        if field.code:
            numbers = np.ascontiguousarray(items, np.dtype("<" + field.code))
            if len(numbers):
                self._align(numbers.itemsize)
                self.data += numbers.data.cast("B")
            return None
        for item in items:
            self._value(field, item)
        return None

    def _value(self, field: Field, value: Any) -> None:
        if field.code:
            self._number(field.code, 0 if value is None else value)
        elif field.kind == "string":
            encoded = (value or "").encode() + b"\0"
            self._number("u4", len(encoded))
            self.data += encoded
        else:
            self.message(field.kind, value or {})

    def _number(self, code: str, value: Any) -> None:
        form = struct.Struct("<" + _STRUCTS[code])
        self._align(form.size)
        self.data += form.pack(value)

    def _align(self, size: int) -> None:
        self.data += bytes(-(len(self.data) - _HEADER_BYTES) % size)
