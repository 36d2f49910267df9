"""The reader of an episode store. Opening one reads three small files; everything else is read when asked for."""

import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np

from tandem_datasets.checksums import checksum_of
from tandem_datasets.episode import frames_from_arrays
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.facts import NAMED, infos_from_rows, texts_by_code
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.layout import (
    EPISODE_COLUMNS,
    INSTRUCTIONS,
    NAMES,
    PROVENANCE,
    PROVENANCE_ENDS,
    Column,
    frame_columns,
)
from tandem_datasets.places import place_of
from tandem_datasets.reading import read_array, read_declared, read_ends, read_root, read_stored, read_texts
from tandem_datasets.rows import ColumnRows


class Store:
    """Committed episodes of one store, as they were when it was opened or last refreshed.

    A recorder may go on writing meanwhile. Objects can be pickled into worker processes.

    Args:
        path: a folder, or a URL that fsspec knows: ``memory://``, ``http(s)://``, ``s3://`` ... It is only read.

    Raises:
        TandemError: from any member: there is no store, it is damaged, foreign or of a newer schema.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        self._where = f"store {path}"
        self._place = place_of(path)
        self.embodiment, codec = read_root(self._place, self._where)
        self.codec = codec.name
        self._columns = frame_columns(self.embodiment, codec)
        self._checked: set[str] = set()  # columns whose zarr.json was found right
        self._ends = np.zeros(0, np.int64)
        self.refresh()

    @property
    def path(self) -> Path:
        """The store's folder; raises TandemError if it is remote."""
        if self._place.local is None:
            raise TandemError(f"{self._where}: it is remote (allowed: a folder of this machine)")
        return Path(self._place.local)

    @property
    def remote(self) -> bool:
        """Whether it is read through a URL; then it can only be read."""
        return self._place.local is None

    @property
    def where(self) -> str:
        """What errors about it begin with."""
        return self._where

    def refresh(self) -> int:
        """Takes in what was committed since; returns the number of new episodes."""
        ends = read_ends(self._place, self._where)
        known = len(self._ends)
        if len(ends) < known or (ends[:known] != self._ends).any():
            raise TandemError(f"{self._where}: it was replaced by another while it was open")
        ends.setflags(write=False)
        self._ends = ends
        self._tables: dict[str, list[str]] = {}
        self._kept: np.ndarray | None = None
        self._digest: str | None = None
        return len(ends) - known

    @property
    def n_episodes(self) -> int:
        return len(self._ends)

    @property
    def n_frames(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def episode_ends(self) -> np.ndarray:
        """Cumulative frame counts, int64 (N,), read-only: episode i has rows ``ends[i-1]..ends[i]-1``."""
        return self._ends

    @property
    def keys(self) -> list[str]:
        """What :meth:`load` takes."""
        return list(self._columns)

    @property
    def kept(self) -> np.ndarray:
        """Episodes that are not marked as deleted, int64, as the marks were at the last :meth:`refresh`."""
        if self._kept is None:
            self._kept = np.flatnonzero(~self.load_episodes("deleted")).astype(np.int64)
            self._kept.setflags(write=False)
        return self._kept

    @property
    def instructions(self) -> list[str]:
        """Wordings by their code in ``load("instruction")`` and ``load_episodes("task")``; some may be unused."""
        return self._table(INSTRUCTIONS)

    @property
    def names(self) -> list[str]:
        """Texts by their code in ``load_episodes`` of outcome, failure_reason and env, and in ``load("subgoal")``.

        Some may be unused.
        """
        return self._table(NAMES)

    @property
    def digest(self) -> str:
        """A short hash of embodiment, episode ends, facts, texts and checksums: it names the committed content."""
        if self._digest is None:
            parts = hashlib.sha256(self.embodiment.digest.encode())
            parts.update(self._ends.astype("<i8").tobytes())
            for key in ("uuid", "seed", "success", "deleted", "begin_ns", "end_ns", "checksum"):
                parts.update(self.load_episodes(key).tobytes())
            for key in ("task", *NAMED):
                parts.update(json.dumps(self.episode_texts(key)).encode())
            tables = [self.instructions, self.names if "subgoal" in self._columns else []]
            parts.update(json.dumps(tables).encode())  # the checksums of frames know them by number only
            parts.update(b"".join(self._provenance(0, self.n_episodes)))
            self._digest = parts.hexdigest()[:16]
        return self._digest

    def load(self, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Committed rows of ``data/<key>`` as one array (T, ...); all of them, or rows ``start..stop-1``."""
        column = self._frame_column(key)
        stop = self.n_frames if stop is None else stop
        if not 0 <= start <= stop <= self.n_frames:
            raise TandemError(f"{self._where}: rows {start}..{stop} (allowed: within 0..{self.n_frames})")
        return self._read(column, start, stop)

    def stored(self, key: str, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Rows of ``data/<key>`` as they lie on the disk: each encoded image, or all numbers as one."""
        column = self._frame_column(key)
        self._check(column)
        return read_stored(self._place, column, start, self.n_frames if stop is None else stop, self._where)

    def rows(self, key: str, threads: int = 0) -> ColumnRows:
        """The committed rows of ``data/<key>`` as an array (T, ...) that is read when it is indexed.

        ``threads`` read and decode what is asked for at once; 0: none but the caller's.
        """
        column = self._frame_column(key)
        self._check(column)
        return ColumnRows(self._place, column, self.n_frames, self._where, threads)

    def load_episodes(self, key: str) -> np.ndarray:
        """One number per committed episode, (N,), marked ones among them.

        ``seed``, ``success``, ``deleted``, ``begin_ns``, ``end_ns``, ``checksum``, ``uuid`` as bytes (N, 16); and the
        codes ``task`` (of :attr:`instructions`), ``outcome``, ``failure_reason`` and ``env`` (of :attr:`names`).
        """
        columns = {column.key.removeprefix("meta/"): column for column in EPISODE_COLUMNS}
        if key not in columns:
            raise unknown(f"{self._where}: load_episodes", key, columns)
        return self._read(columns[key], 0, self.n_episodes)

    def episode_texts(self, key: str) -> list[str]:
        """One text per committed episode: ``task``, ``outcome``, ``failure_reason`` or ``env``."""
        if key not in ("task", *NAMED):
            raise unknown(f"{self._where}: episode_texts", key, ("task", *NAMED))
        return self._texts(key, self.load_episodes(key))

    def verify(self, *episodes: int) -> None:
        """Raises TandemError unless the stored rows of these episodes are byte for byte what was committed."""
        spans = {episode: self.episode_slice(episode) for episode in episodes}
        first = min((rows.start for rows in spans.values()), default=0)
        last = max((rows.stop for rows in spans.values()), default=0)
        numbers = {key: self.load(key, first, last) for key, column in self._columns.items() if column.codec is None}
        recorded = self.load_episodes("checksum")
        for episode, rows in spans.items():
            stored: dict[str, list[bytes]] = {}  # in the order of the columns
            for key in self._columns:
                if key in numbers:
                    stored[key] = [numbers[key][rows.start - first : rows.stop - first].tobytes()]
                else:
                    stored[key] = self.stored(key, rows.start, rows.stop)
            found, wanted = checksum_of(stored), int(recorded[episode])
            if found != wanted:
                raise TandemError(
                    f"{self._where}: episode {episode} is damaged (its checksum is {found:08x}, recorded was "
                    f"{wanted:08x}; `tandem data validate` tells more, repair=true marks it as deleted)"
                )

    def episode_slice(self, episode: int) -> slice:
        """The episode's rows."""
        if not 0 <= episode < self.n_episodes:
            raise TandemError(f"{self._where}: no episode {episode} (allowed: 0..{self.n_episodes - 1})")
        return slice(int(self._ends[episode - 1]) if episode else 0, int(self._ends[episode]))

    def info(self, episode: int) -> EpisodeInfo:
        """The facts of one episode."""
        self.episode_slice(episode)
        return self._infos(episode, episode + 1)[0]

    def infos(self) -> list[EpisodeInfo]:
        """The facts of all episodes."""
        return self._infos(0, self.n_episodes)

    def frames(self, episode: int) -> list[Frame]:
        """The steps of one episode as they were recorded, every stream with its own stamp."""
        rows = self.episode_slice(episode)
        arrays = {key: self.load(key, rows.start, rows.stop) for key in self._columns}
        where = f"{self._where}: episode {episode}"
        return frames_from_arrays(self.embodiment, arrays, self.instructions, where, self.subgoals(episode))

    def subgoals(self, episode: int) -> list[str]:
        """What the expert was about in each frame of an episode; empty where the embodiment tells no subgoals."""
        if "subgoal" not in self._columns:
            return []
        rows = self.episode_slice(episode)
        return self._coded(self.load("subgoal", rows.start, rows.stop), NAMES, f"episode {episode}: subgoal")

    def _frame_column(self, key: str) -> Column:
        column = self._columns.get(key.removeprefix("data/"))
        if column is None:
            raise unknown(f"{self._where}: load", key, self._columns)
        return column

    def _infos(self, start: int, stop: int) -> list[EpisodeInfo]:
        rows = {column.key: self._read(column, start, stop) for column in EPISODE_COLUMNS}
        texts = {key: self._texts(key, rows[f"meta/{key}"]) for key in ("task", *NAMED)}
        texts["instruction"] = texts.pop("task")
        where = f"{self._where}: episode {start}" if stop - start == 1 else self._where
        return infos_from_rows(rows, texts, self._provenance(start, stop), where)

    def _texts(self, key: str, codes: np.ndarray) -> list[str]:
        return self._coded(codes, INSTRUCTIONS if key == "task" else NAMES, f"meta/{key}")

    def _coded(self, codes: np.ndarray, table: Column, what: str) -> list[str]:
        if len(codes) and codes.max() >= len(self._table(table)):
            del self._tables[table.key]  # a writer may have added to it since
        return texts_by_code(codes, self._table(table), f"{self._where}: {what}")

    def _provenance(self, start: int, stop: int) -> list[bytes]:
        first = max(start - 1, 0)  # the end of the episode before is this one's begin
        ends = self._read(PROVENANCE_ENDS, first, stop).tolist()
        bounds = ends if start else [0, *ends]
        if bounds[0] < 0 or any(a >= b for a, b in pairwise(bounds)):
            raise TandemError(f"{self._where}: {PROVENANCE_ENDS.key} is damaged (allowed: growing counts)")
        text = self._read(PROVENANCE, bounds[0], bounds[-1]).tobytes()
        return [text[a - bounds[0] : b - bounds[0]] for a, b in pairwise(bounds)]

    def _table(self, table: Column) -> list[str]:
        if table.key not in self._tables:
            rows = read_declared(self._place, table, self._where)
            self._tables[table.key] = read_texts(self._place, table, 0, rows, self._where)
        return self._tables[table.key]

    def _read(self, column: Column, start: int, stop: int) -> np.ndarray:
        self._check(column)
        return read_array(self._place, column, start, stop, self._where)

    def _check(self, column: Column) -> None:
        if column.key not in self._checked:
            read_declared(self._place, column, self._where)
            self._checked.add(column.key)
