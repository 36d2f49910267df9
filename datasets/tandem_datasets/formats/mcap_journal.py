"""A raw journal: ROS 2 messages as they come, appended to an MCAP file that a killed process leaves readable."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.cdr import plain_name
from tandem_datasets.formats.packages import package
from tandem_datasets.formats.ros_messages import definition_text, ros_name

_CHUNK_BYTES = 1 << 20
COMPRESSIONS = {"zstd": "ZSTD", "lz4": "LZ4", "none": "NONE"}


class McapJournal:
    """Appends messages to a new MCAP file; not thread-safe.

    Messages wait in a chunk, which is written when it has a megabyte, when a message comes ``flush_s`` after the last
    one was written, and by :meth:`flush`. A process killed at any moment leaves a file without its index at the end;
    all whole chunks of it are read by ``tandem data import``, by ``mcap recover`` and by ``ros2 bag reindex``.

    Args:
        path: a ``.mcap`` file that is not there yet, or a folder: then the next free ``<folder>_<n>.mcap`` in it.
        compression: of the chunks: zstd, lz4 or none.
        flush_s: longest time between two messages that are not on the disk both; seconds.
        fsync: whether the disk confirms each chunk, so that a power cut takes no more than a killed process.
        metadata: named records of texts, written first.

    Raises:
        TandemError: the file is there, the package mcap is not, or the disk refuses (from every method).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        compression: str = "zstd",
        flush_s: float = 1.0,
        fsync: bool = False,
        metadata: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.path = _next_file(Path(path))
        self.where = f"journal {self.path}"
        self.counts: Counter[str] = Counter()  # messages by topic
        self.topics: dict[str, str] = {}  # topic -> type
        self.log_range = (0, 0)  # first and last log time, ns
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._flush_s = flush_s
        self._fsync = fsync
        if compression not in COMPRESSIONS:
            raise unknown(f"{self.where}: compression", compression[:40], COMPRESSIONS)
        mcap = package("mcap.writer", self.where)
        try:
            self._file = self.path.open("xb")
        except OSError as error:
            raise TandemError(f"{self.where}: cannot be made: {error.strerror}") from error
        kind = getattr(mcap.CompressionType, COMPRESSIONS[compression])
        self._writer = mcap.Writer(self._file, _CHUNK_BYTES, kind)
        self._writer.start(profile="ros2", library="tandem")
        for name, pairs in (metadata or {}).items():
            self._writer.add_metadata(name, dict(pairs))
        self.flush()

    def add_topic(self, topic: str, kind: str, definition: str = "") -> None:
        """Announces a topic; one of another type than before is refused.

        Args:
            topic: with its leading slash.
            kind: ``sensor_msgs/msg/Image`` or ``sensor_msgs/Image``.
            definition: the type's ``ros2msg`` text with its dependencies; known for the contract's own types.
        """
        kind = plain_name(kind)
        if self.topics.get(topic, kind) != kind:
            raise TandemError(f"{self.where}: topic {topic} is {kind} (allowed: {self.topics[topic]}, as before)")
        if topic in self.topics:
            return
        if kind not in self._schemas:
            try:
                text = definition or definition_text(kind)
            except KeyError:
                raise TandemError(f"{self.where}: topic {topic}: the definition of {kind} is wanted") from None
            self._schemas[kind] = self._writer.register_schema(ros_name(kind), "ros2msg", text.encode())
        metadata = {"offered_qos_profiles": ""}
        self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[kind], metadata)
        self.topics[topic] = kind

    def write(self, topic: str, kind: str, data: bytes, stamp_ns: int, publish_ns: int | None = None) -> None:
        """Appends one message.

        Args:
            topic: with its leading slash.
            kind: its type; see :meth:`add_topic` for others than the contract's.
            data: CDR with its encapsulation header, as ``rclpy.serialization.serialize_message`` gives it.
            stamp_ns: when it was taken; 0 or more.
            publish_ns: when it was sent; None: the same.
        """
        sent = stamp_ns if publish_ns is None else publish_ns
        if min(stamp_ns, sent) < 0:
            raise TandemError(f"{self.where}: topic {topic}: stamped {min(stamp_ns, sent)} ns (allowed: 0 and later)")
        if topic not in self._channels:
            self.add_topic(topic, kind)
        first, last = self.log_range
        self.log_range = (min(first, stamp_ns), max(last, stamp_ns)) if self.counts else (stamp_ns, stamp_ns)
        try:
            self._writer.add_message(self._channels[topic], stamp_ns, data, sent, self.counts[topic])
        except OSError as error:
            raise self._refused(error) from error
        self.counts[topic] += 1
        if time.monotonic() - self._flushed_s > self._flush_s:
            self.flush()

    def flush(self) -> None:
        """Hands everything to the operating system, and with ``fsync`` to the disk."""
        try:
            self._writer.flush()
            if self._fsync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._flushed_s = time.monotonic()

    def close(self) -> None:
        """Writes the index and closes the file. Twice is harmless."""
        if self._file.closed:
            return
        try:
            with self._file:
                self._writer.finish()
                self._file.flush()
                if self._fsync:
                    os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> TandemError:
        return TandemError(f"{self.where}: cannot be written: {error.strerror or error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _next_file(path: Path) -> Path:
    """The file to write: ``path``, or in a folder the one after the last."""
    if path.suffix == ".mcap":
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TandemError(f"journal {path}: cannot be made: {error.strerror}") from error
    number = 0
    while (path / f"{path.name}_{number}.mcap").exists():
        number += 1
    return path / f"{path.name}_{number}.mcap"
