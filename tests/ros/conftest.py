"""Embodiments and frames that the ROS tests share."""

import os

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np
import pytest

from tandem_datasets.embodiment import (
    ActionKind,
    ActionScalar,
    Camera,
    Embodiment,
    Encoding,
    Intrinsics,
    StateScalar,
    StateSource,
)
from tandem_datasets.frames import Frame, Observation, Source


@pytest.fixture(scope="session")
def arm() -> Embodiment:
    """Everything an embodiment can have: joints with all three measurements, a depth camera, absolute targets."""
    return Embodiment(
        name="arm",
        rate_hz=20.0,
        hears_instruction=True,
        cameras=(
            Camera("wrist", 6, 8, frame_id="wrist_optical", intrinsics=Intrinsics(10.0, 11.0, 4.0, 3.0)),
            Camera("depth", 4, 5, encoding=Encoding.DEPTH),
        ),
        state=(
            StateScalar("elbow", "rad", -2.0, 2.0, StateSource.JOINT_POSITION),
            StateScalar("tcp/x", "m", -1.0, 1.0, StateSource.POSE, frame="base"),
            StateScalar("wrist", "rad", -2.0, 2.0, StateSource.JOINT_POSITION),
            StateScalar("elbow", "rad/s", -9.0, 9.0, StateSource.JOINT_VELOCITY),
            StateScalar("wrist", "N", -5.0, 5.0, StateSource.JOINT_EFFORT),
            StateScalar("grip", "1", 0.0, 1.0, StateSource.GRIP),
        ),
        action=(
            ActionScalar("elbow", "rad", -2.0, 2.0, ActionKind.ABSOLUTE, rate_limit=4.0),
            ActionScalar("wrist", "rad", -2.0, 2.0, ActionKind.ABSOLUTE),
            ActionScalar("grip", "1", -0.5, 0.5, ActionKind.DELTA_STEP),
        ),
    )


@pytest.fixture(scope="session")
def blockfind() -> Embodiment:
    """BlockFind's embodiment."""
    from tandem_sim.blockfind.task import EMBODIMENT

    return EMBODIMENT


def random_frame(embodiment: Embodiment, rng: np.random.Generator, stamp_ns: int, instruction: str = "go") -> Frame:
    """A frame of noise, float32 values with all their bits in use."""
    images = {
        camera.name: rng.integers(0, np.iinfo(camera.dtype).max, camera.shape, camera.dtype, endpoint=True)
        for camera in embodiment.cameras
    }
    state = rng.uniform(embodiment.state_low, embodiment.state_high).astype(np.float32)
    requested = rng.normal(0, 3, embodiment.action_dim).astype(np.float32)
    return Frame(
        observation=Observation(images, state, instruction, stamp_ns),
        action=np.clip(requested, embodiment.action_low, embodiment.action_high),
        source=Source.POLICY,
        reward=float(np.float32(rng.normal())),
        requested=requested,
        label=rng.normal(0, 1, embodiment.action_dim).astype(np.float32),
    )


@pytest.fixture
def make_frame():
    """:func:`random_frame`."""
    return random_frame
