"""Parts of a store to learn from, to validate and to test on: whole episodes, by chance or by task, seeded."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.store import Store

BY_EPISODE, BY_TASK = "episode", "task"
_STREAM = 5  # of random numbers, so that one seed serves several purposes


def split(store: Store, fractions: Mapping[str, float], by: str = BY_EPISODE, seed: int = 0) -> dict[str, np.ndarray]:
    """The store's episodes in parts, those left out that are marked as deleted.

    Args:
        store: what is split.
        fractions: of each part by its name, in all 1: ``{"train": 0.9, "validation": 0.1}``.
        by: "episode", or "task": episodes with one instruction all go to one part, and fractions are of the tasks, so
            that a part holds tasks that the others have never seen.
        seed: of the shuffling; what belongs where depends on it, the fractions and the uuids of the episodes or the
            wordings of the tasks only, not on the order in which they were recorded.

    Returns:
        Indices of episodes of each part, int64, ascending; every part holds at least one episode or task.

    Raises:
        TandemError: fractions that are not positive or not 1 in all, a seed below 0, or fewer episodes or tasks than
            parts.
    """
    where = f"{store.where}: split"
    values = list(fractions.values())
    if not values or not all(np.isfinite(value) and value > 0 for value in values) or abs(sum(values) - 1) > 1e-6:
        raise TandemError(f"{where}: fractions are {dict(fractions)} (allowed: positive, in all 1)")
    if by not in (BY_EPISODE, BY_TASK):
        raise unknown(f"{where}: by", by, (BY_EPISODE, BY_TASK))
    if seed < 0:
        raise TandemError(f"{where}: seed is {seed} (allowed: a whole number from 0)")
    kept = store.kept
    if by == BY_TASK:
        names = np.array(store.episode_texts("task"), object)[kept]
    else:
        names = np.array([uuid.tobytes().hex() for uuid in store.load_episodes("uuid")[kept]], object)
    units = sorted(set(names.tolist()))
    if len(units) < len(fractions):
        raise TandemError(f"{where}: {len(units)} {by}s for {len(fractions)} parts (allowed: at least one {by} each)")
    order = np.random.default_rng([seed, _STREAM]).permutation(len(units))
    owner = np.repeat(np.arange(len(fractions)), _counts(values, len(units)))
    part_of = {units[unit]: int(part) for unit, part in zip(order.tolist(), owner, strict=True)}
    parts = np.array([part_of[name] for name in names], np.int64)
    return {name: kept[parts == part] for part, name in enumerate(fractions)}


def _counts(fractions: list[float], total: int) -> np.ndarray:
    """How many each part gets: in all ``total``, each at least one, else as the fractions say (largest remainders)."""
    exact = [Fraction(value).limit_denominator(10**6) * total for value in fractions]
    counts = np.array([max(1, int(value)) for value in exact])
    while (missing := total - int(counts.sum())) != 0:
        gaps = [float(value) - count for value, count in zip(exact, counts.tolist(), strict=True)]
        if missing > 0:
            counts[int(np.argmax(gaps))] += 1
        else:
            rich = [gap if count > 1 else np.inf for gap, count in zip(gaps, counts.tolist(), strict=True)]
            counts[int(np.argmin(rich))] -= 1
    return counts
