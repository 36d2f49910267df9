"""Training windows out of a store: some observations up to a frame, and the actions from there on.

An observation window reaches back within its episode, padded with its first frame. An action chunk reaches forward
within its run (see :mod:`targets`), padded with the run's last action. Both say which of their steps are padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import Source
from tandem_datasets.rows import Buffers, ColumnRows
from tandem_datasets.store import Store
from tandem_datasets.targets import Origin, episode_rows, origins, require_finite, stretches

TARGETS, EXECUTED = "targets", "executed"
SOURCES = {"label": 255, **{source.name.lower(): int(source) for source in Source}}
"""Who a window's first action is from, by name: an expert's label, or who acted (see :class:`frames.Source`)."""

_IN_MEMORY = 256 << 20  # bytes of one numeric column that are held in memory; larger ones are read when asked for


@dataclass(frozen=True)
class WindowSpec:
    """What a window is. Contradictions are refused on construction."""

    history: int = 1  # observations, the last one at the window's frame
    chunk: int = 1  # actions from the window's frame on
    cameras: tuple[str, ...] | None = None  # None: all
    learn: str = TARGETS  # or EXECUTED: what was done, whoever acted, in windows on every frame
    cross_runs: bool = False  # whether a chunk may go on where targets change origin or instruction (not the episode)
    stride: int = 1  # every so many frames of a run a window begins
    spacing: int = 1  # frames between two observations of the history

    def __post_init__(self) -> None:
        for key in ("history", "chunk", "stride", "spacing"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TandemError(f"windows: {key} is {value!r} (allowed: a whole number, at least 1)")
        if self.learn not in (TARGETS, EXECUTED):
            raise unknown("windows: learn", str(self.learn), (TARGETS, EXECUTED))


class WindowReader:
    """Windows of one store by their number. Can be pickled; threads may share it.

    Args:
        store: where they come from; what is committed later is not seen.
        spec: what a window is.
        episodes: of these only; None: all that are not marked as deleted.
        threads: that decode one batch; 0: none but the caller's.

    Raises:
        TandemError: an unknown camera or episode, a store that is damaged or without actions.
    """

    def __init__(
        self,
        store: Store,
        spec: WindowSpec | None = None,
        episodes: Sequence[int] | np.ndarray | None = None,
        threads: int = 0,
    ) -> None:
        self.store, self.spec = store, spec or WindowSpec()
        known = [camera.name for camera in store.embodiment.cameras]
        self.cameras = tuple(known) if self.spec.cameras is None else self.spec.cameras
        for name in self.cameras:
            if name not in known:
                raise unknown(f"{store.where}: windows: camera", name, known)
        if not store.embodiment.action:
            raise TandemError(f"{store.where}: windows: its episodes have no action (allowed: stores with actions)")
        self.episodes = _chosen(store, episodes)
        self._images = {name: store.rows(name, threads) for name in self.cameras}
        self._vectors = {key: _vectors(store, key) for key in ("state", "action")}
        self._buffers = Buffers()
        self._begin()

    def _begin(self) -> None:
        """Finds where windows begin and runs end."""
        store, ends = self.store, self.store.episode_ends
        self._has_label, self._source = store.load("has_label"), store.load("source")
        self._instruction = store.load("instruction")
        count = len(store.instructions)
        if len(self._instruction) and (self._instruction.min() < 0 or self._instruction.max() >= count):
            raise TandemError(f"{store.where}: data/instruction is damaged (allowed: codes 0..{count - 1})")
        learns = self.spec.learn == TARGETS
        origin = origins(self._has_label, self._source) if learns else np.full(store.n_frames, Origin.EXECUTED)
        if learns and self._has_label.any():
            self._vectors["action_label"] = _vectors(store, "action_label")
        episode = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        if self.spec.cross_runs or not learns:
            self._run_ends = stretches(origin != Origin.NONE, episode)
        else:
            self._run_ends = stretches(origin, episode, self._instruction)
        rows = episode_rows(ends, self.episodes)
        rows = rows[origin[rows] != Origin.NONE]
        if self.spec.stride > 1:
            run = np.searchsorted(self._run_ends, rows, side="right")
            begins = np.append(0, self._run_ends)[run]
            rows = rows[(rows - begins) % self.spec.stride == 0]
        self.frames = rows

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def instructions(self) -> list[str]:
        """Texts by the codes that :meth:`read` gives as ``instruction``."""
        return self.store.instructions

    @property
    def sources(self) -> np.ndarray:
        """Who each window's first action is from, uint8 (N,), as :data:`SOURCES` numbers them."""
        source = self._source[self.frames]
        if self.spec.learn == EXECUTED:
            return source
        return np.where(self._has_label[self.frames], SOURCES["label"], source).astype(np.uint8)

    def read(self, windows: Any, empty: Callable[..., np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Several windows as one batch.

        Args:
            windows: their numbers, int (B,), each 0..len - 1.
            empty: makes the arrays for images and vectors, as ``np.empty(shape, dtype)`` does; None: from memory of
                earlier batches that nobody holds any more.

        Returns:
            ``images.<camera>`` (B, T, H, W, C) and ``state`` (B, T, S) float32, T the history, oldest first;
            ``observation_is_pad`` (B, T) bool; ``action`` (B, K, A) float32 in the embodiment's units, K the chunk;
            ``action_is_pad`` (B, K) bool; ``instruction`` (B,) int64, a code of :attr:`instructions`; ``episode`` (B,)
            and ``index`` (B,) int64, the window's frame in the store.
        """
        wanted = np.asarray(windows, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            wrong = wanted[(wanted < 0) | (wanted >= len(self))][0]
            raise TandemError(f"{self.store.where}: windows: number {wrong} (allowed: 0..{len(self) - 1})")
        frames, empty = self.frames[wanted], empty or self._buffers
        seen, seen_is_pad = self.history(frames)
        acted, acted_is_pad = self.chunk(frames)
        batch = {f"images.{name}": _gather(rows, seen, empty) for name, rows in self._images.items()}
        return batch | {
            "state": self._states(seen, empty),
            "observation_is_pad": seen_is_pad,
            "action": self._targets(acted, empty),
            "action_is_pad": acted_is_pad,
            "instruction": self._instruction[frames].astype(np.int64),
            "episode": np.searchsorted(self.store.episode_ends, frames, side="right"),
            "index": frames,
        }

    def history(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the observations (B, T) up to ``frames``, oldest first, and which of them are padding."""
        ends = self.store.episode_ends
        first = np.append(0, ends)[np.searchsorted(ends, frames, side="right")][:, None]
        rows = frames[:, None] - self.spec.spacing * np.arange(self.spec.history - 1, -1, -1)
        return np.maximum(rows, first), rows < first

    def chunk(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the actions (B, K) from ``frames`` on, and which of them are padding."""
        ends = self._run_ends[np.searchsorted(self._run_ends, frames, side="right")][:, None]
        rows = frames[:, None] + np.arange(self.spec.chunk)
        return np.minimum(rows, ends - 1), rows >= ends

    def _states(self, rows: np.ndarray, empty: Callable[..., np.ndarray]) -> np.ndarray:
        found = _gather(self._vectors["state"], rows, empty)
        require_finite(found, rows, "state", self.store.where)
        return found

    def _targets(self, rows: np.ndarray, empty: Callable[..., np.ndarray]) -> np.ndarray:
        found = _gather(self._vectors["action"], rows, empty)
        if "action_label" in self._vectors and (labelled := self._has_label[rows]).any():
            found[labelled] = self._vectors["action_label"][rows[labelled]]
        require_finite(found, rows, "action", self.store.where)
        return found


def _chosen(store: Store, episodes: Sequence[int] | np.ndarray | None) -> np.ndarray:
    if episodes is None:
        return store.kept
    chosen = np.unique(np.asarray(episodes, np.int64))
    if len(chosen) and (chosen[0] < 0 or chosen[-1] >= store.n_episodes):
        wrong = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise TandemError(f"{store.where}: windows: episode {wrong} (allowed: 0..{store.n_episodes - 1})")
    return chosen


def _vectors(store: Store, key: str) -> np.ndarray | ColumnRows:
    rows = store.rows(key)
    return store.load(key) if len(rows) * rows.column.row_bytes <= _IN_MEMORY else rows


def _gather(source: np.ndarray | ColumnRows, rows: np.ndarray, empty: Callable[..., np.ndarray]) -> np.ndarray:
    """``source[rows]`` in an array of ``empty``'s making."""
    out = empty((*rows.shape, *source.shape[1:]), source.dtype)
    flat = out.reshape(-1, *source.shape[1:])
    if isinstance(source, ColumnRows):
        source.read_into(rows.reshape(-1), flat)
    else:
        np.take(source, rows.reshape(-1), axis=0, out=flat, mode="clip")
    return out
