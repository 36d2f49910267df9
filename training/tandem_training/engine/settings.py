"""What the engine can be told: the keys of ``conf/trainer/default.yaml``, checked."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tandem_datasets.errors import TandemError, unknown

SCHEDULES = ("constant", "cosine")
PRECISIONS = ("fp32", "bf16")


def _within(low: float, high: float) -> Any:
    return dataclasses.field(metadata={"low": low, "high": high})


def _one_of(*names: str) -> Any:
    return dataclasses.field(metadata={"names": names})


@dataclass(frozen=True)
class TrainerSettings:
    """One training's settings; defaults stand in the yaml files only.

    Raises:
        TandemError: a value is out of its bounds.
    """

    max_steps: int = _within(1, 1e9)  # optimizer steps
    batch_size: int = _within(1, 1 << 20)  # samples of one micro-batch, over all processes
    accumulate: int = _within(1, 65536)  # micro-batches of one optimizer step
    lr: float = _within(0, 100)  # peak learning rate
    schedule: str = _one_of(*SCHEDULES)
    warmup_steps: int = _within(0, 1e9)  # linear rise to the peak
    final_lr: float = _within(0, 1)  # where the cosine ends, as a fraction of the peak
    weight_decay: float = _within(0, 100)
    clip_norm: float = _within(0, 1e9)  # of the whole gradient; 0: off
    ema: float = _within(0, 0.999999)  # decay of the averaged weights that are validated and saved; 0: off
    precision: str = _one_of(*PRECISIONS)
    log_every: int = _within(1, 1e9)  # steps that one point of the curves is the mean of
    val_every: int = _within(1, 1e9)
    checkpoint_every: int = _within(1, 1e9)
    threads: int | None = _within(1, 4096)  # of torch on the CPU; None: one per core that this process may use

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "trainer") -> Self:
        """From a composed configuration; unknown and missing keys are refused."""
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise unknown(where, str(key), names)
        absent = [name for name in names if name not in values]
        if absent:
            raise TandemError(f"{where}: missing {', '.join(absent)}")
        return cls(**values)

    def learning_rate(self, step: int) -> float:
        """The rate of optimizer step ``step`` (from 0): linear warm-up, then constant or half a cosine."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        done = (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps)
        wave = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.lr * (self.final_lr + (1 - self.final_lr) * wave)


def _check(field: dataclasses.Field, value: Any) -> None:
    where = f"trainer.{field.name}"
    if "names" in field.metadata:
        if value not in field.metadata["names"]:
            raise unknown(where, str(value), field.metadata["names"])
        return
    if value is None and field.name == "threads":
        return
    kinds = (int, float) if field.type is float else (int,)
    low, high = field.metadata["low"], field.metadata["high"]
    fine = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    if not fine:
        what = "a number" if field.type is float else "a whole number"
        raise TandemError(f"{where} is {value!r:.60} (allowed: {what}, {low:g}..{high:g})")
