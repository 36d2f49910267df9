"""Batches on their way to the device, made ahead by a thread where asked for, and how long the steps wait for them."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from tandem_training.engine.checkpoint import Progress
from tandem_training.stages.base import Batch

_ON_A_GPU = 2


@dataclass
class Spent:
    """The time of the steps since the last point of the curves, seconds."""

    input_s: float = 0.0  # waiting for batches
    step_s: float = 0.0  # all of it
    steps: int = 0

    def add(self, input_s: float, step_s: float, steps: int = 1) -> None:
        """Takes in some steps, or time of steps that were counted before."""
        self.input_s += input_s
        self.step_s += step_s
        self.steps += steps

    def flush(self, progress: Progress) -> dict[str, float]:
        """Adds to the sums in ``progress`` and begins anew; the means for the curves, none if there were no steps."""
        means = {}
        if self.steps:
            means = {"input_s": self.input_s / self.steps, "wait_fraction": self.input_s / self.step_s}
        progress.input_s += self.input_s
        progress.step_s += self.step_s
        progress.timed_steps += self.steps
        self.input_s, self.step_s, self.steps = 0.0, 0.0, 0
        return means


class Feed:
    """Micro-batches in their order. A batch depends on its index alone, so that it does not matter who makes it.

    Args:
        make: gives the micro-batch of an index, on the CPU.
        device: where it shall be.
        ahead: how many are made before they are asked for, by one thread; None: 2 on a GPU, else none.
        end: one past the last index.
    """

    def __init__(self, make: Callable[[int], Batch], device: torch.device, ahead: int | None, end: int) -> None:
        self._make, self._device, self._end = make, device, end
        self._ahead = (_ON_A_GPU if device.type == "cuda" else 0) if ahead is None else ahead
        self._thread = ThreadPoolExecutor(1, "tandem-feed") if self._ahead else None
        self._coming: deque[tuple[int, Future[Batch]]] = deque()
        self.waited = 0.0  # seconds that :meth:`take` took since it was set to 0

    def take(self, index: int) -> dict[str, Tensor]:
        """Micro-batch ``index`` on the device."""
        begun = time.perf_counter()
        batch = self._prepared(index) if self._thread else self._make(index)
        moved = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
        self.waited += time.perf_counter() - begun
        return moved

    def close(self) -> None:
        """Ends the thread; what it is making is thrown away."""
        if self._thread:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._coming.clear()

    def _prepared(self, index: int) -> Batch:
        assert self._thread
        if self._coming and self._coming[0][0] != index:
            self._coming.clear()
        upto = min(index + 1 + self._ahead, self._end)
        begin = self._coming[-1][0] + 1 if self._coming else index
        for later in range(begin, max(upto, index + 1)):
            self._coming.append((later, self._thread.submit(self._make_pinned, later)))
        return self._coming.popleft()[1].result()

    def _make_pinned(self, index: int) -> Batch:
        batch = self._make(index)
        if self._device.type != "cuda":
            return batch
        return {name: value.pin_memory() for name, value in batch.items()}  # else the copy would not be asynchronous
