"""Chunks from a LeRobot policy, as of a policy without memory: nothing survives a call, and noise comes from keys."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from tandem_datasets.policy import NoiseKey
from tandem_policies.lerobot.kinds import Kind

_IMAGES, _ACTION = "observation.images", "action"
_SURE = ("act",)  # types that draw nothing


def is_random(policy: str) -> bool:
    """Whether predictions of a type may draw random numbers."""
    return policy not in _SURE


def takes_noise(policy: PreTrainedPolicy, kind: Kind) -> bool:
    """Whether the noise of all rows can be handed in, because nothing else is drawn: not by a DDPM scheduler."""
    return kind.noise is not None and getattr(policy.config, "noise_scheduler_type", "DDIM") == "DDIM"


def draw(policy: PreTrainedPolicy, kind: Kind, keys: Sequence[NoiseKey]) -> Tensor:
    """Noise (B, length, width), row b from ``keys[b]`` alone."""
    config: Any = policy.config
    width = getattr(config, kind.noise) if kind.noise else config.action_feature.shape[0]
    shape = (getattr(config, kind.chunk), width)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(_seed(key))) for key in keys]
    return torch.stack(rows).to(next(policy.parameters()).device)


def chunks(
    policy: PreTrainedPolicy,
    kind: Kind,
    inputs: Mapping[str, Any],
    length: int,
    noise: Tensor | None = None,
    seed: NoiseKey | None = None,
) -> Tensor:
    """The first ``length`` actions of a prediction, (B, length, A), normalised as the policy has them.

    Args:
        policy: a LeRobot policy.
        kind: what is known of its type.
        inputs: a batch from its preprocessor.
        length: K; a policy that would cut its chunk down to what it plays gives all of it.
        noise: what :func:`draw` made, for a policy that takes it.
        seed: what to draw from where it does not; the caller's generators are left as they were.
    """
    batch = {key: value for key, value in inputs.items() if key != _ACTION}
    policy.reset()
    if kind.queues:
        batch = _fill_queues(policy, batch)
    extra = {} if noise is None else {"noise": noise}
    with _whole_chunk(policy, length), _seeded(seed, next(policy.parameters()).device):
        predicted = policy.predict_action_chunk(batch, **extra)
    policy.reset()
    return predicted[:, :length]


def _fill_queues(policy: PreTrainedPolicy, batch: dict[str, Any]) -> dict[str, Any]:
    """Puts a history (B, T, ...) into the queues of a policy that predicts from these alone."""
    queues: Any = policy._queues
    cameras = [key for key in policy.config.image_features if key in batch]
    batch = {**batch, _IMAGES: torch.stack([batch[key] for key in cameras], dim=-4)} if cameras else batch
    for key in queues:
        if key in batch:
            queues[key].extend(batch[key].unbind(1))
    return batch


@contextmanager
def _whole_chunk(policy: PreTrainedPolicy, length: int) -> Iterator[None]:
    """Some policies cut their predictions down to ``n_action_steps``."""
    config: Any = policy.config
    played = getattr(config, "n_action_steps", None)
    if played is not None:
        config.n_action_steps = length
    try:
        yield
    finally:
        if played is not None:
            config.n_action_steps = played


@contextmanager
def _seeded(key: NoiseKey | None, device: torch.device) -> Iterator[None]:
    if key is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_seed(key))
        yield


def _seed(key: NoiseKey) -> int:
    return int(np.random.SeedSequence([int(part) for part in key]).generate_state(1, np.uint64)[0])
