"""What every rollout backend takes and gives, so that evaluation does not know which one runs.

A backend is found by the entry-point group ``tandem.backends`` (``inprocess``, ``ros2``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.policy import Policy

EXPERT = "expert"
"""The policy name that asks the environment's own expert to act."""


@dataclass(frozen=True)
class EnvSpec:
    """A Gymnasium id with its keyword options."""

    id: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RolloutRequest:
    """Which episodes to run. Episode i uses ``seed + i``."""

    env: EnvSpec
    policy: str  # policy directory, or EXPERT
    episodes: int
    seed: int
    load_policy: Callable[[], Policy] | None = None  # for backends that run it in this process
    record: Path | None = None  # store to append every episode to
    label: bool = False  # ask the expert what it would have done, at each step
    num_envs: int = 1  # environments stepped together, where the backend can
    workers: int = 1  # processes that run episodes side by side, where the backend can; the results are the same
    provenance: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # the backend's own


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went."""

    index: int  # i of seed + i
    info: EpisodeInfo
    steps: int
    latency_ms: tuple[float, ...] = ()  # observation -> action, one per inference-bearing step
    on_time: int = 0  # control periods whose action was applied within 5 ms of the tick
    periods: int = 0  # control periods that had a deadline; 0 where nothing is in real time


class RolloutBackend(Protocol):
    """Runs the episodes in order of index; calls ``on_episode`` after each, committed ones only."""

    def __call__(self, request: RolloutRequest, on_episode: Callable[[EpisodeResult], None]) -> list[EpisodeResult]: ...
