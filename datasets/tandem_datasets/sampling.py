"""The order in which windows are drawn: shuffled or mixed by weight, resumable, the same for any number of ranks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tandem_datasets.dataset import WindowDataset
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.order import Mixed, Order, Shuffled
from tandem_datasets.windows import SOURCES

_WHERE = "sampler"


class WindowSampler:
    """The order of windows: shuffled or mixed by weight, the same for one seed, cut into batches for one of W ranks.

    As ``batch_sampler`` of a ``DataLoader`` one pass over it is an epoch; batch b of all ranks together is places
    ``b*B*W..(b+1)*B*W-1`` of the common order, of which each rank takes every W-th. A last batch that is not full is
    left out. The state counts samples of the common order, so a run may go on with other ranks or batches; it is that
    of the batches which were *drawn*. With worker processes that is ahead of those that arrived: see
    ``tandem_training.loading``.

    Args:
        dataset: whose windows.
        batch_size: windows of one rank's batch.
        seed: of the order.
        store_weights: one per store: what share of the samples is of it; None: as many as it has windows.
        source_weights: by name (see :data:`windows.SOURCES`): what share is from whom, with ``store_weights`` of each
            store's samples; those that are not named are left out; None: as many as there are.
        shuffle: False: in the stores' order.
        rank, world: which of how many processes.

    Raises:
        TandemError: weights that do not fit, nothing left to draw, or fewer windows than a batch.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        batch_size: int,
        seed: int = 0,
        store_weights: Sequence[float] | None = None,
        source_weights: Mapping[str, float] | None = None,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise TandemError(f"{_WHERE}: batch_size {batch_size}, rank {rank} of {world} (allowed: 1.., 0..world-1)")
        self._order, self._epoch_samples = _order(dataset, seed, store_weights, source_weights, shuffle)
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self._step = batch_size * world
        if len(self) == 0:
            raise TandemError(
                f"{_WHERE}: {self._epoch_samples} windows for batches of {self._step} (allowed: at least one batch)"
            )
        weights = {
            "stores": None if store_weights is None else [float(weight) for weight in store_weights],
            "sources": None if source_weights is None else dict(source_weights),
        }
        self._facts = {"seed": seed, "content": dataset.content, "weights": weights, "shuffle": shuffle}
        self._samples = 0  # drawn so far, of all ranks together

    def __len__(self) -> int:
        """Batches of one epoch."""
        return self._epoch_samples // self._step

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return self._samples // self._epoch_samples

    def __iter__(self) -> Iterator[list[int]]:
        for batch, after in self.ahead():
            self._samples = after
            yield batch

    def ahead(self) -> Iterator[tuple[list[int], int]]:
        """The rest of this epoch without drawing it: each batch, and the samples that are drawn once it is."""
        samples, end = self._samples, (self.epoch + 1) * self._epoch_samples
        while samples + self._step <= end:
            batch = self._order.take(samples, samples + self._step)[self.rank :: self.world]
            samples += self._step
            yield batch.tolist(), samples if samples + self._step <= end else end

    def advance(self, samples: int) -> None:
        """Says that the order was drawn up to ``samples``, as :meth:`ahead` gave it."""
        self._samples = samples

    def state_dict(self) -> dict[str, Any]:
        """Where the order is, plain JSON."""
        return {**self._facts, "samples": self._samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken; raises TandemError if it is of another order."""
        for key, value in self._facts.items():
            if state.get(key) != value:
                raise TandemError(f"{_WHERE}: resume: {key} is {value!r:.200}, but was {state.get(key)!r:.200}")
        samples = state.get("samples")
        if type(samples) is not int or samples < 0:
            raise TandemError(f"{_WHERE}: resume: samples is {samples!r:.40} (allowed: a count)")
        drawn = samples % self._epoch_samples
        if drawn + self._step > self._epoch_samples:  # batches are larger now, and what is left makes none
            samples += self._epoch_samples - drawn
        self._samples = samples


def _order(
    dataset: WindowDataset,
    seed: int,
    store_weights: Sequence[float] | None,
    source_weights: Mapping[str, float] | None,
    shuffle: bool,
) -> tuple[Order, int]:
    """The order, and how many samples are an epoch of it: as many as there are windows to draw."""
    everything = np.arange(len(dataset))
    if store_weights is None and source_weights is None:
        if not len(everything):
            raise TandemError(f"{_WHERE}: there is no window (allowed: stores with targets)")
        return Shuffled(everything, seed, shuffle), len(everything)
    if not shuffle:
        raise TandemError(f"{_WHERE}: shuffle=False with weights (allowed: one of both)")
    groups, weights = _groups(dataset, store_weights, source_weights)
    return Mixed(groups, weights, seed, _WHERE), sum(map(len, groups))


def _groups(
    dataset: WindowDataset, store_weights: Sequence[float] | None, source_weights: Mapping[str, float] | None
) -> tuple[list[np.ndarray], list[float]]:
    """Windows by store and source, as far as these are weighted, and each group's weight."""
    if store_weights is not None and len(store_weights) != len(dataset.readers):
        raise TandemError(
            f"{_WHERE}: {len(store_weights)} weights for {len(dataset.readers)} stores (allowed: one each)"
        )
    for name in source_weights or {}:
        if name not in SOURCES:
            raise unknown(f"{_WHERE}: source", name, SOURCES)
    given = [*(store_weights or ()), *(source_weights or {}).values()]
    if not given or not all(np.isfinite(weight) and weight > 0 for weight in given):
        raise TandemError(f"{_WHERE}: weights are {given} (allowed: positive numbers)")
    stores, sources = dataset.stores, dataset.sources
    groups, weights = [], []
    for which, share in enumerate([1.0] if store_weights is None else store_weights):
        of_store = np.ones(len(dataset), bool) if store_weights is None else stores == which
        if source_weights is None:
            found = [(np.flatnonzero(of_store), 1.0)]
        else:
            found = [(np.flatnonzero(of_store & (sources == SOURCES[s])), w) for s, w in source_weights.items()]
        found = [(group, weight) for group, weight in found if len(group)]
        if not found and store_weights is not None:
            wanted = f" from {', '.join(source_weights)}" if source_weights else ""
            raise TandemError(f"{_WHERE}: {dataset.readers[which].store.name} has no window{wanted} to weigh")
        whole = sum(weight for _, weight in found)
        groups += [group for group, _ in found]
        weights += [share * weight / whole for _, weight in found]
    missing = [name for name in source_weights or {} if not (sources == SOURCES[name]).any()]
    if missing:
        raise TandemError(f"{_WHERE}: no window is from {', '.join(missing)} (allowed: sources that are there)")
    return groups, weights
