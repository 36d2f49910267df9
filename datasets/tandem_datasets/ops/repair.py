"""What ``validate(repair=True)`` does to a store: files come back into shape, and what is lost is said to be.

Nothing that can still be read is changed or thrown away. Each step can be repeated after it was interrupted.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.beside import LOCK
from tandem_datasets.checksums import checksum_of
from tandem_datasets.chunks import ChunkWriter
from tandem_datasets.codecs import encode_text
from tandem_datasets.errors import TandemError
from tandem_datasets.files import (
    PARTIAL,
    Syncer,
    make_folders,
    open_data,
    replace,
    replace_file,
    require_no_links,
    write_file,
)
from tandem_datasets.layout import (
    EPISODE_COLUMNS,
    EPISODE_ENDS,
    GROUP_METADATA,
    INSTRUCTIONS,
    NAMES,
    PROVENANCE,
    PROVENANCE_ENDS,
    SHARD_ROWS,
    Column,
)
from tandem_datasets.locks import WriterLock
from tandem_datasets.ops.flaws import Flaw, Kind
from tandem_datasets.ops.structure import TABLES, Skeleton
from tandem_datasets.reading import ROOT_FILE, metadata_path, read_array, read_declared
from tandem_datasets.shards import TRAILER_BYTES, whole_shard
from tandem_datasets.store import Store
from tandem_datasets.tables import TextTable

_EMPTY = b"{}"


class Repair:
    """Holds a store alone while it is repaired; use it as a context.

    Raises:
        TandemError: another writer has it.
        OSError: the disk refuses.
    """

    def __init__(self, bones: Skeleton) -> None:
        self._bones, self._root = bones, bones.root
        self._columns = {column.key: column for column in bones.columns}
        self._syncer = Syncer(True)

    def __enter__(self) -> "Repair":
        require_no_links(self._root, ("data", "meta", EPISODE_ENDS.key, *self._columns), self._bones.where)
        make_folders(os.path.join(self._root, os.path.dirname(LOCK)))
        self._lock = WriterLock(Path(self._root, LOCK), self._bones.where)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._syncer.flush()
        finally:
            self._syncer.close()
            self._lock.release()

    def structure(self, flaws: Sequence[Flaw]) -> None:
        """Files and their metadata; what is left over goes when a writer next opens the store."""
        for flaw in flaws:
            if flaw.kind is Kind.GROUP:
                path = os.path.join(self._root, flaw.column, ROOT_FILE)
                replace_file(path, json.dumps(GROUP_METADATA, indent=2).encode(), self._syncer)
            elif flaw.remedy and flaw.kind in (Kind.METADATA, Kind.SHAPE):
                self._metadata(self._columns[flaw.column])
        for flaw in flaws:
            column = self._columns.get(flaw.column)
            if column is None or not flaw.remedy:
                continue
            if flaw.kind is Kind.SHARD:
                self._shard(column, flaw.number)
            elif flaw.kind is Kind.CHUNK:
                self._chunk(column, flaw.number)
        if any(flaw.column == PROVENANCE_ENDS.key and flaw.kind in (Kind.PROVENANCE, Kind.CHUNK) for flaw in flaws):
            self._provenance_ends()
        self._syncer.flush()

    def facts(self, flaws: Sequence[Flaw]) -> list[int]:
        """What is told of episodes; returns those that are to be marked as deleted."""
        store = Store(self._root)
        for flaw in flaws:
            if flaw.kind is Kind.UUID and flaw.remedy.startswith("gives"):
                self._put("meta/uuid", flaw.episode, np.frombuffer(uuid.uuid4().bytes, np.uint8)[None])
            elif flaw.kind is Kind.CODE and flaw.column:
                self._tell_anew(self._columns[flaw.column], [flaw.episode])
            elif flaw.kind is Kind.NUMBER and flaw.column:
                self._put(flaw.column, flaw.episode, [False])
            elif flaw.kind is Kind.TIME and flaw.column:
                rows = store.episode_slice(flaw.episode)
                stamps = store.load("stamp", rows.start, rows.stop)
                begin, end = (int(store.load_episodes(key)[flaw.episode]) for key in ("begin_ns", "end_ns"))
                self._put("meta/begin_ns", flaw.episode, [min(begin, int(stamps[0]))])
                self._put("meta/end_ns", flaw.episode, [max(end, int(stamps[-1]))])
            elif flaw.kind is Kind.PROVENANCE and flaw.remedy and flaw.episode >= 0:
                self._empty_provenance(flaw.episode)
        self._syncer.flush()
        return sorted({flaw.episode for flaw in flaws if flaw.remedy == "marks it as deleted"})

    # -- files

    def _metadata(self, column: Column) -> None:
        rows = self._bones.committed(column)
        if rows is None:
            rows = self._texts(column) if column in TABLES else 0  # of provenance: see _provenance_ends
            if not rows and column in TABLES and len(self._bones.ends):  # all texts are lost: one that codes may mean
                self._write_shard(column, 0, [encode_text("")])
                rows = 1
        make_folders(os.path.join(self._root, column.key))
        replace_file(metadata_path(self._root, column), column.metadata_bytes(rows), self._syncer)

    def _texts(self, table: Column) -> int:
        """How many texts the shards of a table hold."""
        count = 0
        while count % SHARD_ROWS == 0:
            rows = self._salvaged(table, count // SHARD_ROWS, SHARD_ROWS)
            found = next((k for k, row in enumerate(rows) if row is None), SHARD_ROWS)
            count += found
            if not found:
                break
        return count

    def _shard(self, column: Column, number: int) -> None:
        """Writes a shard anew with what can be found of its rows, and with placeholders."""
        rows = self._bones.committed(column)
        if rows is None:
            rows = read_declared(self._root, column, self._bones.where)
        used = min(rows - number * SHARD_ROWS, SHARD_ROWS)
        if column.dtype is None:
            blank = encode_text("")
        else:
            assert column.codec is not None
            blank = column.codec.encode(np.zeros(column.row, column.dtype))
        found = [blank if row is None else row for row in self._salvaged(column, number, used)]
        self._write_shard(column, number, found)

    def _write_shard(self, column: Column, number: int, rows: Sequence[bytes]) -> None:
        path = os.path.join(self._root, column.key, column.file_name(number))
        make_folders(os.path.dirname(path))
        write_file(path + PARTIAL, whole_shard(rows), self._syncer)
        self._syncer.flush()
        replace(path + PARTIAL, path)
        self._syncer.note_folder(os.path.dirname(path))

    def _salvaged(self, column: Column, number: int, count: int) -> list[bytes | None]:
        """Rows as the index says, even where its checksum is wrong: the episode's own checksum finds out."""
        path = os.path.join(self._root, column.key, column.file_name(number))
        try:
            with open_data(path, "") as file:
                shard = file.fileno()
                size = os.fstat(shard).st_size - TRAILER_BYTES
                if size < 0:
                    return [None] * count
                trailer = os.pread(shard, TRAILER_BYTES, size)
                index = np.frombuffer(trailer, "<u8", SHARD_ROWS * 2).reshape(SHARD_ROWS, 2)[:count].tolist()
                there = (0 < length <= column.most_bytes and at + length <= size for at, length in index)
                return [
                    os.pread(shard, length, at) if ok else None for ok, (at, length) in zip(there, index, strict=True)
                ]
        except TandemError:
            return [None] * count

    def _chunk(self, column: Column, number: int) -> None:
        """Gives a file of numbers its size; of episodes, what it has lost is told anew as far as possible."""
        rows = self._bones.committed(column) or 0
        path = os.path.join(self._root, column.key, column.file_name(number))
        there = os.path.getsize(path) // column.row_bytes if os.path.isfile(path) else 0
        first = number * column.rows_per_file + min(there, column.rows_per_file)
        last = min(rows, (number + 1) * column.rows_per_file)
        make_folders(os.path.dirname(path))
        if first >= last:
            self._write(column, number * column.rows_per_file, self._rows_at(column, number * column.rows_per_file))
            return
        self._write(column, first, np.zeros((last - first, *column.row), column.dtype))
        if column in EPISODE_COLUMNS:
            self._tell_anew(column, range(first, last))

    def _rows_at(self, column: Column, row: int) -> np.ndarray:
        """The first row of a file whose size alone is wrong."""
        path = os.path.join(self._root, column.key, column.file_name(row // column.rows_per_file))
        with open_data(path, self._bones.where) as file:
            data = file.read(column.row_bytes)
        return np.frombuffer(data, column.dtype).reshape(1, *column.row)

    # -- facts

    def _tell_anew(self, column: Column, episodes: Iterable[int]) -> None:
        """Facts that are lost: from the frames, or nothing. Seeds, marks and success are 0 as they are."""
        store = Store(self._root)
        name = column.key.removeprefix("meta/")
        tell: dict[str, Callable[[slice], Any]] = {
            "uuid": lambda _: np.frombuffer(uuid.uuid4().bytes, np.uint8),
            "task": lambda rows: self._first_instruction(store, rows),
            "begin_ns": lambda rows: store.load("stamp", rows.start, rows.start + 1)[0],
            "end_ns": lambda rows: store.load("stamp", rows.stop - 1, rows.stop)[0],
            "checksum": lambda rows: checksum_of({key: store.stored(key, rows.start, rows.stop) for key in store.keys}),
        }
        for episode in episodes:
            if name in tell:
                value = tell[name](store.episode_slice(episode))
            elif name in ("outcome", "failure_reason", "env"):
                value = self._empty_text(NAMES)
            else:
                return
            self._put(column.key, episode, np.array(value)[None])

    def _first_instruction(self, store: Store, rows: slice) -> int:
        """The code that an episode's first frame has, if that is any."""
        code = int(store.load("instruction", rows.start, rows.start + 1)[0])
        return code if 0 <= code < len(store.instructions) else self._empty_text(INSTRUCTIONS)

    def _empty_text(self, column: Column) -> int:
        """The code of the empty text, which is added to the table if it has none."""
        table = TextTable(self._root, column, self._bones.where, self._syncer)
        try:
            return table.add([""])[""]
        finally:
            table.shards.close()

    def _empty_provenance(self, episode: int) -> None:
        """An empty object of the same length: JSON may end in spaces."""
        ends = read_array(self._root, PROVENANCE_ENDS, 0, len(self._bones.ends), self._bones.where)
        begin, end = int(ends[episode - 1]) if episode else 0, int(ends[episode])
        self._write(PROVENANCE, begin, np.frombuffer(_EMPTY.ljust(end - begin), np.uint8))

    def _provenance_ends(self) -> None:
        """Finds where the JSON texts end; if they are not as many as episodes, all become empty."""
        count = len(self._bones.ends)
        try:
            rows = read_declared(self._root, PROVENANCE, self._bones.where)
            text = read_array(self._root, PROVENANCE, 0, rows, self._bones.where).tobytes().decode("utf-8", "replace")
        except TandemError:
            text = ""
        ends = _json_ends(text, count)
        if len(ends) < count:
            ends = [len(_EMPTY) * (k + 1) for k in range(count)]
            self._write(PROVENANCE, 0, np.frombuffer(_EMPTY * count, np.uint8))
        self._write(PROVENANCE_ENDS, 0, np.array(ends, np.int64))
        for column, rows in ((PROVENANCE_ENDS, count), (PROVENANCE, ends[-1] if ends else 0)):
            replace_file(metadata_path(self._root, column), column.metadata_bytes(rows), self._syncer)

    def _put(self, key: str, row: int, value: Any) -> None:
        column = self._columns[key]
        self._write(column, row, np.asarray(value, column.dtype))

    def _write(self, column: Column, row: int, values: np.ndarray) -> None:
        writer = ChunkWriter(self._root, column, self._bones.where, self._syncer)
        try:
            writer.write(row, values)
            self._syncer.flush()
        finally:
            writer.close()


def _json_ends(text: str, count: int) -> list[int]:
    """Where each of the objects that ``text`` begins with ends, in bytes; at most ``count``."""
    decoder, ends, at = json.JSONDecoder(), [], 0
    for _ in range(count):
        try:
            found, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        if not isinstance(found, dict):
            break
        ends.append(len(text[:at].encode()))
    return ends
