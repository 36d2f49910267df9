"""Which parameters are trained, and at which rate: freezing and groups by patterns on their names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tandem_datasets.errors import TandemError
from tandem_training.engine.settings import TrainerSettings

_SHOWN = 6


@dataclass(frozen=True)
class Trained:
    """What the optimizer gets.

    Attributes:
        groups: for the optimizer's constructor, each with its peak ``lr`` and its ``weight_decay``.
        frozen: the outermost modules of which nothing is trained; they stay in evaluation mode, so that their
            dropout is off and their running averages stand still.
    """

    groups: list[dict[str, Any]]
    frozen: list[nn.Module]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that are trained, in the order of the groups."""
        return [value for group in self.groups for value in group["params"]]

    @property
    def peaks(self) -> list[float]:
        """The peak rate of each group."""
        return [group["lr"] for group in self.groups]


def select(module: nn.Module, settings: TrainerSettings) -> Trained:
    """Freezes what ``settings.freeze`` names and sorts the others into groups.

    Raises:
        TandemError: a pattern matches nothing, or nothing is left to train.
    """
    named = dict(module.named_parameters())
    for pattern in settings.freeze:
        found = [value for name, value in named.items() if re.search(pattern, name)]
        if not found:
            raise _matches_nothing("trainer.freeze", pattern, named)
        for value in found:
            value.requires_grad_(False)
    free = {name: value for name, value in named.items() if value.requires_grad}
    if not free:
        raise TandemError("trainer.freeze: no parameter is left to train (allowed: patterns that leave some)")
    return Trained(_grouped(free, settings), _frozen_modules(module))


def _grouped(free: Mapping[str, nn.Parameter], settings: TrainerSettings) -> list[dict[str, Any]]:
    """Optimizer groups in the order of the settings, then the rest."""
    left = dict(free)
    groups: list[dict[str, Any]] = []
    for group in settings.groups:
        taken = [name for name in left if re.search(group.pattern, name)]
        if not taken:
            raise _matches_nothing("trainer.groups", group.pattern, left, " that is left")
        lr = settings.lr if group.lr is None else group.lr
        decay = settings.weight_decay if group.weight_decay is None else group.weight_decay
        groups += _decayed([left.pop(name) for name in taken], lr, decay, settings.decay_vectors)
    return groups + _decayed(list(left.values()), settings.lr, settings.weight_decay, settings.decay_vectors)


def _decayed(values: list[nn.Parameter], lr: float, decay: float, vectors: bool) -> list[dict[str, Any]]:
    """One group, or two if vectors (biases, the scales of norms) shall not decay."""
    if vectors or not decay:
        parts = [(values, decay)]
    else:
        parts = [([v for v in values if v.ndim > 1], decay), ([v for v in values if v.ndim <= 1], 0.0)]
    return [{"params": chosen, "lr": lr, "weight_decay": rate} for chosen, rate in parts if chosen]


def _frozen_modules(module: nn.Module) -> list[nn.Module]:
    values = list(module.parameters())
    if values and not any(value.requires_grad for value in values):
        return [module]
    return [found for child in module.children() for found in _frozen_modules(child)]


def _matches_nothing(where: str, pattern: str, names: Mapping[str, Any], which: str = "") -> TandemError:
    """With the beginnings of the names that there are."""
    parts = list(dict.fromkeys(name.split(".")[0] for name in names))
    shown = ", ".join(parts[:_SHOWN]) + (", ..." if len(parts) > _SHOWN else "")
    return TandemError(f"{where}: '{pattern}' matches no parameter{which} (there are: {shown or 'none'})")
