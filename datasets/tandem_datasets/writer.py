"""The disk side of recording: makes a store, recovers it, takes rows as they come and commits episodes.

Order of a commit: every row past the committed ones -> the disk has them -> tail shards are renamed, the
arrays' new shapes written -> the new shape of ``meta/episode_ends`` is renamed into place. Only that last step
is the commit; before it nothing that readers trust has changed. Rows may be on the disk long before, full shards are
confirmed as they come.

After an OSError every step can be tried again, and goes on where it was. After a SyncError nothing that is not
committed can be trusted any more: :meth:`StoreWriter.recover`, and the rows once more from memory.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.beside import LOCK, clear_beside
from tandem_datasets.chunks import ChunkWriter
from tandem_datasets.codecs import Codec
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.facts import NAMED, fact_rows, provenance_text, texts_of
from tandem_datasets.files import (
    PARTIAL,
    Syncer,
    make_folders,
    open_data,
    open_file,
    replace,
    replace_file,
    require_no_links,
    write_at,
    write_file,
)
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.layout import (
    EPISODE_COLUMNS,
    EPISODE_ENDS,
    GROUP_METADATA,
    INSTRUCTIONS,
    NAMES,
    PROVENANCE,
    PROVENANCE_ENDS,
    Column,
    frame_columns,
    root_metadata,
)
from tandem_datasets.locks import WriterLock
from tandem_datasets.parts import EpisodeRows
from tandem_datasets.reading import (
    ROOT_FILE,
    metadata_path,
    read_declared,
    read_ends,
    read_growing,
    read_root,
)
from tandem_datasets.shards import ShardWriter
from tandem_datasets.tables import TextTable


class StoreWriter:
    """Holds a store open for writing, alone. See ``recorder.Recorder`` for arguments and errors."""

    def __init__(self, path: Path, embodiment: Embodiment, codec: Codec, exist_ok: bool, sync: bool) -> None:
        self.n_episodes = 0  # committed
        self.n_frames = 0  # committed
        self.where = f"store {path}"
        self._root = str(path)
        self._provenance_bytes = 0  # committed rows of meta/provenance
        meta = (*EPISODE_COLUMNS, PROVENANCE_ENDS, PROVENANCE)
        self._grown = (*meta, *frame_columns(embodiment, codec).values())  # at each commit, in place
        self._columns = (EPISODE_ENDS, INSTRUCTIONS, NAMES, *self._grown)
        self._syncer = Syncer(sync)
        self._next_row = 0  # where the next row that is taken goes
        self._numbers: list[tuple[int, Mapping[str, np.ndarray]]] = []  # taken, from which row: not on the disk yet
        where, syncer = self.where, self._syncer
        self._instructions = TextTable(self._root, INSTRUCTIONS, where, syncer)
        self._names = TextTable(self._root, NAMES, where, syncer)
        self._shards = {c.key: ShardWriter(self._root, c, where, syncer) for c in self._grown if c.sharded}
        self._chunks = {c.key: ChunkWriter(self._root, c, where, syncer) for c in self._columns if not c.sharded}
        self._writers: list[ShardWriter | ChunkWriter] = [*self._shards.values(), *self._chunks.values()]
        self._writers += [self._instructions.shards, self._names.shards]
        self._shape_files: dict[str, int] = {}  # column -> descriptor of its zarr.json
        self._check_place(exist_ok)
        new = [path, *(folder for folder in path.parents if not folder.exists())]
        make_folders(os.path.join(self._root, EPISODE_ENDS.key))
        self._lock = WriterLock(Path(self._root, LOCK), self.where)
        try:
            clear_beside(self._root)
            if os.path.exists(os.path.join(self._root, ROOT_FILE)):
                self._check_same(embodiment, codec)
            else:
                self._create(embodiment, codec, new)
            self.recover()
        except BaseException:
            self.close()
            raise

    def recover(self) -> None:
        """Brings every array back to what ``episode_ends`` says, and drops what lies past it."""
        self._syncer.drop()
        self._close_shape_files()
        ends = read_ends(self._root, self.where)
        self.n_episodes, self.n_frames = len(ends), int(ends[-1]) if len(ends) else 0
        text_ends = read_growing(self._root, PROVENANCE_ENDS, len(ends), self.where)
        self._provenance_bytes = int(text_ends[-1]) if len(ends) else 0
        self._instructions.recover()
        self._names.recover()
        for column in (EPISODE_ENDS, *self._grown):
            rows = self._committed(column)
            (self._shards[column.key] if column.sharded else self._chunks[column.key]).recover(rows)
        for column in self._grown:
            self._repair_shape(column)
        self._next_row, self._numbers = self.n_frames, []
        self._syncer.flush()

    @property
    def touched(self) -> bool:
        """Whether rows were taken that are not committed; dropping them needs :meth:`recover`."""
        return self._next_row > self.n_frames

    @property
    def replaced(self) -> bool:
        """Whether the folder is not the one any more that was opened."""
        return not self._lock.in_place

    @property
    def gone(self) -> bool:
        """Whether the folder, or a file in it with rows that are not committed, was removed or replaced meanwhile."""
        return self.replaced or any(writer.gone for writer in self._writers)

    def take(self, rows: EpisodeRows) -> None:
        """Takes what waits of an episode behind all rows that were taken before, into memory."""
        codes = {"instruction": self._instructions.add(rows.wordings)}
        if "data/subgoal" in self._chunks:
            codes["subgoal"] = self._names.add(rows.subgoals)
        taken: dict[str, list[np.ndarray]] = {key: [] for key in codes}
        for part in rows.waiting:
            for name, encoded in part.images.items():
                self._shards[f"data/{name}"].append(encoded)
            texts = {"instruction": part.instructions, "subgoal": part.subgoals}
            coded = {key: np.array([table[text] for text in texts[key]], np.int32) for key, table in codes.items()}
            for key, values in coded.items():
                taken[key].append(values)
            self._numbers.append((self._next_row, {**part.numbers, **coded}))
            self._next_row += len(part.instructions)
        rows.take({key: np.concatenate([np.zeros(0, np.int32), *values]) for key, values in taken.items()})

    def write(self) -> None:
        """Brings all taken rows to the disk."""
        for shards in self._shards.values():
            shards.write()
        if self._numbers:
            first = self._numbers[0][0]
            for key in self._numbers[0][1]:
                values = np.concatenate([numbers[key] for _, numbers in self._numbers])
                self._chunks[f"data/{key}"].write(first, values)
            self._numbers = []

    def commit(self, finished: Sequence[tuple[EpisodeRows, EpisodeInfo]]) -> None:
        """Makes episodes a part of the store, all or none: first those that were taken already.

        An exception does not say whether they are in; ``n_episodes`` does.
        """
        infos = [info for _, info in finished]
        for rows, _ in finished:
            self.take(rows)
        counts = [rows.count for rows, _ in finished]
        assert min(counts) > 0  # no reader would open the store any more
        assert self._next_row == self.n_frames + sum(counts)
        instructions = self._instructions.add([info.instruction for info in infos])
        names = self._names.add(texts_of(infos))
        self.write()
        facts = fact_rows(infos, [rows.checksum.value for rows, _ in finished], instructions, names)
        ends = self.n_frames + np.cumsum(counts)
        provenance_bytes = self._write_facts(facts, infos, ends)
        episodes, frames = self.n_episodes + len(infos), int(ends[-1])
        commit_file = metadata_path(self._root, EPISODE_ENDS)
        write_file(commit_file + PARTIAL, (EPISODE_ENDS.metadata_bytes(episodes),), self._syncer)
        for shards in self._shards.values():
            shards.seal()
        self._syncer.flush()
        for shards in self._shards.values():
            shards.publish()
        self._syncer.flush()
        for column in self._grown:
            in_data = column.key.startswith("data/")
            self._grow_shape(column, frames if in_data else provenance_bytes if column is PROVENANCE else episodes)
        try:
            replace(commit_file + PARTIAL, commit_file)  # the commit
        except OSError:
            if not self._has_committed(episodes):
                raise
        self.n_episodes, self.n_frames, self._provenance_bytes = episodes, frames, provenance_bytes
        for shards in self._shards.values():
            shards.finish()
        self._syncer.note_folder(os.path.dirname(commit_file))
        self._syncer.flush()

    def mark(self, episodes: Sequence[int], deleted: bool) -> None:
        """Sets or lifts the mark of deletion of committed episodes, one byte each."""
        self.change(episodes, {"deleted": deleted})

    def change(self, episodes: Sequence[int], facts: Mapping[str, Any]) -> None:
        """Gives facts of committed episodes new values in place: one write each, so that each is old or new.

        Args:
            episodes: committed ones.
            facts: plain values by the names of EpisodeInfo's fields, but for instruction, uuid and provenance.
        """
        columns = {column.key.removeprefix("meta/"): column for column in EPISODE_COLUMNS}
        names = self._names.add([value for key, value in facts.items() if key in NAMED])
        for key, value in facts.items():
            row = np.array([names[value] if key in NAMED else value], columns[key].dtype)
            for episode in episodes:
                self._chunks[columns[key].key].write(episode, row)
        self._syncer.flush()

    def prepare_texts(self, instructions: Sequence[str], names: Sequence[str]) -> None:
        """Numbers texts that are going to be used all at once, which is quicker than with each episode."""
        self._instructions.add(instructions)
        self._names.add(names)

    def close(self) -> None:
        """Gives the store back."""
        try:
            self._close_shape_files()
            for writer in self._writers:
                writer.close()
            self._syncer.close()
        finally:
            self._lock.release()

    # -- making and checking

    def _check_place(self, exist_ok: bool) -> None:
        """Raises TandemError if the path holds anything but a store, or one that is not wanted there."""
        root = self._root
        if not os.path.lexists(root):
            return
        require_no_links(root, ("data", "meta", *(column.key for column in self._columns)), self.where)
        if os.path.isdir(root) and os.path.exists(os.path.join(root, ROOT_FILE)):
            if not exist_ok:
                raise TandemError(f"{self.where}: already there (allowed: a new path)")
            read_root(root, self.where)
        elif not vacant(root):
            raise TandemError(f"{self.where}: the path holds something else (allowed: a store, or a new path)")

    def _check_same(self, embodiment: Embodiment, codec: Codec) -> None:
        found, found_codec = read_root(self._root, self.where)
        if found != embodiment:
            differs = "; ".join(embodiment.misfits(found)) or "another name, or other camera frames and rates"
            raise TandemError(f"{self.where}: its embodiment '{found.name}' is not '{embodiment.name}': {differs}")
        if found_codec is not codec:
            raise TandemError(f"{self.where}: its codec is {found_codec.name}, not {codec.name}")

    def _create(self, embodiment: Embodiment, codec: Codec, new: Sequence[Path]) -> None:
        """Makes an empty store, in ``new`` folders; its top ``zarr.json`` is last, and without it there is no store."""
        for folder in new:
            self._syncer.note_folder(str(folder.parent))
        for column in self._columns:
            make_folders(os.path.join(self._root, column.key))
            write_file(metadata_path(self._root, column), (column.metadata_bytes(0),), self._syncer)
            self._syncer.note_folder(os.path.join(self._root, column.key))
        for group in ("data", "meta"):
            replace_file(os.path.join(self._root, group, ROOT_FILE), _pretty(GROUP_METADATA), self._syncer)
        replace_file(os.path.join(self._root, ROOT_FILE), _pretty(root_metadata(embodiment, codec)), self._syncer)

    # -- shapes

    def _committed(self, column: Column) -> int:
        if column is PROVENANCE:
            return self._provenance_bytes
        return self.n_frames if column.key.startswith("data/") else self.n_episodes

    def _repair_shape(self, column: Column) -> None:
        """Makes the column's ``zarr.json`` say what is committed; refuses one of another kind of array."""
        path, wanted = metadata_path(self._root, column), column.metadata_bytes(self._committed(column))
        found = b""
        if os.path.exists(path):
            with open_data(path, self.where) as file:
                found = file.read()
        if found.strip(b"\0"):  # else a power cut left it empty
            read_declared(self._root, column, self.where)
        if found != wanted:
            replace_file(path, wanted, self._syncer)

    def _grow_shape(self, column: Column, rows: int) -> None:
        """Writes a new row count in place: one write within a page, and :meth:`recover` can make it anew."""
        if column.key not in self._shape_files:
            path = metadata_path(self._root, column)
            self._shape_files[column.key] = open_file(path, os.O_WRONLY)
        path = metadata_path(self._root, column)
        write_at(self._shape_files[column.key], (column.count_bytes(rows),), column.count_offset, path)

    def _close_shape_files(self) -> None:
        for descriptor in self._shape_files.values():
            os.close(descriptor)
        self._shape_files = {}

    # -- rows

    def _write_facts(self, facts: Mapping[str, np.ndarray], infos: Sequence[EpisodeInfo], ends: np.ndarray) -> int:
        """Returns the new length of the JSON texts."""
        for key, values in facts.items():
            self._chunks[key].write(self.n_episodes, values)
        texts = [provenance_text(info) for info in infos]
        self._chunks[PROVENANCE.key].write(self._provenance_bytes, np.frombuffer(b"".join(texts), np.uint8))
        text_ends = self._provenance_bytes + np.cumsum([len(text) for text in texts])
        self._chunks[PROVENANCE_ENDS.key].write(self.n_episodes, text_ends)
        self._chunks[EPISODE_ENDS.key].write(self.n_episodes, ends)
        return int(text_ends[-1])

    def _has_committed(self, episodes: int) -> bool:
        """Whether the disk says so."""
        try:
            return len(read_ends(self._root, self.where)) == episodes
        except TandemError:
            return False


def vacant(path: str | os.PathLike[str]) -> bool:
    """Whether a store can begin there without adding to anything or hiding it.

    So it is where there is nothing, an empty folder, a store without episodes, or what a killed creation left.
    """
    root = os.fspath(path)
    if not os.path.lexists(root):
        return True
    if not os.path.isdir(root):
        return False
    if os.path.exists(os.path.join(root, ROOT_FILE)):
        read_root(root, f"store {root}")
        return not len(read_ends(root, f"store {root}"))
    if set(os.listdir(root)) - {"data", "meta", ROOT_FILE + PARTIAL}:
        return False
    return os.path.exists(os.path.join(root, LOCK)) or not any(files for _, _, files in os.walk(root))


def _pretty(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()
