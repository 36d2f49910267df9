"""Tells LeRobot of Tandem's environments, when it is imported: ``--env.type=tandem --env.task=BlockFind-v0``."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EnvSpec
from tandem_sim import lerobot_env, registry


@EnvConfig.register_subclass("tandem")
@dataclass
class TandemEnv(EnvConfig):
    """An environment of Tandem's. Features and rate follow from its embodiment.

    Raises:
        TandemError: no such task, an option that it refuses, or a camera that is not rgb8.
    """

    task: str | None = "BlockFind-v0"  # after ``tandem/``
    options: dict[str, Any] = field(default_factory=dict)  # of the environment: {"wordings": "varied"}

    def __post_init__(self) -> None:
        body = registry.embodiment(self.spec)
        self.fps = round(body.rate_hz)
        self.features = {"action": PolicyFeature(FeatureType.ACTION, (body.action_dim,))}
        self.features_map = {"action": "action"}
        for camera in body.cameras:
            if camera.dtype != "uint8":
                raise TandemError(f"env '{self.gym_id}': camera '{camera.name}' is {camera.encoding} (allowed: rgb8)")
            key = f"observation.images.{camera.name}"  # LeRobot's recorder looks for pixels under this key
            self.features[key] = PolicyFeature(FeatureType.VISUAL, camera.shape)
            self.features_map[key] = key
        if body.state:
            self.features["agent_pos"] = PolicyFeature(FeatureType.STATE, (body.state_dim,))
            self.features_map["agent_pos"] = "observation.state"

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(self.gym_id, self.options)

    @property
    def package_name(self) -> str:
        return "tandem_sim"

    @property
    def gym_id(self) -> str:
        return f"tandem/{(self.task or '').removeprefix('tandem/')}"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return dict(self.options)

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """One task, ``n_envs`` of it; workers of the asynchronous kind import no LeRobot."""
        makers = [partial(lerobot_env.make, self.spec)] * n_envs
        same_step = AutoresetMode.SAME_STEP
        envs: VectorEnv = (
            AsyncVectorEnv(makers, autoreset_mode=same_step, context="forkserver")
            if use_async_envs and n_envs > 1
            else SyncVectorEnv(makers, autoreset_mode=same_step)
        )
        return {self.type: {0: envs}}
