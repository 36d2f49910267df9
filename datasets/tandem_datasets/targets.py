"""What each frame teaches, and how far a chunk of such targets may reach."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source


class Origin(IntEnum):
    """Where a frame's target comes from."""

    NONE = 0  # nothing to learn from: a policy acted, or nobody, and no expert was asked
    EXECUTED = 1  # an expert or a person acted
    LABEL = 2  # what an expert would have done


def origins(has_label: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Each frame's :class:`Origin`, uint8 (N,): a label where there is one, else what an expert or a person did."""
    acted = np.isin(source, (Source.EXPERT, Source.PERSON))
    kinds = np.where(has_label, Origin.LABEL, np.where(acted, Origin.EXECUTED, Origin.NONE))
    return kinds.astype(np.uint8)


def targets(
    action: np.ndarray, label: np.ndarray, has_label: np.ndarray, source: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each frame teaches, (N, A), and its :class:`Origin`, (N,). What a policy did teaches nothing."""
    return np.where(has_label[:, None], label, action), origins(has_label, source)


def require_finite(values: np.ndarray, rows: np.ndarray, key: str, where: str) -> None:
    """Raises TandemError unless all ``values`` (..., D) of ``data/<key>``, those of ``rows`` (...), are finite.

    No recorder takes anything else, so the file is damaged. What changed and still is a number only the checksums show.
    """
    fine = np.isfinite(values)
    if not fine.all():
        row = int(rows[~fine.all(-1)][0])
        raise TandemError(
            f"{where}: data/{key} is damaged (row {row} is not finite; `tandem data validate` tells more)"
        )


def stretches(*columns: np.ndarray) -> np.ndarray:
    """One past the last row of each stretch in which no column (N,) changes, int64, ascending."""
    count = len(columns[0])
    changes = np.zeros(max(count - 1, 0), bool)
    for column in columns:
        changes |= column[1:] != column[:-1]
    return np.append(np.flatnonzero(changes) + 1, count).astype(np.int64)


def runs(origin: np.ndarray, episode: np.ndarray, instruction: np.ndarray) -> np.ndarray:
    """Per frame one past the last frame that a chunk from it may reach, int64 (N,).

    A run is a stretch of one episode with targets of one origin and one instruction: a label answers the frame that it
    stands on, so it does not continue what was executed, nor does an action for the next instruction.
    """
    ends = stretches(origin, episode, instruction)
    return ends[np.searchsorted(ends, np.arange(len(origin)), side="right")]


def episode_rows(ends: np.ndarray, episodes: Sequence[int] | np.ndarray) -> np.ndarray:
    """The rows of some episodes, in their order, int64; ``ends`` are cumulative frame counts of all."""
    starts = np.append(0, ends[:-1])
    parts = [np.arange(starts[episode], ends[episode]) for episode in episodes]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
