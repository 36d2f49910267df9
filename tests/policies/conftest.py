"""Embodiments, observations and batches that the tests of policies share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.frames import Observation
from tandem_policies.network import PolicyNetwork

torch.set_num_threads(1)


def make_body(
    cameras: tuple[Camera, ...] = (Camera("top", 32, 32),), states: int = 2, actions: int = 2, hears: bool = True
) -> Embodiment:
    return Embodiment(
        name="tester",
        rate_hz=10.0,
        hears_instruction=hears,
        cameras=cameras,
        state=tuple(StateScalar(f"agent/s{i}", "m", -1.0, 1.0, StateSource.POSE) for i in range(states)),
        action=tuple(ActionScalar(f"agent/a{i}", "m", -1.0, 1.0, ActionKind.DELTA_STEP) for i in range(actions)),
    )


def make_observation(body: Embodiment, seed: int = 0, instruction: str = "find the red block") -> Observation:
    rng = np.random.default_rng(seed)
    images = {camera.name: rng.integers(0, 256, camera.shape).astype(camera.dtype) for camera in body.cameras}
    state = rng.uniform(-1, 1, body.state_dim).astype(np.float32)
    return Observation(images, state, instruction if body.hears_instruction else "", stamp_ns=0)


def make_batch(network: PolicyNetwork, size: int = 3, seed: int = 0) -> dict[str, Tensor]:
    body = network.embodiment
    rng = np.random.default_rng(seed)
    batch = {
        f"images.{camera.name}": torch.from_numpy(rng.integers(0, 256, (size, *camera.shape)).astype(np.uint8))
        for camera in body.cameras
    }
    shape = (size, network.chunk_size, body.action_dim)
    batch["state"] = torch.from_numpy(rng.uniform(-1, 1, (size, body.state_dim)).astype(np.float32))
    batch["action"] = torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))
    batch["action_is_pad"] = torch.zeros(shape[:2], dtype=torch.bool)
    words = ["find the red block", "go", "please move to the blue one"]
    return batch | network.tokenize([words[i % 3] for i in range(size)])


def make_statistics(body: Embodiment) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    sizes = {"state": body.state_dim, "action": body.action_dim}
    return {
        key: {quantity: rng.uniform(0.5, 1.5, size).astype(np.float32) for quantity in ("mean", "std", "min", "max")}
        for key, size in sizes.items()
    }


@pytest.fixture
def body() -> Callable[..., Embodiment]:
    return make_body


@pytest.fixture
def observation() -> Callable[..., Observation]:
    return make_observation


@pytest.fixture
def batch_of() -> Callable[..., dict[str, Tensor]]:
    return make_batch


@pytest.fixture
def statistics_of() -> Callable[..., dict[str, dict[str, np.ndarray]]]:
    return make_statistics
