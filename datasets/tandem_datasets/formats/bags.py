"""Recordings of ROS 2 topics as one: an ``.mcap`` file, an sqlite ``.db3`` file, or a rosbag2 folder of either.

A folder's ``metadata.yaml`` is not read: the recorder writes it last, and what it says is in the files too.
"""

import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.cdr import Definition, parse_definition, plain_name
from tandem_datasets.formats.mcap_file import Logged, McapFile, Topic
from tandem_datasets.formats.packages import package
from tandem_datasets.formats.ros_messages import definition_text, ros_name

SUFFIXES = (".mcap", ".db3")
_CONVERT = "allowed: .mcap and .db3; rosbags-convert of the package rosbags makes them from others"


class Ref(NamedTuple):
    """Where a message lies."""

    file: int
    place: int


class Bag:
    """A recording of one or more files.

    Raises:
        TandemError: from any member: there is none at ``path``, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.where = f"bag {path}"
        self.files: list[McapFile | SqliteFile] = [
            McapFile(file) if file.suffix == ".mcap" else SqliteFile(file) for file in bag_files(self.path)
        ]
        self.topics: dict[str, Topic] = {}
        for file in self.files:
            for name, topic in file.topics.items():
                if self.topics.setdefault(name, topic).type != topic.type:
                    raise TandemError(f"{self.where}: topic {name} has two types")
        self._definitions: dict[str, Definition] = {}

    @property
    def truncated(self) -> bool:
        """Whether the writer of a file was cut short."""
        return any(file.truncated for file in self.files)

    @property
    def metadata(self) -> dict[str, Mapping[str, str]]:
        """Named records beside the messages."""
        return {name: pairs for file in self.files for name, pairs in file.metadata.items()}

    def scan(self, topics: Collection[str]) -> Iterator[tuple[Ref, Logged]]:
        """Messages of ``topics`` in the order in which they were written."""
        for number, file in enumerate(self.files):
            for logged in file.scan(topics):
                yield Ref(number, logged.ref), logged

    def read(self, ref: Ref) -> memoryview:
        """The data of one message."""
        return self.files[ref.file].read(ref.place)

    def definition(self, topic: str) -> Definition:
        """The message type of ``topic``."""
        if topic not in self._definitions:
            found = self.topics[topic]
            where = f"{self.where}: topic {topic} ({found.type or 'of unknown type'})"
            text = found.definition or _known_definition(found.type, where)
            self._definitions[topic] = parse_definition(found.type, text, where)
        return self._definitions[topic]

    def require_type(self, topic: str, wanted: Definition) -> None:
        """Raises TandemError unless the topic's messages are of that type, field by field."""
        found = self.definition(topic)
        if found.name != wanted.name or any(found.types.get(name) != wanted.types[name] for name in wanted.types):
            raise TandemError(f"{self.where}: topic {topic} is {found.name} (allowed: {wanted.name} as in ROS 2)")


def bag_files(path: Path) -> list[Path]:
    """The files of the recording at ``path`` in their natural order; raises TandemError if there are none."""
    where = f"bag {path}"
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise TandemError(f"{where}: a '{path.suffix}' file ({_CONVERT})")
        return [path]
    found = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else []
    files = sorted((file for file in found if file.suffix in SUFFIXES), key=lambda file: natural(file.name))
    if len({file.suffix for file in files}) != 1:
        there = "no recording" if not files else "files of two kinds"
        raise TandemError(f"{where}: {there} ({_CONVERT})")
    return files


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which ``x_10`` comes after ``x_9``."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,18})", name)]


class SqliteFile:
    """One ``.db3`` file of rosbag2, read only: the same members as :class:`McapFile`."""

    def __init__(self, path: Path) -> None:
        self.where = f"bag {path}"
        self.truncated = False  # sqlite rolls back by itself what was not finished
        self.metadata: dict[str, dict[str, str]] = {}
        self._path = path
        tables = {row[0] for row in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise TandemError(f"{self.where}: not a rosbag2 file (it lacks the tables topics and messages)")
        texts = {}
        if "message_definitions" in tables:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            texts = {plain_name(str(name)): str(text) for name, form, text in self._rows(query) if form == "ros2msg"}
        self._names: dict[int, str] = {}
        self.topics: dict[str, Topic] = {}
        for number, name, kind, form in self._rows("SELECT id, name, type, serialization_format FROM topics"):
            if form == "cdr":
                plain = plain_name(str(kind))
                self._names[number] = str(name)
                self.topics[str(name)] = Topic(str(name), plain, texts.get(plain, ""))

    def scan(self, topics: Collection[str]) -> Iterator[Logged]:
        """Messages of ``topics`` in the order in which they were written."""
        numbers = sorted(number for number, name in self._names.items() if name in topics)
        marks = ",".join("?" * len(numbers))
        query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY id"
        for row in self._rows(query, numbers):
            ref, number, stamp, data = row
            if type(stamp) is not int or not isinstance(data, bytes):
                raise TandemError(f"{self.where}: message {ref} is damaged")
            yield Logged(self._names[number], stamp, stamp, ref, memoryview(data))

    def read(self, ref: int) -> memoryview:
        """The data of one message."""
        for (data,) in self._rows("SELECT data FROM messages WHERE id = ?", [ref]):
            if isinstance(data, bytes):
                return memoryview(data)
        raise TandemError(f"{self.where}: message {ref} is damaged")

    def _rows(self, query: str, values: list[int] | None = None) -> Iterator[tuple]:
        if not hasattr(self, "_base"):
            self._base = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            self._base.execute("PRAGMA trusted_schema = OFF")
            yield from self._base.execute(query, values or [])
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise TandemError(f"{self.where}: cannot be read: {error}") from error


@cache
def _known_definition(name: str, where: str) -> str:
    """The definition of a standard type, for recordings that carry none."""
    try:
        return definition_text(name)
    except KeyError:
        pass
    rosbags = package("rosbags.typesys", f"{where}: its definition is not recorded")
    known = rosbags.get_typestore(rosbags.Stores.LATEST)
    if ros_name(name) not in known.fielddefs:
        raise TandemError(f"{where}: its definition is neither recorded nor standard")
    return known.generate_msgdef(ros_name(name), ros_version=2)[0]
