"""Where the messages of a recording lie and when they were stamped: read once, then any episode is found at once."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.bags import Bag, Ref
from tandem_datasets.formats.cdr import Definition

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Stream:
    """Messages of one topic; all arrays (N,)."""

    stamp: np.ndarray  # int64 ns: of the header, or the log time where there is none
    log: np.ndarray  # int64 ns: when it was recorded
    publish: np.ndarray  # int64 ns: when it was sent
    file: np.ndarray  # int32, place: int64: a bags.Ref
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.stamp)

    def ref(self, at: int) -> Ref:
        """Where the message lies."""
        return Ref(int(self.file[at]), int(self.place[at]))

    def take(self, chosen: np.ndarray) -> "Stream":
        """Those messages only, in the order given."""
        return Stream(*(getattr(self, key)[chosen] for key in ("stamp", "log", "publish", "file", "place")))


def read_index(bag: Bag, topics: Collection[str]) -> dict[str, Stream]:
    """Where every message of ``topics`` lies; a topic without messages has an empty stream."""
    rows: dict[str, list[tuple[int, int, int, int, int]]] = {topic: [] for topic in topics}
    stamped = {topic: is_stamped(bag.definition(topic)) for topic in topics}
    for ref, logged in bag.scan(topics):
        stamp = logged.log_ns
        if stamped[logged.topic]:
            stamp = header_stamp(logged.data, f"{bag.where}: topic {logged.topic}")
        rows[logged.topic].append((stamp, logged.log_ns, logged.publish_ns, *ref))
    return {topic: _stream(found) for topic, found in rows.items()}


def _stream(rows: list[tuple[int, int, int, int, int]]) -> Stream:
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    return Stream(*(np.ascontiguousarray(column) for column in columns))


def is_stamped(definition: Definition) -> bool:
    """Whether messages begin with a std_msgs/Header."""
    fields = definition.types[definition.name]
    return bool(fields) and fields[0].kind == "std_msgs/Header" and fields[0].count is None


def header_stamp(data: memoryview, where: str) -> int:
    """The stamp of a message that begins with a header, without reading the rest of it."""
    if len(data) < 12 or bytes(data[:2]) not in (b"\0\1", b"\0\0"):
        raise TandemError(f"{where}: a message of {len(data)} bytes without a header")
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] else ">iI", data, 4)
    return seconds * _SECOND + nanoseconds


def decoded(bag: Bag, topic: str, stream: Stream) -> Iterator[dict[str, Any]]:
    """The stream's messages."""
    definition, where = bag.definition(topic), f"{bag.where}: topic {topic}"
    for at in range(len(stream)):
        yield definition.decode(bag.read(stream.ref(at)), where)
