"""One episode of an environment, step by step, as observations and frames."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_sim.observations import to_observation


class Episode:
    """Begins an episode on ``env`` and keeps what happens in it.

    Stamps count from 0 at the episode's begin, one control period a step; :func:`shifted` puts them on a clock.

    Args:
        env: as :func:`tandem_sim.registry.make` makes it.
        env_id: for the episode's facts.
        seed: of the episode.
    """

    def __init__(self, env: gymnasium.Env, env_id: str, seed: int) -> None:
        self._env = env
        self._embodiment: Embodiment = env.unwrapped.embodiment  # type: ignore[attr-defined]
        self._low, self._high = self._embodiment.action_low, self._embodiment.action_high
        self.env_id, self.seed = env_id, seed
        self.frames: list[Frame] = []
        self.done = False
        self.outcome = ""
        self.observation = self._observed(env.reset(seed=seed)[0])
        self._instruction = self.observation.instruction

    def step(self, requested: np.ndarray, source: Source, label: np.ndarray | None = None) -> Frame:
        """Executes ``requested`` (A,) float32 within the embodiment's limits and keeps the frame.

        Raises:
            TandemError: the action is not finite.
        """
        if not np.isfinite(requested).all():
            raise TandemError(
                f"episode with seed {self.seed}, step {len(self.frames)}: "
                f"action {requested.tolist()} of the {source.name.lower()} is not finite"
            )
        # the control gate of the ROS graph does the same: executed actions must be equal bit for bit
        limited = np.clip(requested, self._low, self._high)
        subgoal = self._subgoal()  # of before the step
        gym_obs, reward, terminated, truncated, info = self._env.step(limited)
        frame = Frame(
            observation=self.observation,
            action=info["executed_action"],
            source=source,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            success=bool(info["is_success"]),
            requested=requested,
            label=label,
            subgoal=subgoal,
        )
        self.frames.append(frame)
        self.observation = self._observed(gym_obs)
        self.done = frame.terminated or frame.truncated
        if self.done:
            self.outcome = info.get("outcome") or ("success" if frame.success else "failure")
        return frame

    def expert_action(self) -> np.ndarray:
        """What the environment's expert would do now, (A,) float32."""
        expert = getattr(self._env.unwrapped, "expert_action", None)
        if expert is None:
            raise TandemError(f"environment '{self.env_id}': it has no expert")
        return expert()

    def _subgoal(self) -> str:
        """What the environment's expert is about, if it was asked and tells it."""
        return self._env.unwrapped.subgoal if self._embodiment.tells_subgoals else ""  # type: ignore[attr-defined]

    def leave(self, images: bool) -> None:
        """Parts a finished episode from its environment, so that another process can have it.

        Args:
            images: whether the frames keep theirs.
        """
        self._env = None  # type: ignore[assignment]
        if not images:
            blind = [replace(frame.observation, images={}) for frame in self.frames]
            self.frames = [replace(frame, observation=seen) for frame, seen in zip(self.frames, blind, strict=True)]

    def info(self, begin_ns: int = 0, provenance: Mapping[str, Any] | None = None) -> EpisodeInfo:
        """The episode's facts; it ends with its last frame's stamp."""
        return EpisodeInfo(
            seed=self.seed,
            instruction=self._instruction,
            env=self.env_id,
            outcome=self.outcome,
            success=bool(self.frames) and self.frames[-1].success,
            begin_ns=begin_ns,
            end_ns=begin_ns + max(len(self.frames) - 1, 0) * self._embodiment.period_ns,
            provenance=provenance or {},
        )

    def next_begin_ns(self, begin_ns: int) -> int:
        """When the next episode can begin on the same clock: the terminal observation takes a tick of its own."""
        return begin_ns + (len(self.frames) + 1) * self._embodiment.period_ns

    def _observed(self, gym_obs: Mapping[str, Any]) -> Observation:
        return to_observation(self._embodiment, gym_obs, len(self.frames) * self._embodiment.period_ns)


def shifted(frame: Frame, by_ns: int) -> Frame:
    """The same frame with its stamps moved."""
    seen = frame.observation
    own = {stream: stamp + by_ns for stream, stamp in seen.stream_stamps_ns.items()}
    return replace(frame, observation=replace(seen, stamp_ns=seen.stamp_ns + by_ns, stream_stamps_ns=own))
