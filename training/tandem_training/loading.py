"""``DataLoader`` over windows with what full speed and an exact resume need. torch is imported when one is made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tandem_datasets.dataset import Samples, WindowDataset
from tandem_datasets.errors import TandemError
from tandem_datasets.sampling import WindowSampler


class WindowLoader:
    """``DataLoader`` over windows: batches of torch tensors, made by worker processes straight into shared memory.

    Its state counts the batches that were handed out, however many the workers are ahead, so that a training goes on
    with exactly the next one. One pass is (the rest of) an epoch.

    Args:
        dataset, sampler: what is read in which order.
        workers: processes; 0: none.
        context: how they start: "fork", "spawn" or "forkserver"; None: spawn where a store is remote (connections do
            not survive a fork), else what torch takes.
        prefetch: batches that each worker is ahead.
        pin_memory: for faster copies to a GPU.

    Raises:
        TandemError: torch is not installed.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        sampler: WindowSampler,
        workers: int = 0,
        context: str | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        try:
            from torch.utils.data import DataLoader
        except ImportError as error:
            raise TandemError(f"windows: torch is not installed: {error} (wanted: the extra 'train')") from error
        self.sampler = sampler
        if context is None and any(reader.store.remote for reader in dataset.readers):
            context = "spawn"
        apart: dict[str, Any] = {}
        if workers:
            apart = {"multiprocessing_context": context, "prefetch_factor": prefetch, "persistent_workers": True}
        self._ahead = _Ahead(sampler)
        self._loader: Any = DataLoader(
            _Batches(dataset, shared=workers > 0),  # type: ignore[arg-type]  # a dataset by its methods
            batch_sampler=self._ahead,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            **apart,
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        marks = self._ahead.marks = []
        for count, batch in enumerate(self._loader):
            self.sampler.advance(marks[count])
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`WindowSampler.state_dict`."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`WindowSampler.load_state_dict`."""
        self.sampler.load_state_dict(state)


class _Ahead:
    """The sampler for workers that draw ahead: notes what is drawn with each batch instead of drawing it."""

    def __init__(self, sampler: WindowSampler) -> None:
        self._sampler = sampler
        self.marks: list[int] = []

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[int]]:
        marks = self.marks
        for batch, after in self._sampler.ahead():
            marks.append(after)
            yield batch


class _Batches:
    """The dataset as its loader asks it: whole batches, in a worker in shared memory so that nothing is copied."""

    def __init__(self, dataset: WindowDataset, shared: bool) -> None:
        self._dataset, self._shared = dataset, shared

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, windows: Sequence[int]) -> dict[str, Any]:
        if not self._shared:
            return self._dataset.read(windows)
        made: dict[int, tuple[np.ndarray, Any]] = {}

        def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            tensor = shared_tensor(shape, dtype)
            values = tensor.numpy()
            made[id(values)] = values, tensor  # the array, too: else its id could be another's
            return values

        batch = self._dataset.read(windows, empty)
        return {key: made[id(values)][1] if id(values) in made else values for key, values in batch.items()}


def collate(samples: Any) -> dict[str, Any]:
    """``collate_fn`` for a :class:`WindowDataset`: one dict of torch tensors, without a copy."""
    import torch

    batch = samples.batch if isinstance(samples, Samples) else samples
    return {
        key: torch.from_numpy(values) if isinstance(values, np.ndarray) else values for key, values in batch.items()
    }


def shared_tensor(shape: tuple[int, ...], dtype: Any) -> Any:
    """A torch tensor in memory that other processes map, as torch's own collate makes it."""
    import torch

    kind = torch.from_numpy(np.empty(0, dtype))
    if not np.prod(shape):
        return kind.reshape(shape)
    storage = kind._typed_storage()._new_shared(int(np.prod(shape)))
    return kind.new(storage).view(shape)
