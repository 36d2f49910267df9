"""From features to a chunk of actions: three heads behind one interface, chosen by ``head`` in the config.

==============  =============================================================================================
continuous      regression of the whole chunk at once, with a smooth L1 loss
bins            a distribution over values for each scalar, with cross-entropy
flow            noise carried to a chunk in a few steps: for demonstrations that differ where either is right
==============  =============================================================================================

All see normalised actions. To add one: a subclass of :class:`Head`, its name in ``HEADS`` and in the config's choices.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tandem_datasets.policy import NoiseKey
from tandem_policies.attention import Mlp, Stack, sinusoids_at
from tandem_policies.network import masked_mean
from tandem_policies.tinyvla.config import TinyVLAConfig

_TIME_FEATURES = 32


class Head(nn.Module, ABC):
    """Features (B, F) to normalised chunks (B, K, A); padding (B, K) counts for nothing."""

    @abstractmethod
    def loss(self, features: Tensor, target: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        """The scalar to minimise, and the chunk (B, K, A) that the features stand for, to measure."""

    @abstractmethod
    def predict(self, features: Tensor, keys: Sequence[NoiseKey] | None) -> Tensor:
        """Chunks (B, K, A); where there is noise, row b's is drawn from ``keys[b]`` alone."""

    @property
    @abstractmethod
    def reading(self) -> Tensor:
        """(H, F): the weights that meet the features first."""

    def set_limits(self, low: Tensor, high: Tensor) -> None:
        """Takes the data's normalised least and greatest actions, (A,) each."""


