"""What every policy's frozen config dataclass shares: bounded fields and strict reading of untrusted values."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Self, get_args

from tandem_datasets.errors import TandemError, unknown


def setting(default: Any, low: float, high: float) -> Any:
    """A number field that is refused outside ``low..high`` when the config is constructed."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def choice(*allowed: str) -> Any:
    """A field that takes one of ``allowed``, by default the first one."""
    return dataclasses.field(default=allowed[0], metadata={"choices": allowed})


@dataclass(frozen=True)
class PolicyConfig:
    """The base of all policy configs: a chunk's length, and how much of it is played.

    Raises:
        TandemError: a field has the wrong type, is out of its bounds or contradicts another.
    """

    chunk_size: int = setting(1, 1, 1024)  # K, actions of one inference
    n_action_steps: int = setting(1, 1, 1024)  # how many of them are played before the next one

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_field(field)
        if self.n_action_steps > self.chunk_size:
            self.refuse("n_action_steps", self.n_action_steps, f"at most chunk_size = {self.chunk_size}")

    def refuse(self, field: str, came: object, allowed: str) -> None:
        """Raises the TandemError for a field's value."""
        raise TandemError(f"{type(self).__name__}: {field} is {came!r:.60} (allowed: {allowed})")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Self:
        """The config from untrusted values; unknown keys and wrong types are refused."""
        names = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in names:
                raise unknown(f"{where}: {cls.__name__}", str(key), names)
        try:
            return cls(**values)
        except TandemError as error:
            raise TandemError(f"{where}: {error}") from None

    def _check_field(self, field: dataclasses.Field) -> None:
        value = getattr(self, field.name)
        kinds = get_args(field.type) or (field.type,)
        if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
            value = float(value)  # YAML and JSON write 0 for 0.0
            object.__setattr__(self, field.name, value)
        if type(value) not in kinds:
            names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            self.refuse(field.name, value, names)
        if value not in (choices := field.metadata.get("choices", (value,))):
            raise unknown(f"{type(self).__name__}: {field.name}", str(value), choices)
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if low is not None and value is not None and not (math.isfinite(value) and low <= value <= high):
            self.refuse(field.name, value, f"{low}..{high}")
