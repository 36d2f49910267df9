"""What a fresh policy takes from its first data, and a count that LeRobot does not keep where it would be saved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

_LEVELS = 256


def pixel_statistics(images: Tensor) -> dict[str, Tensor]:
    """``mean``, ``std``, ``min`` and ``max`` of each channel, (C,) float32 in 0..1, of uint8 images (..., C)."""
    level = torch.arange(_LEVELS, dtype=torch.float64)
    made: dict[str, list[Tensor]] = {"mean": [], "std": [], "min": [], "max": []}
    for channel in images.flatten(0, -2).unbind(-1):
        counts = torch.bincount(channel.cpu().long(), minlength=_LEVELS)
        share, there = counts / counts.sum(), counts.nonzero()
        mean = (share * level).sum()
        made["mean"].append(mean)
        made["std"].append((share * (level - mean).square()).sum().sqrt())
        made["min"].append(there.min())
        made["max"].append(there.max())
    return {name: (torch.stack(values).double() / (_LEVELS - 1)).float() for name, values in made.items()}


@torch.no_grad()
def calibrate(policy: nn.Module, images: Sequence[Tensor]) -> None:
    """Gives each frozen batch norm the statistics of what reaches it, layer after layer.

    A torchvision backbone without pretrained weights has frozen norms that normalise nothing (ACT's is one). Their
    scales are buffers of the policy, so that they are saved with it. A data-dependent initialisation as of Mishkin and
    Matas (2016, "All you need is a good init").

    Args:
        policy: a LeRobot policy; without such norms nothing happens.
        images: of each camera, normalised, float (B, [T,] C, H, W). All of them go through one backbone and count
            together, every n-th image of each of n cameras.
    """
    cameras = [rows.flatten(0, -4)[:: len(images)] for rows in images]
    if len({rows.shape[1:] for rows in cameras}) == 1:
        cameras = [torch.cat(cameras)]
    for backbone in [part for part in policy.modules() if _is_backbone(part)]:
        norms = [part for part in backbone.modules() if isinstance(part, FrozenBatchNorm2d)]
        if len(cameras) == 1:
            _calibrate(backbone, norms, cameras)
            continue
        for norm in norms:  # sizes differ: all must have reached a norm before the next one sees anything
            _calibrate(backbone, [norm], cameras)


@contextmanager
def counted(policy: nn.Module, steps: Tensor, training: bool) -> Iterator[None]:
    """Keeps VQ-BeT's count of the steps of its first phase in a tensor that is saved; others are left alone.

    LeRobot counts in a plain number, which a resumed training would begin anew, and counts validations too.
    """
    vqvae: Any = next((part for part in policy.modules() if hasattr(part, "optimized_steps")), None)
    if vqvae is None:
        yield
        return
    vqvae.optimized_steps = int(steps) if training else -1
    yield
    if training:
        steps.fill_(vqvae.optimized_steps)


def _is_backbone(part: nn.Module) -> bool:
    """Whether it is the outermost of what a torchvision network's layers come in: its children hold them by name."""
    children = dict(part.named_children())
    return {"conv1", "bn1", "layer1"} <= set(children) and isinstance(children["bn1"], FrozenBatchNorm2d)


def _calibrate(backbone: nn.Module, norms: Sequence[nn.Module], batches: Sequence[Tensor]) -> None:
    """Runs batches (B, C, H, W) through a backbone and gives norms of it the mean and variance of what reached them."""
    reached: dict[nn.Module, tuple[int, Tensor, Tensor]] = {}

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].float()
        count, mean = features.numel() // features.shape[1], features.mean((0, 2, 3))
        spread = features.var((0, 2, 3), correction=0) * count
        if norm in reached:  # Chan et al., 1979: two samples' means and squared deviations as one's
            before, old, old_spread = reached[norm]
            spread = spread + old_spread + (mean - old).square() * before * count / (before + count)
            count, mean = before + count, old + (mean - old) * count / (before + count)
        reached[norm] = count, mean, spread
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(spread / max(1, count - 1))

    hooks = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        for batch in batches:
            backbone(batch)
    finally:
        for hook in hooks:
            hook.remove()
