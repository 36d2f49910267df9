"""The optimizer and the moving average of weights."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """torch's AdamW without torch's compiler.

    torch wraps these five methods so that a compiled training step leaves them out, and their first call imports
    ``torch._dynamo`` for that: 3 s before the first step. The engine compiles modules at most, never the optimizer.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        _bare(Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        _bare(Optimizer.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return _bare(Optimizer.state_dict)(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        _bare(Optimizer.load_state_dict)(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        return _bare(torch.optim.AdamW.step)(self, closure)


def _bare(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


class Ema:
    """An exponential moving average of a module's parameters (Polyak averaging), with a warm-up of its own."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._live = list(parameters)
        self._decay = decay
        self.average = [value.detach().clone() for value in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimizer step ``step`` (from 0); early ones are forgotten quickly."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [value.detach() for value in self._live], 1 - decay)

    def load(self, average: list[Tensor]) -> None:
        """Restores :attr:`average`."""
        for mine, theirs in zip(self.average, average, strict=True):
            mine.copy_(theirs)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module carries the averaged weights inside the block."""
        kept = [value.detach().clone() for value in self._live]
        self._write(self.average)
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        for mine, theirs in zip(self._live, values, strict=True):
            mine.copy_(theirs)
