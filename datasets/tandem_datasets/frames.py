"""What one control step and one episode consist of, for recording, training and serving alike."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError


class Source(IntEnum):
    """Who acted. The names are what ``frame_id`` of the ``action`` topic carries."""

    POLICY = 0
    PERSON = 1
    EXPERT = 2
    HOLD = 3  # nobody: the gate held


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one control step."""

    images: Mapping[str, np.ndarray]  # per camera: (H, W, C) uint8, or uint16 for depth and segmentation
    state: np.ndarray  # (S,) float32, in the order of Embodiment.state
    instruction: str  # "" if none is heard
    stamp_ns: int  # the tick that this observation belongs to
    stream_stamps_ns: Mapping[str, int] = field(default_factory=dict)  # "state" or camera name -> own stamp

    def stream_stamp_ns(self, stream: str) -> int:
        """The own stamp of a camera or of ``state``; the tick's, if none was given."""
        return self.stream_stamps_ns.get(stream, self.stamp_ns)


@dataclass(frozen=True)
class Frame:
    """One control step: an observation and what was done on it. T observations go with T actions."""

    observation: Observation
    action: np.ndarray  # (A,) float32, really executed
    source: Source  # who acted
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool = False  # reached at the end of this step
    requested: np.ndarray | None = None  # (A,) float32, asked for before the gate
    label: np.ndarray | None = None  # (A,) float32, what an expert would have done
    subgoal: str = ""  # what the expert was about, such as "grasp the red 2x4"; of embodiments that tell it


@dataclass(frozen=True)
class EpisodeInfo:
    """One episode's facts. Stamps are nanoseconds."""

    seed: int
    instruction: str  # the task, as it was put at the begin; frames carry their own
    env: str = ""  # Gymnasium id, or a robot's name
    outcome: str = ""  # "success", or the kind of failure in one word
    success: bool = False
    begin_ns: int = 0
    end_ns: int = 0
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    provenance: Mapping[str, Any] = field(default_factory=dict)  # policy, hash, code version, operator ... (JSON)
    failure_reason: str = ""  # what a person says about it
    deleted: bool = False  # a mark: kept on the disk until the store is compacted, left out by what trains and exports


def blank_observation(embodiment: Embodiment) -> Observation:
    """What fits the embodiment and shows nothing: black images, a state in the middle of its limits, two words."""
    return Observation(
        images={camera.name: np.zeros(camera.shape, camera.dtype) for camera in embodiment.cameras},
        state=(embodiment.state_low + embodiment.state_high) / 2,
        instruction="warm up" if embodiment.hears_instruction else "",
        stamp_ns=0,
    )


def check_observation(embodiment: Embodiment, observation: Observation, where: str, more: bool = False) -> None:
    """Raises TandemError naming the first field that does not fit the embodiment.

    With ``more``, images of further cameras may be there: a policy fits a robot that has more than it looks at.
    """
    names, there = {camera.name for camera in embodiment.cameras}, set(observation.images)
    if not names <= there or (there != names and not more):
        raise TandemError(f"{where}: cameras {sorted(observation.images)} (allowed: {sorted(names)})")
    for camera in embodiment.cameras:
        image = observation.images[camera.name]
        if not isinstance(image, np.ndarray):
            raise TandemError(f"{where}: camera '{camera.name}' is a {type(image).__name__} (allowed: a numpy array)")
        if image.shape != camera.shape or image.dtype != camera.dtype:
            raise TandemError(
                f"{where}: camera '{camera.name}' is {image.dtype} {image.shape} "
                f"(allowed: {camera.dtype} {camera.shape})"
            )
    check_vector(observation.state, embodiment.state_dim, f"{where}: state")


def check_vector(vector: np.ndarray, size: int, where: str) -> None:
    """Raises TandemError unless ``vector`` is finite float32 of shape (size,)."""
    if not isinstance(vector, np.ndarray):
        raise TandemError(f"{where} is a {type(vector).__name__} (allowed: float32 {(size,)})")
    if vector.shape != (size,) or vector.dtype != np.float32:
        raise TandemError(f"{where} is {vector.dtype} {vector.shape} (allowed: float32 {(size,)})")
    if not np.isfinite(vector).all():
        raise TandemError(f"{where} is not finite: {vector.tolist()}")
