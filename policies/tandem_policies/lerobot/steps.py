"""Steps of LeRobot's processors that are ours: for instructions and small images. Importing it registers them there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import ProcessorStep, ProcessorStepRegistry
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from torch import Tensor
from torch.nn import functional as F

from tandem_datasets.errors import TandemError
from tandem_policies.lerobot.embedding import embed

NAME = "tandem_instruction_embedding"
ENLARGE = "tandem_enlarge_images"
_IMAGE = "observation.image"  # how the keys of images begin


@dataclass
@ProcessorStepRegistry.register(name=NAME)
class InstructionEmbeddingStep(ProcessorStep):
    """Gives a policy without language its instruction: the embedding of ``task`` as a part of the observation.

    It stands behind the step that adds the batch axis and before the one that normalises.

    Args:
        size: numbers of the embedding.
        key: ``observation.environment_state``, or ``observation.state`` to append them to the state, for policies
            that look at nothing else.
    """

    size: int = 64
    key: str = OBS_ENV_STATE

    def __post_init__(self) -> None:
        if self.key not in (OBS_ENV_STATE, OBS_STATE):
            raise TandemError(f"{NAME}: key is {self.key!r:.60} (allowed: {OBS_ENV_STATE}, {OBS_STATE})")

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Raises TandemError if there is no task."""
        task = (transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        if task is None:
            raise TandemError(f"{NAME}: the observation has no 'task' (wanted: the instruction, one text a row)")
        observation: dict[str, Any] = dict(transition[TransitionKey.OBSERVATION] or {})
        texts = [task] if isinstance(task, str) else list(task)
        rows = torch.from_numpy(np.stack([embed(text, self.size) for text in texts]))
        steps = _time_steps(observation)
        if steps:
            rows = rows.unsqueeze(1).expand(-1, steps, -1)
        if self.key == OBS_STATE:
            state = observation[OBS_STATE]
            rows = torch.cat([state, rows.to(state)], dim=-1)
        observation[self.key] = rows
        result = transition.copy()
        result[TransitionKey.OBSERVATION] = observation
        return result

    def get_config(self) -> dict[str, Any]:
        return {"size": self.size, "key": self.key}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Adds the embedding's feature, or its numbers to the state's."""
        seen = dict(features[PipelineFeatureType.OBSERVATION])
        if self.key == OBS_STATE:
            seen[OBS_STATE] = PolicyFeature(FeatureType.STATE, (seen[OBS_STATE].shape[0] + self.size,))
        else:
            seen[OBS_ENV_STATE] = PolicyFeature(FeatureType.ENV, (self.size,))
        return {**features, PipelineFeatureType.OBSERVATION: seen}


@dataclass
@ProcessorStepRegistry.register(name=ENLARGE)
class EnlargeImagesStep(ProcessorStep):
    """Makes a square of ``factor`` pixels a side of each pixel, for backbones whose feature maps are coarse.

    A ResNet-18 sees 64 pixels as 2 x 2 features, too few to tell cells of a board apart; enlarged by 4 as 8 x 8.
    """

    factor: int = 1

    def __post_init__(self) -> None:
        if type(self.factor) is not int or not 1 <= self.factor <= 16:
            raise TandemError(f"{ENLARGE}: factor is {self.factor!r:.60} (allowed: 1..16)")

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Images (..., H, W) to (..., factor * H, factor * W)."""
        observation: dict[str, Any] = dict(transition[TransitionKey.OBSERVATION] or {})
        for key, value in observation.items():
            if key.startswith(_IMAGE):
                rows = value.flatten(0, -4) if value.ndim > 4 else value
                # nearest: exact copies; unlike repeating, it keeps the order in memory that convolutions are quick with
                large = F.interpolate(rows, scale_factor=self.factor, mode="nearest")
                observation[key] = large.view(*value.shape[:-2], *large.shape[-2:]) if value.ndim > 4 else large
        result = transition.copy()
        result[TransitionKey.OBSERVATION] = observation
        return result

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Images become larger."""
        seen = dict(features[PipelineFeatureType.OBSERVATION])
        for key, feature in seen.items():
            if key.startswith(_IMAGE):
                channels, height, width = feature.shape
                seen[key] = PolicyFeature(feature.type, (channels, self.factor * height, self.factor * width))
        return {**features, PipelineFeatureType.OBSERVATION: seen}


def _time_steps(observation: dict[str, Any]) -> int:
    """How many observations each row is a history of; 0 where there is no time axis."""
    for key, value in observation.items():
        ndim = 5 if key.startswith(_IMAGE) else 3 if key == OBS_STATE else None
        if isinstance(value, Tensor) and value.ndim == ndim:
            return value.shape[1]
    return 0
