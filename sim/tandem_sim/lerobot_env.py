"""An environment as LeRobot's evaluation steps it, without importing LeRobot: its worker processes start here."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.rollout import EnvSpec
from tandem_sim import registry

SEED = "episode_seed"
_SEED_PARTS = 4  # 16 bits each: LeRobot hands extra observations on as float32, which keeps these whole


def make(spec: EnvSpec) -> gymnasium.Env:
    """The environment, made to render pictures for LeRobot's videos; errors as for :func:`tandem_sim.registry.make`."""
    options = {"render_mode": "rgb_array", **spec.options}
    return LeRobotEnv(registry.make(replace(spec, options=options)))


class LeRobotEnv(gymnasium.Wrapper):
    """What LeRobot's evaluation does not do by itself, so that the same seeds end as in ``tandem eval``.

    Actions are limited to the embodiment's limits, as by every other gate of Tandem. An episode that has ended stays
    as it is until the next seed: LeRobot steps on until the last one of a batch ends, and counts a success in the step
    after an end. The instruction is no observation (LeRobot asks for ``task_description``), but the episode's seed is:
    ``episode_seed`` uint16 (4,), 16 bits each, the lowest first; stochastic policies draw their noise from it.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        body: Embodiment = env.unwrapped.embodiment  # type: ignore[attr-defined]
        self._low, self._high = body.action_low, body.action_high
        self._seed: np.ndarray = np.zeros(_SEED_PARTS, np.uint16)
        self._ended: tuple[dict, float, bool, bool, dict] | None = None
        assert isinstance(env.observation_space, spaces.Dict)
        parts = {key: space for key, space in env.observation_space.spaces.items() if key != "instruction"}
        parts[SEED] = spaces.Box(0, 2**16 - 1, (_SEED_PARTS,), np.uint16)
        self.observation_space = spaces.Dict(parts)
        self.task = env.spec.id if env.spec else ""

    @property
    def task_description(self) -> str:
        """The current instruction."""
        return self.env.unwrapped.task_description  # type: ignore[attr-defined]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begins an episode; the reset without arguments by which a vector environment goes on is passed over."""
        if self._ended is not None and seed is None and options is None:
            return self._ended[0], self._ended[4]
        self._ended = None
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        self._seed = np.array([number >> 16 * place & 0xFFFF for place in range(_SEED_PARTS)], np.uint16)
        observation, info = self.env.reset(seed=number)
        return self._seen(observation), info

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """One step; after the end the last one again, without its reward."""
        if self._ended is not None:
            return self._ended
        observation, reward, terminated, truncated, info = self.env.step(np.clip(action, self._low, self._high))
        seen = self._seen(observation)
        if terminated or truncated:
            self._ended = (seen, 0.0, terminated, truncated, info)
        return seen, float(reward), terminated, truncated, info

    def _seen(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {**{key: value for key, value in observation.items() if key != "instruction"}, SEED: self._seed}
