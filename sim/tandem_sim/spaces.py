"""Gymnasium spaces that follow from an :class:`~tandem_datasets.embodiment.Embodiment`."""

import string

import numpy as np
from gymnasium import spaces

from tandem_datasets.embodiment import Camera, Embodiment

MAX_INSTRUCTION = 256  # characters


def observation_space(embodiment: Embodiment) -> spaces.Dict:
    """``pixels`` per camera (H, W, C), ``agent_pos`` (S,) float32 and ``instruction``, where there are any."""
    parts: dict[str, spaces.Space] = {}
    if embodiment.cameras:
        parts["pixels"] = spaces.Dict({camera.name: _picture(camera) for camera in embodiment.cameras})
    if embodiment.state:
        parts["agent_pos"] = spaces.Box(embodiment.state_low, embodiment.state_high, dtype=np.float32)
    if embodiment.hears_instruction:
        parts["instruction"] = spaces.Text(MAX_INSTRUCTION, min_length=0, charset=string.printable)
    return spaces.Dict(parts)


def action_space(embodiment: Embodiment) -> spaces.Box:
    """One control step's command (A,) float32 within the embodiment's limits; raises TandemError if it has none."""
    embodiment.require_action("action space")
    return spaces.Box(embodiment.action_low, embodiment.action_high, dtype=np.float32)


def _picture(camera: Camera) -> spaces.Box:
    return spaces.Box(0, np.iinfo(camera.dtype).max, camera.shape, camera.dtype.type)
