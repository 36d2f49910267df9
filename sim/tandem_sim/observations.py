"""The one translation between a Gymnasium observation and a Tandem observation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.frames import Observation


def to_observation(embodiment: Embodiment, gym_obs: Mapping[str, Any], stamp_ns: int) -> Observation:
    """A Gymnasium observation of a Tandem environment as what a policy sees at the tick ``stamp_ns``.

    Arrays are passed on, not copied: a Gymnasium environment gives fresh ones at each step.
    """
    pixels = gym_obs.get("pixels", {})
    return Observation(
        images={camera.name: pixels[camera.name] for camera in embodiment.cameras},
        state=gym_obs["agent_pos"] if embodiment.state else np.zeros(0, np.float32),
        instruction=gym_obs["instruction"] if embodiment.hears_instruction else "",
        stamp_ns=stamp_ns,
    )


def from_observation(embodiment: Embodiment, observation: Observation) -> dict[str, Any]:
    """The inverse of :func:`to_observation`."""
    gym_obs: dict[str, Any] = {}
    if embodiment.cameras:
        gym_obs["pixels"] = {camera.name: observation.images[camera.name] for camera in embodiment.cameras}
    if embodiment.state:
        gym_obs["agent_pos"] = observation.state
    if embodiment.hears_instruction:
        gym_obs["instruction"] = observation.instruction
    return gym_obs
