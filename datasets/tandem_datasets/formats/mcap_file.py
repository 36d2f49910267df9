"""One MCAP file of anybody's, read in place: its topics, and its messages in the order in which they were written.

Layout after the MCAP specification (https://mcap.dev/spec). The file's own index is not needed: top-level records are
walked over, which touches one page per chunk, so that a file whose writer was killed is read up to its last whole
record. Every length is checked against the bytes that are there, and chunks against what they may become.
"""

import mmap
import struct
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.cdr import plain_name
from tandem_datasets.formats.packages import package

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _METADATA = 2, 3, 4, 5, 6, 12
_MAX_CHUNK = 1 << 30  # bytes of a chunk once decompressed; writers use a few MB
_CACHED_CHUNKS = 4
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_RECORD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQI")  # first and last time, size once decompressed, its CRC-32
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time


@dataclass(frozen=True)
class Topic:
    """What is told of a topic."""

    name: str
    type: str  # "sensor_msgs/Image"
    definition: str  # ros2msg text; "" if the file has none


class Logged(NamedTuple):
    """A message as it lies in a file."""

    topic: str
    log_ns: int
    publish_ns: int
    ref: int  # for :meth:`McapFile.read`
    data: memoryview  # CDR


class McapFile:
    """Raises TandemError, from any member: it is no MCAP file, or damaged before its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = f"mcap {path}"
        self.truncated = False  # the writer did not finish it
        self.metadata: dict[str, dict[str, str]] = {}  # the last record of each name
        self._chunks: list[tuple[int, int]] = []  # where the body begins, and its length
        self._loose: list[tuple[int, int]] = []  # messages outside chunks
        self._schemas: dict[int, tuple[str, str, str]] = {}  # name, encoding, text
        self._channels: dict[int, tuple[int, str, str]] = {}  # schema, topic, message encoding
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        try:
            with path.open("rb") as file:
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise TandemError(f"{self.where}: cannot be read: {error}") from error
        if bytes(self._data[: len(MAGIC)]) != MAGIC:
            raise TandemError(f"{self.where}: not an MCAP file")
        self._walk()
        told = all(schema in self._schemas for schema, _, _ in self._channels.values() if schema)
        if self.truncated or not self._channels or not told:  # the end does not repeat what the chunks say
            for number in range(len(self._chunks)):
                for op, start, stop in self._records(number):
                    self._note(op, self._chunk(number)[start:stop])
        self.topics = self._topics()

    def scan(self, topics: Collection[str]) -> Iterator[Logged]:
        """Messages of ``topics`` in the order in which they were written."""
        wanted = {number: topic for number, (_, topic, _) in self._channels.items() if topic in topics}
        for start, stop in self._loose:
            yield from self._logged(self._data[start:stop], wanted, -start)
        for number in range(len(self._chunks)):
            chunk = self._chunk(number)
            for op, start, stop in self._records(number):
                if op == _MESSAGE:
                    yield from self._logged(chunk[start:stop], wanted, number << 32 | start)

    def read(self, ref: int) -> memoryview:
        """The data of one message."""
        whole, start = (self._data, -ref) if ref < 0 else (self._chunk(ref >> 32), ref & 0xFFFFFFFF)
        (size,) = _U64.unpack_from(whole, start - _U64.size)
        return whole[start + _MESSAGE_HEAD.size : start + size]

    # -- the file

    def _walk(self) -> None:
        at, end = len(MAGIC), len(self._data)
        while True:
            if at + _RECORD.size > end:
                self.truncated = True
                return
            op, size = _RECORD.unpack_from(self._data, at)
            start, at = at + _RECORD.size, at + _RECORD.size + size
            if at > end or op == 0:  # 0: a file system gave zeros for what was never written
                self.truncated = True
                return
            if op == _FOOTER:
                return
            if op == _CHUNK:
                self._chunks.append((start, size))
            elif op == _MESSAGE:
                self._loose.append((start, at))
            else:
                self._note(op, self._data[start:at])

    def _note(self, op: int, body: memoryview) -> None:
        """Takes in a record that describes."""
        try:
            if op == _SCHEMA:
                name, at = _text(body, 2)
                encoding, at = _text(body, at)
                text, _ = _text(body, at)
                self._schemas[_U16.unpack_from(body)[0]] = (name, encoding, text)
            elif op == _CHANNEL:
                topic, at = _text(body, 4)
                encoding, _ = _text(body, at)
                self._channels[_U16.unpack_from(body)[0]] = (_U16.unpack_from(body, 2)[0], topic, encoding)
            elif op == _METADATA:
                name, at = _text(body, 0)
                pairs, _ = _texts(body, at)
                self.metadata[name] = dict(zip(pairs[::2], pairs[1::2], strict=True))
        except (struct.error, ValueError) as error:
            raise TandemError(f"{self.where}: a record of kind {op} is damaged: {error}") from error

    def _topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for schema, name, encoding in self._channels.values():
            if encoding != "cdr":  # not ROS 2; nothing here reads it
                continue
            kind, form, text = self._schemas.get(schema, ("", "", ""))
            found = Topic(name, plain_name(kind), text if form == "ros2msg" else "")
            if topics.setdefault(name, found).type != found.type:
                raise TandemError(f"{self.where}: topic {name} has two types, {topics[name].type} and {found.type}")
        return topics

    # -- chunks

    def _chunk(self, number: int) -> memoryview:
        """The chunk's records, decompressed."""
        if number in self._cache:
            self._cache.move_to_end(number)
        else:
            self._cache[number] = self._decompressed(number)
            if len(self._cache) > _CACHED_CHUNKS:
                self._cache.popitem(last=False)
        return self._cache[number]

    def _decompressed(self, number: int) -> memoryview:
        start, size = self._chunks[number]
        body, where = self._data[start : start + size], f"{self.where}: chunk {number}"
        try:
            _, _, wanted, crc = _CHUNK_HEAD.unpack_from(body)
            name, at = _text(body, _CHUNK_HEAD.size)
            (stored,) = _U64.unpack_from(body, at)
        except (struct.error, ValueError) as error:
            raise TandemError(f"{where} is damaged: {error}") from error
        data = body[at + _U64.size :]
        if stored != len(data) or wanted > _MAX_CHUNK:
            raise TandemError(f"{where} is damaged: {len(data)} bytes, {stored} and {wanted} declared")
        data = _decompress(name, data, wanted, where)
        if len(data) != wanted or (crc and zlib.crc32(data) != crc):
            raise TandemError(f"{where} is damaged: its {len(data)} bytes are not the {wanted} that were written")
        return data

    def _records(self, number: int) -> Iterator[tuple[int, int, int]]:
        """(kind, where its body begins, where it ends) in the decompressed chunk."""
        chunk, at = self._chunk(number), 0
        while at < len(chunk):
            if at + _RECORD.size > len(chunk):
                raise TandemError(f"{self.where}: chunk {number} ends within a record")
            op, size = _RECORD.unpack_from(chunk, at)
            start, at = at + _RECORD.size, at + _RECORD.size + size
            if at > len(chunk):
                raise TandemError(f"{self.where}: chunk {number} ends within a record")
            yield op, start, at

    def _logged(self, body: memoryview, wanted: dict[int, str], ref: int) -> Iterator[Logged]:
        if len(body) < _MESSAGE_HEAD.size:
            raise TandemError(f"{self.where}: a message of {len(body)} bytes (allowed: at least {_MESSAGE_HEAD.size})")
        channel, _, log_ns, publish_ns = _MESSAGE_HEAD.unpack_from(body)
        if channel in wanted:
            if max(log_ns, publish_ns) >= 1 << 63:
                raise TandemError(f"{self.where}: a message is stamped {log_ns} ns (allowed: below 2**63)")
            yield Logged(wanted[channel], log_ns, publish_ns, ref, body[_MESSAGE_HEAD.size :])


