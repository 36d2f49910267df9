"""Endless orders of samples in which every place can be looked up: what a training resumes from is a number."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tandem_datasets.errors import TandemError

_SHUFFLE, _MIX = 2, 4  # streams of random numbers, so that one seed serves several purposes
_BLOCK = 4096  # places among which the groups have exactly their share


class Order(Protocol):
    """Samples by their place, from 0 on without end."""

    def take(self, start: int, stop: int) -> np.ndarray:
        """The samples at places ``start..stop-1``, int64 (stop - start,)."""
        ...


class Shuffled:
    """Epoch after epoch all samples, each epoch in a new order that depends on seed and epoch only.

    Args:
        samples: int64 (N,), from 1 on.
        seed: of the orders.
        shuffle: False: every epoch as they stand.
    """

    def __init__(self, samples: np.ndarray, seed: int, shuffle: bool = True) -> None:
        assert len(samples)
        self._samples, self._seed, self._shuffle = samples, seed, shuffle
        self._epochs: dict[int, np.ndarray] = {}

    def take(self, start: int, stop: int) -> np.ndarray:
        """See :class:`Order`."""
        epochs, offsets = np.divmod(np.arange(start, stop), len(self._samples))
        wanted = range(int(epochs[0]), int(epochs[-1]) + 1) if stop > start else range(0)
        self._epochs = {
            epoch: self._epochs[epoch] if epoch in self._epochs else self._shuffled(epoch) for epoch in wanted
        }
        parts = [self._epochs[epoch][offsets[epochs == epoch]] for epoch in wanted]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _shuffled(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return self._samples
        return np.random.default_rng([self._seed, _SHUFFLE, epoch]).permutation(self._samples)


class Mixed:
    """Groups of samples mixed by weight: each stretch of 4096 places holds a group exactly as often as its share says.

    Within a group its samples come in shuffled epochs of their own, so that a small one is seen as evenly as a large
    one, only more often.

    Args:
        groups: samples of each group, int64, each from 1 on.
        weights: one per group, relative to each other.
        seed: of all orders.
        where: begins the errors.

    Raises:
        TandemError: weights that are not positive numbers, or so unequal that one is no part of 4096.
    """

    def __init__(self, groups: Sequence[np.ndarray], weights: Sequence[float], seed: int, where: str) -> None:
        assert len(groups) == len(weights) > 0
        shares = np.array(weights, np.float64)
        if not np.isfinite(shares).all() or (shares <= 0).any():
            raise TandemError(f"{where}: weights are {list(weights)} (allowed: positive numbers)")
        self._counts = _shares(shares / shares.sum())
        if (self._counts == 0).any():
            raise TandemError(f"{where}: weights are {list(weights)} (allowed: each at least 1/{_BLOCK} of all)")
        self._groups = [Shuffled(group, _derived(seed, k)) for k, group in enumerate(groups)]
        self._seed = seed
        self._block: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    @property
    def shares(self) -> np.ndarray:
        """What part of the samples each group is, float64, in all 1."""
        return self._counts / _BLOCK

    def take(self, start: int, stop: int) -> np.ndarray:
        """See :class:`Order`."""
        out = np.empty(stop - start, np.int64)
        at = start
        while at < stop:
            block, first = divmod(at, _BLOCK)
            last = min(_BLOCK, stop - block * _BLOCK)
            self._fill(block, first, last, out[at - start : at - start + last - first])
            at += last - first
        return out

    def _fill(self, block: int, first: int, last: int, out: np.ndarray) -> None:
        if self._block[0] != block:
            whose = np.repeat(np.arange(len(self._groups)), self._counts)
            self._block = block, np.random.default_rng([self._seed, _MIX, block]).permutation(whose)
        whose = self._block[1]
        for group, order in enumerate(self._groups):
            before = block * int(self._counts[group]) + int((whose[:first] == group).sum())
            here = whose[first:last] == group
            out[here] = order.take(before, before + int(here.sum()))


def _shares(shares: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to the block, as close to the shares as may be (largest remainders)."""
    exact = shares * _BLOCK
    counts = np.floor(exact).astype(np.int64)
    short = np.argsort(counts - exact, kind="stable")[: _BLOCK - int(counts.sum())]
    counts[short] += 1
    return counts


def _derived(seed: int, group: int) -> int:
    """A seed of its own for each group, so that groups of one size are not shuffled alike."""
    return int(np.random.SeedSequence([seed, _MIX, group]).generate_state(1, np.uint64)[0])
