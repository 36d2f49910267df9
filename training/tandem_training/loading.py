"""Windows of stores through torch's ``DataLoader``, with what full speed and an exact resume need."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tandem_datasets.dataset import Samples, WindowDataset
from tandem_datasets.errors import TandemError
from tandem_datasets.sampling import WindowSampler

_ALIGNED = 64  # bytes
_SPARE = 2  # slots more than batches can be on their way: one that is used, one that was used just now
_UNUSED = 2  # references to a slot's memory: the list's and the question's

_Draw = tuple[int, list[int]]  # the slot for a batch (-1: none is free), and its windows


class WindowLoader:
    """``DataLoader`` over windows: batches of torch tensors, made by worker processes in memory that is used again.

    Its state counts the batches that were handed out, however many the workers are ahead, so that a training goes on
    with exactly the next one. One pass is (the rest of) an epoch; one at a time.

    Shared memory is mapped page by page, which costs more than decoding. So workers write into slots that were mapped
    before, and a slot is taken again once nobody holds a tensor of it any more; who keeps batches gets fresh memory.

    Args:
        dataset, sampler: what is read in which order.
        workers: processes; 0: none.
        context: how they start: "fork", "spawn" or "forkserver"; None: spawn where a store is remote (connections do
            not survive a fork), else what torch takes.
        prefetch: batches that each worker is ahead.
        pin_memory: for faster copies to a GPU.
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
        self.sampler = sampler
        self._pin = pin_memory
        if context is None and any(reader.store.remote for reader in dataset.readers):
            context = "spawn"
        apart: dict[str, Any] = {}
        slots: list[Tensor] = []
        if workers:
            apart = {"multiprocessing_context": context, "prefetch_factor": prefetch, "persistent_workers": True}
            size = _bytes_of(dataset, sampler.batch_size)
            slots = [shared_tensor((size,), np.uint8) for _ in range(workers * prefetch + _SPARE)]
        self._memory = [slot.numpy() for slot in slots]
        self._ahead = _Ahead(sampler, self._memory)
        self._loader: Any = DataLoader(
            _Batches(dataset, slots, shared=workers > 0),  # type: ignore[arg-type]  # a dataset by its methods
            batch_sampler=self._ahead,  # type: ignore[arg-type]  # of what this dataset takes
            collate_fn=_as_it_is,
            num_workers=workers,
            **apart,
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        ahead = self._ahead
        marks = ahead.marks = []
        for count, made in enumerate(self._loader):
            batch = self._unpacked(made)
            self.sampler.advance(marks[count])
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`sampling.WindowSampler.state_dict`."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`sampling.WindowSampler.load_state_dict`."""
        self.sampler.load_state_dict(state)

    def _unpacked(self, made: "_Made") -> dict[str, Tensor]:
        if made.error:
            raise TandemError(made.error)
        batch = dict(made.values)
        if made.slot >= 0:
            memory = self._memory[made.slot]
            for key, (start, shape, kind) in made.layout.items():
                size = int(np.prod(shape)) * np.dtype(kind).itemsize
                batch[key] = memory[start : start + size].view(kind).reshape(shape)
            self._ahead.flying.discard(made.slot)
        tensors = collate(batch)
        return {key: value.pin_memory() for key, value in tensors.items()} if self._pin else tensors


@dataclass(frozen=True)
class _Made:
    """A batch as it comes from a worker: what lies where in its slot, and the rest."""

    slot: int
    layout: dict[str, tuple[int, tuple[int, ...], str]]  # first byte, shape, dtype
    values: dict[str, Any]
    error: str = ""  # why there is none; as an exception torch would put a traceback into its text


class _Ahead:
    """The sampler for workers that draw ahead: notes what is drawn with each batch, and picks a slot for it."""

    def __init__(self, sampler: WindowSampler, memory: list[np.ndarray]) -> None:
        self._sampler, self._memory = sampler, memory
        self.marks: list[int] = []
        self.flying: set[int] = set()  # slots on their way

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[_Draw]:
        marks = self.marks
        self.flying = set()  # of a pass that was broken off, nothing is on its way any more
        for batch, after in self._sampler.ahead():
            marks.append(after)
            yield self._slot(), batch

    def _slot(self) -> int:
        memory = self._memory
        for k in range(len(memory)):
            if k not in self.flying and sys.getrefcount(memory[k]) == _UNUSED:
                self.flying.add(k)
                return k
        return -1


class _Batches:
    """The dataset as its loader asks it."""

    def __init__(self, dataset: WindowDataset, slots: list[Tensor], shared: bool) -> None:
        self._dataset, self._slots, self._shared = dataset, slots, shared

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, drawn: _Draw) -> _Made:
        slot, windows = drawn
        try:
            if not self._shared:
                return _Made(-1, {}, self._dataset.read(windows))
            if slot < 0:
                return _Made(-1, {}, _in_new_memory(self._dataset, windows))
            return _in_slot(self._dataset, windows, slot, self._slots[slot].numpy())
        except TandemError as error:
            return _Made(-1, {}, {}, str(error))


def _in_slot(dataset: WindowDataset, windows: list[int], slot: int, memory: np.ndarray) -> _Made:
    places: dict[int, tuple[np.ndarray, int]] = {}
    end = 0

    def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        nonlocal end
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        values = memory[end : end + size].view(dtype).reshape(shape)
        places[id(values)] = values, end  # the array, too: else its id could be another's
        end += -(-size // _ALIGNED) * _ALIGNED
        return values

    layout, rest = {}, {}
    for key, values in dataset.read(windows, empty).items():
        if id(values) in places:
            layout[key] = places[id(values)][1], values.shape, values.dtype.str
        else:
            rest[key] = values
    return _Made(slot, layout, rest)


def _in_new_memory(dataset: WindowDataset, windows: list[int]) -> dict[str, Any]:
    made: dict[int, tuple[np.ndarray, Tensor]] = {}

    def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        tensor = shared_tensor(shape, dtype)
        values = tensor.numpy()
        made[id(values)] = values, tensor
        return values

    batch = dataset.read(windows, empty)
    return {key: made[id(values)][1] if id(values) in made else values for key, values in batch.items()}


def _bytes_of(dataset: WindowDataset, batch_size: int) -> int:
    """Bytes of a batch's large arrays."""
    total = 0

    def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        nonlocal total
        values = np.empty(shape, dtype)
        total += -(-values.nbytes * batch_size // _ALIGNED) * _ALIGNED + _ALIGNED
        return values

    dataset.read([0], empty)
    return total


def _as_it_is(made: Any) -> Any:
    return made


def collate(samples: Samples | Mapping[str, Any] | Sequence[Any]) -> dict[str, Tensor]:
    """``collate_fn`` for a :class:`dataset.WindowDataset`: one dict of torch tensors, without a copy."""
    batch: Any = samples.batch if isinstance(samples, Samples) else samples
    return {
        key: torch.from_numpy(values) if isinstance(values, np.ndarray) else values for key, values in batch.items()
    }


def shared_tensor(shape: tuple[int, ...], dtype: Any) -> Tensor:
    """A tensor in memory that other processes map, as torch's own collate makes it."""
    kind = torch.from_numpy(np.empty(0, dtype))
    if not np.prod(shape):
        return kind.reshape(shape)
    storage = kind._typed_storage()._new_shared(int(np.prod(shape)))
    return kind.new(storage).view(shape)