def _decompress(name: str, data: memoryview, size: int, where: str) -> memoryview:
    """``data`` decompressed, to hardly more than ``size`` bytes whatever it says of itself."""
    known = {"": lambda data, size, where: data, "zstd": _zstd, "lz4": _lz4}
    if name not in known:
        raise TandemError(f"{where}: compressed by '{name:.40}' (allowed: zstd, lz4, none)")
    try:
        return known[name](data, size, where)
    except (ValueError, RuntimeError) as error:
        raise TandemError(f"{where} is damaged: {error}") from error


def _zstd(data: memoryview, size: int, where: str) -> memoryview:
    zstandard = package("zstandard", where)

    try:
        told = zstandard.get_frame_parameters(data).content_size
        if told not in (size, zstandard.CONTENTSIZE_UNKNOWN):  # it would be believed, whatever the limit
            raise ValueError(f"a zstd frame of {told} bytes, {size} declared")
        return memoryview(zstandard.ZstdDecompressor().decompress(data, max_output_size=size))
    except zstandard.ZstdError as error:
        raise ValueError(error) from error


def _lz4(data: memoryview, size: int, where: str) -> memoryview:
    return memoryview(package("lz4.frame", where).LZ4FrameDecompressor().decompress(data, max_length=size + 1))


def _text(body: memoryview, at: int) -> tuple[str, int]:
    """A length and as many bytes of UTF-8: (text, where it ends)."""
    (size,) = _U32.unpack_from(body, at)
    end = at + _U32.size + size
    if end > len(body):
        raise ValueError("a text goes on beyond its end")
    return bytes(body[at + _U32.size : end]).decode(), end


def _texts(body: memoryview, at: int) -> tuple[list[str], int]:
    """A map as its keys and values in turn."""
    (size,) = _U32.unpack_from(body, at)
    at += _U32.size
    end, found = at + size, []
    while at < end:
        text, at = _text(body, at)
        found.append(text)
    return found, at
