"""A simulated robot: an environment behind the control gate, one control step at a time. Knows no ROS and no clock."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Frame, Observation, Source
from tandem_ros.gate import Chunk, ControlGate
from tandem_ros.stats import EpisodeStats
from tandem_sim.observations import to_observation


class SimulatedRobot:
    """Steps the environment with what the gate lets through.

    Args:
        env: a Tandem environment.
        lockstep: see :class:`ControlGate`.
        expert_acts: the environment's own expert asks for every action.
        labels: every frame carries what the expert would have done.
    """

    def __init__(
        self, env: gymnasium.Env, lockstep: bool = True, expert_acts: bool = False, labels: bool = False
    ) -> None:
        self.env = env
        self.embodiment: Embodiment = env.unwrapped.embodiment  # type: ignore[attr-defined]
        self.gate = ControlGate(self.embodiment, lockstep)
        self.stats = EpisodeStats(seed=0, begin_ns=0)
        self.observation: Observation | None = None  # the one that the next step acts on
        self._expert_acts = expert_acts
        self._labels = labels
        self._instruction: str | None = None
        self._over = False
        if (expert_acts or labels) and not hasattr(env.unwrapped, "expert_action"):
            raise TandemError(f"environment of '{self.embodiment.name}': it has no expert")

    @property
    def is_over(self) -> bool:
        """Whether an episode has run to its end, or failed."""
        return self._over

    def reset(self, seed: int, begin_ns: int) -> Observation:
        """Begins an episode whose first observation is stamped ``begin_ns``."""
        gym_obs, _ = self.env.reset(seed=seed)
        self._instruction, self._over = None, False
        self.gate.begin(begin_ns)
        first = self._observe(gym_obs, begin_ns)
        self.stats = EpisodeStats(seed=seed, begin_ns=begin_ns, instruction=first.instruction)
        return first

    def restamp(self, begin_ns: int) -> Observation:
        """Moves the begin of an episode that has not taken a step yet."""
        assert self.observation is not None
        assert not self.stats.steps
        first = self.observation
        self.gate.begin(begin_ns)
        self.stats.begin_ns = begin_ns
        return self._see(Observation(first.images, first.state, first.instruction, begin_ns))

    def instruct(self, instruction: str) -> None:
        """Changes what is asked for: holds from the next observation on, to the end of the episode."""
        self._instruction = instruction

    def answered(self) -> bool:
        """Lock-step: whether the current observation has its answer."""
        return self.observation is not None and self.gate.answered(self.observation.stamp_ns)

    def step(self, next_ns: int) -> Frame:
        """Executes one action; :attr:`observation` is then that of ``next_ns``, or None after the last step."""
        observed = self.observation
        assert observed is not None, "no episode runs"
        label = self._label()
        decision = self.gate.decide(observed.stamp_ns)
        gym_obs, reward, terminated, truncated, info = self.env.step(decision.action)
        executed = np.array(info["executed_action"], np.float32)
        self.gate.executed(executed)
        frame = Frame(
            observation=observed,
            action=executed,
            source=decision.source,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            success=bool(info["is_success"]),
            requested=decision.requested,
            label=label,
        )
        self.stats.steps += 1
        if terminated or truncated:
            self._end(info, frame)
        else:
            self._observe(gym_obs, next_ns)
        return frame

    def fail(self, error: str) -> None:
        """Ends the episode for a reason outside it."""
        self.stats.error = error
        self._close()

    def _end(self, info: Mapping[str, Any], last: Frame) -> None:
        self.stats.success = last.success
        self.stats.outcome = str(info.get("outcome") or ("success" if last.success else "failure"))
        self._close()

    def _close(self) -> None:
        steps = max(self.stats.steps, 1)
        self.stats.end_ns = self.stats.begin_ns + (steps - 1) * self.embodiment.period_ns
        self.stats.counts = dict(self.gate.counts)
        self.observation, self._over = None, True

    def _observe(self, gym_obs: Mapping[str, Any], stamp_ns: int) -> Observation:
        seen = to_observation(self.embodiment, gym_obs, stamp_ns)
        if self._instruction is not None:
            seen = Observation(seen.images, seen.state, self._instruction, stamp_ns)
        return self._see(seen)

    def _see(self, observation: Observation) -> Observation:
        self.observation = observation
        self.gate.observe(observation.stamp_ns, observation.state)
        self._wish: np.ndarray | None = None
        if self._expert_acts:
            wish = self._expert()
            self.gate.offer(Chunk(observation.stamp_ns, wish[None], Source.EXPERT))
        return observation

    def _label(self) -> np.ndarray | None:
        return self._expert() if self._labels else None

    def _expert(self) -> np.ndarray:
        """What the expert would do on the current observation; asked once."""
        if self._wish is None:
            self._wish = np.asarray(self.env.unwrapped.expert_action(), np.float32)  # type: ignore[attr-defined]
        return self._wish
