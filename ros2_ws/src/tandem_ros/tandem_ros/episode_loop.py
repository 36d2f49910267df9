"""The one owner of episodes: in which order robot, policy and recorder go from one episode to the next. Knows no ROS.

Between two episodes: the recording is finished while simulation (paused) and policy are reset, then the recording
begins, then the simulation is released. Each step is acknowledged. The seed is set once; it counts up with the episodes
by itself, and every reset tells which one it took.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_ros.stats import EpisodeReport, EpisodeStats


class Answer(Protocol):
    """A call under way; both wait for it and raise TandemError if it is late or refused."""

    def message(self) -> str: ...

    def accepted(self) -> None: ...


class Participant(Protocol):
    """A node with Trigger services and parameters."""

    def trigger(self, service: str, timeout_s: float) -> Answer: ...

    def set(self, values: Mapping[str, Any], timeout_s: float) -> Answer: ...


@dataclass(frozen=True)
class Plan:
    """Which episodes to run. Episode i uses ``seed + i``."""

    episodes: int
    seed: int
    env: str = ""  # for the record
    provenance: Mapping[str, Any] = field(default_factory=dict)
    call_timeout_s: float = 10.0  # of every acknowledgement
    ready_timeout_s: float = 300.0  # of the first reset and release: nodes may still be starting
    episode_timeout_s: float = 600.0  # of a whole episode


@dataclass(frozen=True)
class _Ended:
    """An episode that has run and waits for its recording to be finished."""

    index: int
    info: EpisodeInfo
    stats: EpisodeStats


class EpisodeLoop:
    """Runs a plan.

    Args:
        plan: which episodes.
        robot: services reset, release and result, parameter ``episode.seed``.
        policy: service reset, parameter ``episode.seed``; None where the environment's expert acts.
        recorder: services begin and finish, parameters ``begin.*`` and ``finish.*``; None to record nothing.
        began: told the facts of an episode that now runs.
        ended: told the report of an episode that is over, and committed if it is recorded.
    """

    def __init__(
        self,
        plan: Plan,
        robot: Participant,
        policy: Participant | None,
        recorder: Participant | None,
        began: Callable[[EpisodeInfo], None],
        ended: Callable[[EpisodeReport], None],
    ) -> None:
        self._plan = plan
        self._robot = robot
        self._policy = policy
        self._recorder = recorder
        self._began = began
        self._ended = ended
        self._provenance = dict(plan.provenance)

    def run(self) -> None:
        """All episodes; raises TandemError for the first one that could not be run to its end."""
        for participant in (self._robot, self._policy):
            self._seed(participant, self._plan.seed)
        last: _Ended | None = None
        for index in range(self._plan.episodes):
            last = self._episode(index, last)
        if last is not None:
            self._ended(self._finish(last))

    def _episode(self, index: int, last: _Ended | None) -> _Ended:
        """Ends the recording of ``last``, then runs episode ``index``."""
        patience = self._plan.ready_timeout_s if last is None else self._plan.call_timeout_s
        robot = self._robot.trigger("reset", patience)
        policy = self._policy.trigger("reset", patience) if self._policy else None
        report = self._finish(last) if last else None
        if policy is not None:
            self._provenance["identity"] = self._reset(self._policy, policy, index)["identity"]
        start = self._reset(self._robot, robot, index)
        info = self._begin(index, start["begin_ns"], start["instruction"])
        self._robot.trigger("release", patience).message()
        result = self._robot.trigger("result", self._plan.episode_timeout_s)
        self._began(info)  # from here to the result there is time
        if report is not None:
            self._ended(report)
        stats = EpisodeStats.from_json(result.message())
        while stats.seed < info.seed:  # an earlier episode's end, told late
            stats = EpisodeStats.from_json(result.message())
        if stats.seed != info.seed:
            raise TandemError(f"episode {index}: ran with seed {stats.seed} (allowed: {info.seed})")
        info = EpisodeInfo(
            seed=info.seed,
            instruction=stats.instruction,
            env=info.env,
            outcome=stats.outcome,
            success=stats.success,
            begin_ns=stats.begin_ns,
            end_ns=stats.end_ns,
            uuid=info.uuid,
            provenance=info.provenance,
        )
        ended = _Ended(index, info, stats)
        if stats.error:
            self._finish(ended)
            raise TandemError(f"episode {index} (seed {info.seed}): {stats.error}")
        return ended

    def _reset(self, participant: Participant | None, answer: Answer, index: int) -> dict[str, Any]:
        """What a reset told; reset again if it was with another seed than the plan's."""
        assert participant is not None
        seed = self._plan.seed + index
        told = json.loads(answer.message())
        if told["seed"] != seed:  # somebody else, or a repeated call, has reset it as well
            self._seed(participant, seed)
            told = json.loads(participant.trigger("reset", self._plan.call_timeout_s).message())
        return told

    def _seed(self, participant: Participant | None, seed: int) -> None:
        if participant is not None:
            _set(participant, {"episode.seed": seed}, self._plan.ready_timeout_s)

    def _begin(self, index: int, begin_ns: int, instruction: str) -> EpisodeInfo:
        seed, timeout_s = self._plan.seed + index, self._plan.call_timeout_s
        provenance = dict(self._provenance)
        info = EpisodeInfo(
            seed=seed,
            instruction=instruction,
            env=self._plan.env,
            begin_ns=begin_ns,
            uuid=str(uuid.uuid4()),
            provenance=provenance,
        )
        if self._recorder is not None:
            values = {
                "begin.uuid": info.uuid,
                "begin.seed": seed,
                "begin.env": info.env,
                "begin.begin_ns": begin_ns,
                "begin.provenance": json.dumps(provenance),
            }
            _set(self._recorder, values, timeout_s)
            self._recorder.trigger("begin", timeout_s).message()
        return info

    def _finish(self, ended: _Ended) -> EpisodeReport:
        if self._recorder is None:
            return EpisodeReport(ended.index, ended.info, ended.stats)
        info, timeout_s = ended.info, self._plan.call_timeout_s
        values = {
            "finish.commit": not ended.stats.error,
            "finish.begin_ns": info.begin_ns,
            "finish.end_ns": info.end_ns,
            "finish.instruction": info.instruction,
            "finish.outcome": info.outcome,
            "finish.success": info.success,
        }
        _set(self._recorder, values, timeout_s)
        told = json.loads(self._recorder.trigger("finish", timeout_s).message())
        return EpisodeReport(ended.index, info, ended.stats, told["missing"], told["dropped"])


def _set(participant: Participant, values: Mapping[str, Any], timeout_s: float) -> None:
    participant.set(values, timeout_s).accepted()
