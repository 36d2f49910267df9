"""What the engine asks of a stage."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shard:
    """Which share of a batch this process computes."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Best:
    """The validation metric that chooses the best checkpoint."""

    metric: str
    mode: Literal["min", "max"] = "min"

    def better(self, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
        """Whether ``new`` beats ``old``; anything beats nothing."""
        if self.metric not in old:
            return True
        one, other = new[self.metric], old[self.metric]
        return one < other if self.mode == "min" else one > other


@dataclass(kw_only=True)
class Stage(ABC):
    """One training job: a module, batches, a loss, a validation and an artifact.

    All randomness of :meth:`loss` and :meth:`validate` comes from torch's generator, which the engine seeds before
    every call: with that, and since a batch depends on its index alone, a resumed run repeats bit for bit.
    """

    name: str
    module: nn.Module  # its parameters are trained
    best: Best
    notes: list[str] = field(default_factory=list)  # lines about the data, said before the first step
    facts: dict[str, Any] = field(default_factory=dict)  # plain JSON for metrics.json: data, sizes
    fingerprint: dict[str, str] = field(default_factory=dict)  # config key -> content; a resume wants the same
    assets: Mapping[str, str] = field(default_factory=dict)  # small texts that the module is built from, kept in last

    @abstractmethod
    def batch(self, index: int, shard: Shard) -> Batch:
        """Micro-batch ``index`` on the CPU, a pure function of the seed and the index; this process's share of it."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and detached scalars to log, for a batch on the module's device."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics on held-out data, :attr:`best`'s among them; called in evaluation mode without gradients."""

    def weight(self, batch: Batch) -> Tensor | float:
        """The share of a micro-batch that :meth:`loss` is the mean of, where parts of it are padding; at most 1.

        With it several micro-batches, on several processes too, give exactly the gradient of one large batch.
        """
        return 1.0

    def pictures(self) -> dict[str, np.ndarray]:
        """Pictures by name, uint8 (H, W, 3), of what the module does now; drawn after every :meth:`validate`, in
        evaluation mode without gradients, for the log.
        """
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the artifact of the module as it is now, in place of an older one: whole, or not at all."""
