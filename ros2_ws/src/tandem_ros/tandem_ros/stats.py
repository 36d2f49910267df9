"""What is counted in an episode, and how it travels: as JSON between nodes, as an EpisodeResult to the evaluation."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.rollout import EpisodeResult

ON_TIME_NS = 5_000_000
"""An action applied within this of its tick is on time."""


@dataclass
class EpisodeStats:
    """One episode as the simulation saw it. Stamps are nanoseconds."""

    seed: int
    begin_ns: int
    end_ns: int = 0  # the last frame's stamp
    steps: int = 0
    success: bool = False
    outcome: str = ""
    instruction: str = ""
    error: str = ""  # why the episode could not be run to its end; it is not committed then
    latency_ms: list[float] = field(default_factory=list)  # observation -> action, one per fresh inference
    on_time: int = 0
    periods: int = 0  # control periods with a deadline: none in lock-step
    jitter_ms: float = 0.0  # how late the latest tick woke
    resent: int = 0  # observations sent again
    counts: dict[str, int] = field(default_factory=dict)  # the gate's

    def to_json(self) -> str:
        """The inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "EpisodeStats":
        """Raises TandemError if ``text`` is not what :meth:`to_json` gives."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise TandemError(f"simulation/result: {error} in {text[:80]!r}") from error


@dataclass(frozen=True)
class EpisodeReport:
    """One finished episode as the episode manager tells it."""

    index: int
    info: EpisodeInfo
    stats: EpisodeStats
    missing: int = 0  # frames that never reached the recorder
    dropped: int = 0  # messages from before the episode

    def to_json(self) -> str:
        """One line, the inverse of :meth:`from_json`."""
        info = asdict(self.info)
        return json.dumps({"index": self.index, "info": info, "stats": asdict(self.stats), "missing": self.missing,
                           "dropped": self.dropped})  # fmt: skip

    @classmethod
    def from_json(cls, line: str) -> "EpisodeReport":
        """Raises TandemError if the line is not what :meth:`to_json` gives."""
        try:
            data: Mapping[str, Any] = json.loads(line)
            info, stats = EpisodeInfo(**data["info"]), EpisodeStats(**data["stats"])
            return cls(data["index"], info, stats, data["missing"], data["dropped"])
        except (TypeError, ValueError, KeyError) as error:
            raise TandemError(f"episode report: {error!r} in {line[:80]!r}") from error

    def to_result(self) -> EpisodeResult:
        """What a rollout backend gives."""
        stats = self.stats
        return EpisodeResult(self.index, self.info, stats.steps, tuple(stats.latency_ms), stats.on_time, stats.periods)

    def to_values(self) -> dict[str, str]:
        """Key-value pairs of the ``episode`` topic."""
        info, stats = self.info, self.stats
        latencies = sorted(stats.latency_ms)
        values = {
            "index": self.index, "uuid": info.uuid, "seed": info.seed, "instruction": info.instruction,
            "env": info.env, "begin_ns": info.begin_ns, "end_ns": info.end_ns, "frames": stats.steps,
            "outcome": info.outcome, "success": info.success, "missing": self.missing, "dropped": self.dropped,
            "resent": stats.resent, "on_time": stats.on_time, "periods": stats.periods, "jitter_ms": stats.jitter_ms,
            "latency_p50_ms": _at(latencies, 0.5), "latency_p99_ms": _at(latencies, 0.99), **stats.counts,
        }  # fmt: skip
        return {key: str(value) for key, value in values.items()}


def _at(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)))], 3) if ordered else math.nan
