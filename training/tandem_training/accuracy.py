"""How well predicted actions hit the true ones, and whether they point the right way."""

from dataclasses import dataclass

import numpy as np

from tandem_datasets.embodiment import ActionKind, Embodiment

SAME_WAY = 0.8  # cosine above which two directions count as equal: within 36.9 degrees
STANDS = 0.1  # of the action's range: a shorter target has no direction
STAYS = 0.5  # of the action's range: a shorter prediction is nearer to standing than to any direction


@dataclass(frozen=True)
class Directions:
    """Predictions (N, A) whose action is a displacement, compared with their targets."""

    moves: np.ndarray  # (N,) bool, the target has a direction
    cosine: np.ndarray  # (N,) float64; 0 where it has none
    right: np.ndarray  # (N,) bool, points the right way, or stays where the target stands


def are_directions(embodiment: Embodiment) -> bool:
    """Whether an action is a displacement in a plane or in space: two or three relative scalars of one unit."""
    scalars = embodiment.action
    relative = all(scalar.kind is not ActionKind.ABSOLUTE for scalar in scalars)
    return 2 <= len(scalars) <= 3 and len({scalar.unit for scalar in scalars}) == 1 and relative


def directions(embodiment: Embodiment, ours: np.ndarray, theirs: np.ndarray) -> Directions:
    """Predictions and targets (N, A) in units, of an embodiment of which :func:`are_directions` holds."""
    reach = max(max(abs(scalar.low), abs(scalar.high)) for scalar in embodiment.action)
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    length, wanted = np.linalg.norm(ours, axis=-1), np.linalg.norm(theirs, axis=-1)
    moves = wanted > STANDS * reach
    cosine = np.where(moves, (ours * theirs).sum(-1) / np.maximum(length * wanted, 1e-12), 0.0)
    return Directions(moves, cosine, np.where(moves, cosine > SAME_WAY, length < STAYS * reach))


def errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Euclidean distances (...,) between actions (..., A) in units."""
    return np.linalg.norm(ours.astype(np.float64) - theirs.astype(np.float64), axis=-1)
