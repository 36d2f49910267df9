"""The disk side of recording: makes a store, recovers it, and commits checked episodes.

Order of a commit: every row past the committed ones -> the disk has them -> tail shards are renamed, the
arrays' new shapes written -> the new shape of ``meta/episode_ends`` is renamed into place. Only that last step
is the commit; before it nothing that readers trust has changed.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.checksums import checksum_of
from tandem_datasets.chunks import ChunkWriter
from tandem_datasets.codecs import Codec, encode_text
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.episode import OpenEpisode
from tandem_datasets.errors import TandemError
from tandem_datasets.facts import fact_rows, provenance_text, texts_of
from tandem_datasets.files import PARTIAL, Syncer, WriterLock, open_data, replace_file, write_all_at, write_file
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
from tandem_datasets.reading import (
    ROOT_FILE,
    metadata_path,
    read_array,
    read_declared,
    read_ends,
    read_root,
    read_texts,
)
from tandem_datasets.shards import ShardWriter

_TABLES = (INSTRUCTIONS, NAMES)
_LOCK = os.path.join(EPISODE_ENDS.key, "writer.lock")  # plain Zarr looks for no names in an array's folder


class StoreWriter:
    """Holds a store open for writing, alone. See ``recorder.Recorder`` for arguments and errors."""

    def __init__(self, path: Path, embodiment: Embodiment, codec: Codec, exist_ok: bool, sync: bool) -> None:
        self.n_episodes = 0  # committed
        self.n_frames = 0  # committed
        self.where = f"store {path}"
        self._root = str(path)
        self._provenance_bytes = 0  # committed rows of meta/provenance
        self._codes: dict[str, dict[str, int]] = {}  # text -> its row, per table
        self._frame_columns = frame_columns(embodiment, codec)
        meta = (*EPISODE_COLUMNS, PROVENANCE_ENDS, PROVENANCE)
        self._grown = (*meta, *self._frame_columns.values())  # at each commit, in place
        self._columns = (EPISODE_ENDS, *_TABLES, *self._grown)
        self._check_place(exist_ok)
        os.makedirs(os.path.join(self._root, EPISODE_ENDS.key), exist_ok=True)
        self._lock = WriterLock(Path(self._root, _LOCK), self.where)
        self._syncer = Syncer(sync)
        where, syncer = self.where, self._syncer
        self._shards = {c.key: ShardWriter(self._root, c, where, syncer) for c in self._columns if c.sharded}
        self._chunks = {c.key: ChunkWriter(self._root, c, where, syncer) for c in self._columns if not c.sharded}
        self._shape_files: dict[str, int] = {}  # column -> descriptor of its zarr.json
        try:
            if os.path.exists(os.path.join(self._root, ROOT_FILE)):
                self._check_same(embodiment, codec)
            else:
                self._create(embodiment, codec)
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
        last = read_array(self._root, PROVENANCE_ENDS, max(len(ends) - 1, 0), len(ends), self.where)
        self._provenance_bytes = int(last[0]) if len(last) else 0
        known = {table.key: read_declared(self._root, table, self.where) for table in _TABLES}
        for column in self._columns:
            writer = self._shards[column.key] if column.sharded else self._chunks[column.key]
            writer.recover(known[column.key] if column in _TABLES else self._committed(column))
        for column in self._grown:
            self._repair_shape(column)
        for table in _TABLES:
            texts = read_texts(self._root, table, 0, known[table.key], self.where)
            self._codes[table.key] = {text: code for code, text in enumerate(texts)}

    def commit(self, finished: Sequence[tuple[OpenEpisode, EpisodeInfo]]) -> None:
        """Appends episodes, all or none. After any exception call :meth:`recover` before anything else."""
        infos = [info for _, info in finished]
        wordings = [text for episode, info in finished for text in (info.instruction, *episode.instructions)]
        self._add_texts(INSTRUCTIONS, wordings)
        self._add_texts(NAMES, texts_of(infos))
        episodes = self.n_episodes + len(finished)
        ends = self.n_frames + np.cumsum([len(episode) for episode, _ in finished])
        frames = int(ends[-1])
        checksums = self._append_frames([episode for episode, _ in finished])
        provenance_bytes = self._append_facts(infos, checksums)
        self._chunks[EPISODE_ENDS.key].append(self.n_episodes, ends)
        commit_file = metadata_path(self._root, EPISODE_ENDS)
        write_file(commit_file + PARTIAL, (EPISODE_ENDS.metadata_bytes(episodes),), self._syncer)
        self._syncer.flush()
        for shards in self._shards.values():
            shards.publish()
        self._syncer.flush()
        for column in self._grown:
            in_data = column.key.startswith("data/")
            rows = frames if in_data else provenance_bytes if column is PROVENANCE else episodes
            self._grow_shape(column, rows)
        os.replace(commit_file + PARTIAL, commit_file)  # the commit
        self._syncer.note_folder(os.path.dirname(commit_file))
        self._syncer.flush()
        self.n_episodes, self.n_frames, self._provenance_bytes = episodes, frames, provenance_bytes

    def close(self) -> None:
        """Gives the store back."""
        try:
            self._close_shape_files()
            for chunks in self._chunks.values():
                chunks.close()
            self._syncer.close()
        finally:
            self._lock.release()

    # -- making and checking

    def _check_place(self, exist_ok: bool) -> None:
        """Raises TandemError if the path holds anything but a store, or one that is not wanted there."""
        root = self._root
        if not os.path.lexists(root):
            return
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

    def _create(self, embodiment: Embodiment, codec: Codec) -> None:
        """Makes an empty store; its top ``zarr.json`` comes last, and without it there is no store."""
        for column in self._columns:
            os.makedirs(os.path.join(self._root, column.key), exist_ok=True)
            write_file(metadata_path(self._root, column), (column.metadata_bytes(0),), self._syncer)
            self._syncer.note_folder(os.path.join(self._root, column.key))
        for group in ("data", "meta"):
            replace_file(os.path.join(self._root, group, ROOT_FILE), _pretty(GROUP_METADATA), self._syncer)
        replace_file(os.path.join(self._root, ROOT_FILE), _pretty(root_metadata(embodiment, codec)), self._syncer)
        self._syncer.note_folder(os.path.dirname(self._root))
        self._syncer.flush()

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
            self._shape_files[column.key] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        count = memoryview(column.count_bytes(rows))
        write_all_at(self._shape_files[column.key], count, column.count_offset)

    def _close_shape_files(self) -> None:
        for descriptor in self._shape_files.values():
            os.close(descriptor)
        self._shape_files = {}

    # -- rows

    def _append_frames(self, episodes: Sequence[OpenEpisode]) -> list[int]:
        """Returns the episodes' checksums."""
        for name in episodes[0].images:
            encoded = [data for episode in episodes for data in episode.images[name]]
            self._shards[f"data/{name}"].append(self.n_frames, encoded)
        parts = [episode.arrays(self._codes[INSTRUCTIONS.key]) for episode in episodes]
        for key in parts[0]:
            values = np.concatenate([arrays[key] for arrays in parts])
            self._chunks[f"data/{key}"].append(self.n_frames, values)
        checksums = []
        for episode, arrays in zip(episodes, parts, strict=True):
            stored = {key: episode.images.get(key) or [arrays[key].tobytes()] for key in self._frame_columns}
            checksums.append(checksum_of(stored))
        return checksums

    def _append_facts(self, infos: Sequence[EpisodeInfo], checksums: Sequence[int]) -> int:
        """Returns the new length of the JSON texts."""
        codes = [self._codes[table.key] for table in _TABLES]
        for key, values in fact_rows(infos, checksums, *codes).items():
            self._chunks[key].append(self.n_episodes, values)
        texts = [provenance_text(info) for info in infos]
        self._chunks[PROVENANCE.key].append(self._provenance_bytes, np.frombuffer(b"".join(texts), np.uint8))
        ends = self._provenance_bytes + np.cumsum([len(text) for text in texts])
        self._chunks[PROVENANCE_ENDS.key].append(self.n_episodes, ends)
        return int(ends[-1])

    def _add_texts(self, table: Column, texts: list[str]) -> None:
        """Numbers the texts that are new. Should the commit fail, they stay in the table and do no harm."""
        codes = self._codes[table.key]
        new = [text for text in dict.fromkeys(texts) if text not in codes]
        if new:
            shards, rows = self._shards[table.key], len(codes)
            shards.append(rows, [encode_text(text) for text in new])
            self._syncer.flush()
            shards.publish()
            replace_file(metadata_path(self._root, table), table.metadata_bytes(rows + len(new)), self._syncer)
            codes.update({text: rows + k for k, text in enumerate(new)})


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
    return os.path.exists(os.path.join(root, _LOCK)) or not any(files for _, _, files in os.walk(root))


def _pretty(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()