class ContinuousHead(nn.Sequential, Head):
    """An MLP from features to all numbers of a chunk."""

    def __init__(self, config: TinyVLAConfig, features: int, action_dim: int) -> None:
        shape = (config.chunk_size, action_dim)
        super().__init__(*_mlp(config, features, config.chunk_size * action_dim), nn.Unflatten(1, shape))
        self.beta = config.loss_beta

    def loss(self, features: Tensor, target: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        chunk = self(features).float()
        errors = F.smooth_l1_loss(chunk, target, reduction="none", beta=self.beta)
        return masked_mean(errors, is_pad), chunk

    def predict(self, features: Tensor, keys: Sequence[NoiseKey] | None) -> Tensor:
        return self(features).float()

    @property
    def reading(self) -> Tensor:
        return self[0].get_parameter("weight")


class BinsHead(nn.Sequential, Head):
    """A distribution over ``bins`` values from the data's least to its greatest, for each scalar by itself.

    By expectation a target counts for the two values around it, each by its nearness, so that the expectation can
    be exact between them (as in MuZero, Schrittwieser et al., 2020); by argmax for the nearest alone (as in RT-1,
    Brohan et al., 2022).
    """

    low: Tensor
    high: Tensor

    def __init__(self, config: TinyVLAConfig, features: int, action_dim: int) -> None:
        shape = (config.chunk_size, action_dim, config.bins)
        super().__init__(*_mlp(config, features, config.chunk_size * action_dim * config.bins), nn.Unflatten(1, shape))
        self.bins = config.bins
        self.nearest = config.bin_decoding == "argmax"
        self.register_buffer("low", torch.zeros(action_dim))
        self.register_buffer("high", torch.ones(action_dim))

    def set_limits(self, low: Tensor, high: Tensor) -> None:
        self.low.copy_(low)
        self.high.copy_(high)

    def loss(self, features: Tensor, target: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(features).float()
        share = (target - self.low) / (self.high - self.low).clamp(min=1e-6)
        place = (share * (self.bins - 1)).clamp(0, self.bins - 1)  # in bins, between them too
        lower = place.floor().clamp(max=self.bins - 2)
        upper_part = place - lower
        if self.nearest:
            upper_part = upper_part.round()
        around = torch.stack([lower, lower + 1], dim=-1).long()
        scores = logits.log_softmax(-1).gather(-1, around)
        errors = -((1 - upper_part) * scores[..., 0] + upper_part * scores[..., 1])
        return masked_mean(errors, is_pad), self._decoded(logits)

    def predict(self, features: Tensor, keys: Sequence[NoiseKey] | None) -> Tensor:
        return self._decoded(self(features).float())

    @property
    def reading(self) -> Tensor:
        return self[0].get_parameter("weight")

    def _decoded(self, logits: Tensor) -> Tensor:
        steps = torch.arange(self.bins, device=logits.device) / (self.bins - 1)
        share = steps[logits.argmax(-1)] if self.nearest else (logits.softmax(-1) * steps).sum(-1)
        return self.low + (self.high - self.low) * share


class FlowBlock(nn.Module):
    """A residual MLP whose normalisation is scaled and shifted by the condition (as in DiT, Peebles and Xie, 2023)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.mlp = Mlp(width, 2 * width, width, dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, W) and (B, W) to (B, W)."""
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        return x + self.mlp(self.norm(x) * (1 + scale) + shift)


class FlowHead(Head):
    """Flow matching along straight lines (Lipman et al., 2023; Liu et al., 2023) over the whole chunk.

    Time runs as in pi0 (Black et al., 2024): ``x_t = t * noise + (1 - t) * action``, the velocity to learn is
    ``noise - action``, training draws ``t ~ Beta(1.5, 1)``, which favours noise, and a chunk is made by Euler steps
    from t = 1 to 0.
    """

    def __init__(self, config: TinyVLAConfig, features: int, action_dim: int) -> None:
        super().__init__()
        self.shape = (config.chunk_size, action_dim)
        self.steps = config.flow_steps
        width, numbers = config.head_dim, config.chunk_size * action_dim
        self.condition = nn.Linear(features, width)
        self.time = nn.Linear(_TIME_FEATURES, width)
        self.inward = nn.Linear(numbers, width)
        self.blocks = Stack(FlowBlock(width, config.dropout) for _ in range(config.head_depth))
        self.outward = nn.Linear(width, numbers)

    def loss(self, features: Tensor, target: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        noise, time = self._draws(target)
        mixed = time[:, None, None] * noise + (1 - time[:, None, None]) * target
        velocity = self._velocity(mixed, time, self.condition(features)).float()
        errors = (velocity - (noise - target)).square()
        return masked_mean(errors, is_pad), mixed - time[:, None, None] * velocity

    def predict(self, features: Tensor, keys: Sequence[NoiseKey] | None) -> Tensor:
        """Without keys all rows start from the same noise."""
        noise = [noise_of(key, self.shape) for key in (keys or [(0, 0)])]
        x = torch.from_numpy(np.stack(noise)).to(features.device).expand(len(features), -1, -1)
        condition = self.condition(features)
        for step in range(self.steps):
            time = torch.full((len(features),), 1 - step / self.steps, device=features.device)
            x = x - self._velocity(x, time, condition).float() / self.steps
        return x

    @property
    def reading(self) -> Tensor:
        return self.condition.weight

    def _velocity(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        ticks = sinusoids_at(1000 * time, _TIME_FEATURES, 4000.0)  # waves from 0.006 to 4 in time
        condition = F.gelu(condition + self.time(ticks))
        hidden = self.inward(x.flatten(1))
        for block in self.blocks:
            hidden = self.blocks.run(block, hidden, condition)
        return self.outward(F.gelu(hidden)).unflatten(1, self.shape)

    def _draws(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Noise like the target and times (B,); always the same outside of training, so that validations compare."""
        generator = None if self.training else torch.Generator(target.device).manual_seed(0)
        noise = torch.randn(target.shape, generator=generator, device=target.device)
        uniform = torch.rand(len(target), generator=generator, device=target.device)
        return noise, 0.001 + 0.999 * uniform ** (1 / 1.5)  # the inverse of Beta(1.5, 1)'s distribution function


HEADS: dict[str, type[ContinuousHead] | type[BinsHead] | type[FlowHead]] = {
    "continuous": ContinuousHead,
    "bins": BinsHead,
    "flow": FlowHead,
}


def noise_of(key: NoiseKey, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal float32 of (episode seed, inference index), the same on every machine and device."""
    stream = 0x10  # apart from what simulations draw from the same seeds
    return np.random.default_rng([*key, stream]).standard_normal(shape, np.float32)


def _mlp(config: TinyVLAConfig, features: int, out: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(config.head_depth):
        layers += [nn.Linear(features, config.head_dim), nn.GELU(), nn.Dropout(config.dropout)]
        features = config.head_dim
    return [*layers, nn.Linear(features, out)]
