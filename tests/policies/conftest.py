"""Embodiments, observations and batches that the tests of policies share."""

from collections.abc import Callable, Iterable, Sequence

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


def make_batch(
    network: PolicyNetwork,
    size: int = 3,
    seed: int = 0,
    texts: Sequence[str] = ("find the red block", "go", "please move to the blue one"),
) -> dict[str, Tensor]:
    """Noise, with as many observations and past actions as the network wants; the texts by turns."""
    body, steps, past = network.embodiment, network.n_obs_steps, network.n_past_actions
    rng = np.random.default_rng(seed)
    seen = (size,) if steps == 1 else (size, steps)

    def uniform(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))

    batch = {
        f"images.{camera.name}": torch.from_numpy(rng.integers(0, 256, (*seen, *camera.shape)).astype(np.uint8))
        for camera in body.cameras
    }
    batch["state"] = uniform(*seen, body.state_dim)
    batch["action"] = uniform(size, network.chunk_size, body.action_dim)
    batch["action_is_pad"] = torch.zeros(size, network.chunk_size, dtype=torch.bool)
    if past:
        batch["past_action"] = uniform(size, past, body.action_dim)
        batch["past_action_is_pad"] = torch.zeros(size, past, dtype=torch.bool)
    return batch | network.tokenize([texts[i % len(texts)] for i in range(size)])


def make_statistics(body: Embodiment) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    sizes = {"state": body.state_dim, "action": body.action_dim}
    return {
        key: {quantity: rng.uniform(0.5, 1.5, size).astype(np.float32) for quantity in ("mean", "std", "min", "max")}
        for key, size in sizes.items()
    }


def sign_descent(
    network: PolicyNetwork, batch_of_step: Callable[[int], dict[str, Tensor]], steps: int, rate: float, inertia: float
) -> list[float]:
    """Losses while parameters step along the sign of the gradient's running mean: torch's optimizers take seconds to
    import. Steps shrink to nothing; ``inertia`` 0 forgets all gradients but the newest.
    """
    losses = []
    momenta = [torch.zeros_like(value) for value in network.parameters()]
    for step in range(steps):
        loss = network.loss(batch_of_step(step))[0]
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        with torch.no_grad():
            for value, momentum, gradient in zip(network.parameters(), momenta, gradients, strict=True):
                if gradient is not None:
                    momentum.lerp_(gradient, 1 - inertia)
                    value.sub_(momentum.sign(), alpha=rate * (1 - step / steps))
    return losses


def sgd_steps(network: PolicyNetwork, batch: dict[str, Tensor], steps: Iterable[int], rate: float = 1e-3) -> None:
    """Trains on one batch with LeRobot's kind of loss, each step with the randomness of its number."""
    optimizer = torch.optim.SGD(network.parameters(), rate)
    for step in steps:
        torch.manual_seed(step)
        loss, told = network.train().loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        assert all(value.numel() == 1 and not value.requires_grad for value in told.values())
        assert told["loss"] == loss.detach()
    network.eval()


def repeated_chunks(network: PolicyNetwork, batch: dict[str, Tensor], noisy: bool) -> Tensor:
    """Chunks (3, K, A) for three keys, which alone decide: the same again, in a batch of one, and whatever the
    caller's randomness is, which stays as it was; other keys make others where there is noise.
    """
    keys = [(7, 0), (7, 1), (8, 0)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.no_grad():
        chunks = network.predict(batch, keys)
        assert torch.equal(torch.get_rng_state(), before), "predicting with keys moved the caller's generator"
        torch.manual_seed(99)
        assert torch.equal(network.predict(batch, keys), chunks)
        for row, key in enumerate(keys):
            alone = {name: value[row : row + 1] for name, value in batch.items()}
            torch.testing.assert_close(network.predict(alone, [key])[0], chunks[row], rtol=0, atol=1e-4)
        assert torch.equal(network.predict(batch, [(9, 9)] * 3), chunks) != noisy
    assert chunks.shape == (3, network.config.chunk_size, network.embodiment.action_dim)
    assert chunks.dtype == torch.float32
    assert chunks.isfinite().all()
    return chunks


@pytest.fixture(scope="session")
def body() -> Callable[..., Embodiment]:
    return make_body


@pytest.fixture(scope="session")
def observation() -> Callable[..., Observation]:
    return make_observation


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., dict[str, Tensor]]:
    return make_batch


@pytest.fixture(scope="session")
def statistics_of() -> Callable[..., dict[str, dict[str, np.ndarray]]]:
    return make_statistics


@pytest.fixture(scope="session")
def descend() -> Callable[..., list[float]]:
    return sign_descent


@pytest.fixture(scope="session")
def chunks_of() -> Callable[..., Tensor]:
    return repeated_chunks


@pytest.fixture(scope="session")
def train_on() -> Callable[..., None]:
    return sgd_steps
