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

from tandem_datasets.chunks import ChunkWriter
from tandem_datasets.codecs import Codec, encode_text
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.episode import OpenEpisode, info_to_json
from tandem_datasets.errors import TandemError
from tandem_datasets.files import PARTIAL, Syncer, WriterLock, open_data, replace_file, write_all_at, write_file
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.layout import (
    EPISODE_ENDS,
    EPISODE_NUMBERS,
    GROUP_METADATA,
    INFO,
    INFO_ENDS,
    INSTRUCTIONS,
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

_LOCK = os.path.join(EPISODE_ENDS.key, "writer.lock")  # plain Zarr looks for no names in an array's folder


class StoreWriter:
    """Holds a store open for writing, alone. See ``recorder.Recorder`` for arguments and errors."""

    def __init__(self, path: Path, embodiment: Embodiment, codec: Codec, exist_ok: bool, sync: bool) -> None:
        self.n_episodes = 0  # committed
        self.n_frames = 0  # committed
        self.where = f"store {path}"
        self._root = str(path)
        self._info_bytes = 0  # committed rows of meta/info
        self._codes: dict[str, int] = {}  # wording -> its row in meta/instructions
        self._frame_columns = frame_columns(embodiment, codec)
        self._grown = (*EPISODE_NUMBERS, INFO_ENDS, INFO, *self._frame_columns.values())  # at each commit, in place
        self._columns = (EPISODE_ENDS, INSTRUCTIONS, *self._grown)
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
        info_ends = read_array(self._root, INFO_ENDS, max(len(ends) - 1, 0), len(ends), self.where)
        self._info_bytes = int(info_ends[0]) if len(info_ends) else 0
        known = read_declared(self._root, INSTRUCTIONS, self.where)
        for column in self._columns:
            rows = known if column is INSTRUCTIONS else self._committed(column)
            writer = self._shards[column.key] if column.sharded else self._chunks[column.key]
            writer.recover(rows)
        for column in self._grown:
            self._repair_shape(column)
        texts = read_texts(self._root, INSTRUCTIONS, 0, known, self.where)
        self._codes = {text: code for code, text in enumerate(texts)}

    def commit(self, finished: Sequence[tuple[OpenEpisode, EpisodeInfo]]) -> None:
        """Appends episodes, all or none. After any exception call :meth:`recover` before anything else."""
        self._add_wordings([text for episode, _ in finished for text in episode.instructions])
        episodes = self.n_episodes + len(finished)
        ends = self.n_frames + np.cumsum([len(episode) for episode, _ in finished])
        frames, info_bytes = int(ends[-1]), self._append_infos([info for _, info in finished])
        self._append_frames([episode for episode, _ in finished])
        self._chunks[EPISODE_ENDS.key].append(self.n_episodes, ends)
        commit_file = metadata_path(self._root, EPISODE_ENDS)
        write_file(commit_file + PARTIAL, (EPISODE_ENDS.metadata_bytes(episodes),), self._syncer)
        self._syncer.flush()
        for shards in self._shards.values():
            shards.publish()
        self._syncer.flush()
        for column in self._grown:
            rows = frames if column.key.startswith("data/") else info_bytes if column is INFO else episodes
            self._grow_shape(column, rows)
        os.replace(commit_file + PARTIAL, commit_file)  # the commit
        self._syncer.note_folder(os.path.dirname(commit_file))
        self._syncer.flush()
        self.n_episodes, self.n_frames, self._info_bytes = episodes, frames, info_bytes

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
        if column is INFO:
            return self._info_bytes
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

    def _append_frames(self, episodes: Sequence[OpenEpisode]) -> None:
        for name in episodes[0].images:
            encoded = [data for episode in episodes for data in episode.images[name]]
            self._shards[f"data/{name}"].append(self.n_frames, encoded)
        parts = [episode.arrays(self._codes) for episode in episodes]
        for key in parts[0]:
            values = np.concatenate([arrays[key] for arrays in parts])
            self._chunks[f"data/{key}"].append(self.n_frames, values)

    def _append_infos(self, infos: Sequence[EpisodeInfo]) -> int:
        """Returns the new length of the JSON texts."""
        for column in EPISODE_NUMBERS:
            values = [getattr(info, column.key.removeprefix("meta/")) for info in infos]
            self._chunks[column.key].append(self.n_episodes, np.array(values, column.dtype))
        texts = [info_to_json(info) for info in infos]
        self._chunks[INFO.key].append(self._info_bytes, np.frombuffer(b"".join(texts), np.uint8))
        ends = self._info_bytes + np.cumsum([len(text) for text in texts])
        self._chunks[INFO_ENDS.key].append(self.n_episodes, ends)
        return int(ends[-1])

    def _add_wordings(self, instructions: list[str]) -> None:
        """Numbers the texts that are new. Should the commit fail, they stay in the table and do no harm."""
        new = [text for text in dict.fromkeys(instructions) if text not in self._codes]
        if new:
            shards, rows = self._shards[INSTRUCTIONS.key], len(self._codes)
            shards.append(rows, [encode_text(text) for text in new])
            self._syncer.flush()
            shards.publish()
            replace_file(
                metadata_path(self._root, INSTRUCTIONS), INSTRUCTIONS.metadata_bytes(rows + len(new)), self._syncer
            )
            self._codes.update({text: rows + k for k, text in enumerate(new)})


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
