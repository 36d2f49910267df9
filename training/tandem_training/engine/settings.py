"""What the engine can be told: the keys of ``conf/trainer/default.yaml``, checked."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tandem_datasets.errors import TandemError, unknown

# The rate from the end of the warm-up on; "open" ones do not depend on max_steps.
SCHEDULES = ("constant", "cosine", "inverse_sqrt", "linear")
OPEN_SCHEDULES = ("constant", "inverse_sqrt")
PRECISIONS = ("fp32", "bf16", "fp16")
WANDB_MODES = ("off", "online", "offline")


def _within(low: float, high: float, none: bool = False) -> Any:
    return dataclasses.field(metadata={"low": low, "high": high, "none": none})


def _one_of(*names: str) -> Any:
    return dataclasses.field(metadata={"names": names})


def _yes_or_no() -> Any:
    return dataclasses.field(metadata={"names": (True, False)})


def _read() -> Any:
    """Read and checked by ``from_mapping``."""
    return dataclasses.field(metadata={})


def _text(none: bool = False) -> Any:
    return dataclasses.field(metadata={"text": True, "none": none})


@dataclass(frozen=True)
class Group:
    """Parameters with settings of their own: those whose name holds a match of ``pattern``."""

    pattern: str  # a regular expression
    lr: float | None  # peak learning rate; None: the trainer's
    weight_decay: float | None  # None: the trainer's


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
    final_lr: float = _within(0, 1)  # where cosine and linear end, as a fraction of the peak
    weight_decay: float = _within(0, 100)
    decay_vectors: bool = _yes_or_no()  # False: no weight decay on biases, norms and other vectors
    groups: tuple[Group, ...] = _read()  # the first match wins
    freeze: tuple[str, ...] = _read()  # regular expressions on names of parameters that stay as they are
    clip_norm: float = _within(0, 1e9)  # of the whole gradient; 0: off
    ema: float = _within(0, 0.999999)  # decay of the averaged weights that are validated and saved; 0: off
    precision: str = _one_of(*PRECISIONS)
    gradient_checkpointing: bool = _yes_or_no()  # recompute activations in the backward pass
    compile: bool = _yes_or_no()  # by torch.compile
    early_stop_after: int | None = _within(1, 1e9, none=True)  # validations without an improvement; None: off
    log_every: int = _within(1, 1e9)  # steps that one point of the curves is the mean of
    val_every: int = _within(1, 1e9)
    checkpoint_every: int = _within(1, 1e9)
    wandb: str = _one_of(*WANDB_MODES)
    wandb_project: str = _text()
    wandb_name: str | None = _text(none=True)
    prefetch: int | None = _within(0, 1024, none=True)  # batches made ahead by a thread; None: 2 on a GPU, else 0
    threads: int | None = _within(1, 4096, none=True)  # of torch on the CPU; None: one per core it may use

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
        read = {
            "groups": _groups(values["groups"], f"{where}.groups"),
            "freeze": _patterns(values["freeze"], f"{where}.freeze"),
            "wandb": "off" if values["wandb"] is False else values["wandb"],  # how YAML reads a bare off
        }
        return cls(**{**values, **read})

    def learning_rate(self, step: int) -> float:
        """The rate of optimizer step ``step`` (from 0), for what is in no group with a rate of its own."""
        return self.lr * self.rate_factor(step)

    def rate_factor(self, step: int) -> float:
        """The share of the peak rate at optimizer step ``step`` (from 0): linear warm-up, then the schedule."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "inverse_sqrt":  # Vaswani et al. (2017)
            return math.sqrt(max(1, self.warmup_steps) / max(1, step + 1))
        done = min(1.0, (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps))
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.final_lr + (1 - self.final_lr) * left


def _check(field: dataclasses.Field, value: Any) -> None:
    where, rules = f"trainer.{field.name}", field.metadata
    if not rules or (value is None and rules.get("none")):
        return
    if "names" in rules:
        _choice(value, rules["names"], where)
    elif "text" in rules:
        if not isinstance(value, str) or not value.strip():
            raise TandemError(f"{where} is {value!r:.60} (allowed: a text)")
    else:
        _number(value, rules["low"], rules["high"], field.type is not float, where)


def _choice(value: Any, names: Sequence[Any], where: str) -> None:
    if isinstance(names[0], bool):
        if not isinstance(value, bool):
            raise TandemError(f"{where} is {value!r:.60} (allowed: true or false)")
    elif value not in names:
        raise unknown(where, str(value), names)


def _number(value: Any, low: float, high: float, whole: bool, where: str) -> None:
    kinds = (int,) if whole else (int, float)
    fine = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    if not fine:
        what = "a whole number" if whole else "a number"
        raise TandemError(f"{where} is {value!r:.60} (allowed: {what}, {low:g}..{high:g})")


def _groups(values: Any, where: str) -> tuple[Group, ...]:
    if not isinstance(values, list | tuple):
        raise TandemError(f"{where} is {values!r:.60} (allowed: a list such as '[{{pattern: \"^vision\", lr: 1e-4}}]')")
    return tuple(_group(value, f"{where}[{index}]") for index, value in enumerate(values))


def _group(value: Any, where: str) -> Group:
    names = [field.name for field in dataclasses.fields(Group)]
    if not isinstance(value, Mapping):
        raise TandemError(f"{where} is {value!r:.60} (allowed: pattern, and lr or weight_decay or both)")
    for key in value:
        if key not in names:
            raise unknown(where, str(key), names)
    own = {name: value.get(name) for name in ("lr", "weight_decay")}
    if "pattern" not in value or not any(number is not None for number in own.values()):
        missing = "pattern" if "pattern" not in value else "lr or weight_decay"
        raise TandemError(f"{where}: missing {missing}")
    for name, number in own.items():
        if number is not None:
            _number(number, 0, 100, False, f"{where}.{name}")
    return Group(_pattern(value["pattern"], f"{where}.pattern"), **own)


def _patterns(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise TandemError(f"{where} is {values!r:.60} (allowed: a list of patterns such as '[\"^language\"]')")
    return tuple(_pattern(value, f"{where}[{index}]") for index, value in enumerate(values))


def _pattern(value: Any, where: str) -> str:
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        reason = f": {error}" if isinstance(error, re.error) else ""
        raise TandemError(f"{where} is {value!r:.60}{reason} (allowed: a regular expression)") from None
    return value
