"""An embodiment with everything that a store can hold, and frames that differ in every field."""

from collections.abc import Callable
from dataclasses import replace

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

MakeFrames = Callable[..., list[Frame]]


@pytest.fixture(scope="session")
def embodiment() -> Embodiment:
    return Embodiment(
        name="rig",
        rate_hz=30.0,
        hears_instruction=True,
        cameras=(
            Camera("top", 6, 8, frame_id="board", intrinsics=Intrinsics(9.0, 9.0, 4.0, 3.0, (0.1, 0.0, 0.0, 0.0, 0.0))),
            Camera("deep", 4, 5, Encoding.DEPTH, rate_hz=15.0),
        ),
        state=(
            StateScalar("elbow", "rad", -2.0, 2.0, StateSource.JOINT_POSITION),
            StateScalar("elbow", "rad/s", -9.0, 9.0, StateSource.JOINT_VELOCITY),
            StateScalar("tcp/x", "m", -1.0, 1.0, StateSource.POSE, frame="base"),
        ),
        action=(
            ActionScalar("elbow", "rad", -2.0, 2.0, ActionKind.ABSOLUTE, rate_limit=3.0),
            ActionScalar("tcp/dx", "m", -0.1, 0.1, ActionKind.DELTA_STEP, frame="base"),
        ),
    )


@pytest.fixture(scope="session")
def blind(embodiment: Embodiment) -> Embodiment:
    """No camera, one state scalar, one action scalar."""
    return replace(embodiment, name="blind", cameras=(), state=embodiment.state[:1], action=embodiment.action[:1])


@pytest.fixture(scope="session")
def make_frames() -> MakeFrames:
    def make(embodiment: Embodiment, count: int, seed: int = 0, begin_ns: int = 0) -> list[Frame]:
        rng = np.random.default_rng(seed)

        def vector(size: int) -> np.ndarray:
            return rng.standard_normal(size).astype(np.float32)

        def frame(t: int) -> Frame:
            stamp = begin_ns + t * embodiment.period_ns
            images = {
                camera.name: rng.integers(0, np.iinfo(camera.dtype).max, camera.shape, camera.dtype, endpoint=True)
                for camera in embodiment.cameras
            }
            return Frame(
                observation=Observation(
                    images=images,
                    state=vector(embodiment.state_dim),
                    instruction=("find the red block", "finde den roten Würfel")[t % 3 == 2],
                    stamp_ns=stamp,
                    stream_stamps_ns={name: stamp - int(rng.integers(9)) for name in (*images, "state")},
                ),
                action=vector(embodiment.action_dim),
                source=list(Source)[t % len(Source)],
                reward=float(rng.standard_normal()),
                terminated=t == count - 1,
                truncated=bool(rng.integers(2)),
                success=bool(rng.integers(2)),
                requested=vector(embodiment.action_dim) if t % 2 else None,
                label=vector(embodiment.action_dim) if t % 3 else None,
            )

        return [frame(t) for t in range(count)]

    return make


@pytest.fixture(scope="session")
def assert_same_frames() -> Callable[[list[Frame], list[Frame]], None]:
    """Equal in every field, arrays byte for byte."""

    def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        if a is None or b is None:
            return a is b
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    def check(found: list[Frame], expected: list[Frame]) -> None:
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            seen, shown = a.observation, b.observation
            assert set(seen.images) == set(shown.images)
            assert all(same(seen.images[name], shown.images[name]) for name in shown.images)
            assert same(seen.state, shown.state)
            assert (seen.instruction, seen.stamp_ns) == (shown.instruction, shown.stamp_ns)
            assert seen.stream_stamps_ns == shown.stream_stamps_ns
            for key in ("action", "requested", "label"):
                assert same(getattr(a, key), getattr(b, key)), key
            for key in ("source", "reward", "terminated", "truncated", "success"):
                assert getattr(a, key) == getattr(b, key), key

    return check


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int, int], np.ndarray]:
    """Makes RGB pictures that look like a camera's: gradients, shapes, slight noise."""

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width]
        image = np.stack([60 + 80 * x / width, 128 + 60 * np.sin(x / 20 + seed), 80 + 90 * y / height], -1)
        top, left = rng.integers(0, (height // 2, width // 2))
        image[top : top + height // 4, left : left + width // 4] = rng.integers(0, 255, 3)
        return (image + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8)

    return make
