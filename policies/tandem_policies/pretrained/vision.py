"""Cameras' images to a pretrained vision transformer's patch tokens."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_policies.network import Assets
from tandem_policies.pretrained import sources
from tandem_policies.pretrained.architectures import VISION, VisionArchitecture
from tandem_policies.pretrained.settings import VISION_ASSET, BackboneSettings
from tandem_policies.pretrained.tower import Plan, Tower, build, colour_values
from tandem_policies.untrusted import read_json


def vision_tower(config: BackboneSettings, embodiment: Embodiment, assets: Assets | None) -> "VisionTower":
    """The tower that a config names.

    Args:
        config: ``vision_backbone`` is not None.
        embodiment: its cameras, all of them rgb8, are what is seen.
        assets: None for a fresh one: its weights are fetched by name (on ``meta`` its config alone). Else the texts
            that it is built from without them; nothing is fetched.

    Raises:
        TandemError: the backbone is not found, not supported or damaged; a camera does not fit it; no layer for LoRA.
    """
    where = f"vision_backbone '{config.vision_backbone}'"
    assert config.vision_backbone is not None
    asset = assets[VISION_ASSET] if assets else None
    backbone, plan, dtype = build(
        VISION, config.vision_backbone, config.vision_tuning, config, asset, where, _normalisation
    )
    sizes = [_taken(camera, backbone.config, plan.recipe.architecture, config, where) for camera in _rgb(embodiment)]
    return VisionTower(backbone, plan, config.vision_tuning, dtype, sizes)


class VisionTower(Tower[VisionArchitecture]):
    """All cameras' patches, in the order of the embodiment's cameras, then in reading order."""

    def __init__(
        self,
        backbone: nn.Module,
        plan: Plan[VisionArchitecture],
        tuning: str,
        dtype: torch.dtype,
        sizes: list[tuple[int, int]],
    ) -> None:
        super().__init__(backbone, plan, tuning, dtype)
        self.sizes = sizes  # (height, width) in which each camera's image is seen
        patch = _pair(self.configuration.patch_size)
        self.grids = [(height // patch[0], width // patch[1]) for height, width in sizes]
        registers = getattr(self.configuration, "num_register_tokens", 0)
        self.prefix = plan.recipe.architecture.prefix + int(registers)  # tokens that are no patches
        deviation = torch.tensor(plan.image_std)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(plan.image_mean) / deviation, persistent=False)

    def forward(self, images: list[Tensor]) -> Tensor:
        """Images uint8 (B, H, W, 3), one per camera, to tokens float32 (B, N, width)."""
        pixels = [self._pixels(image, size) for image, size in zip(images, self.sizes, strict=True)]
        tokens: dict[int, Tensor] = {}
        for size in dict.fromkeys(self.sizes):  # cameras that are seen alike go through together
            alike = [index for index, other in enumerate(self.sizes) if other == size]
            states = self._states(torch.cat([pixels[index] for index in alike]))
            tokens |= dict(zip(alike, states.chunk(len(alike)), strict=True))
        return torch.cat([tokens[index] for index in range(len(pixels))], dim=1)

    def _pixels(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, H, W, 3) to the normalised (B, 3, height, width)."""
        values = image.permute(0, 3, 1, 2).float()
        if values.shape[2:] != size:
            values = F.interpolate(values, size, mode="bilinear", antialias=True)
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return values * scale[:, None, None] + shift[:, None, None]

    def _states(self, pixels: Tensor) -> Tensor:
        with self._gradients():
            states = self.backbone(pixel_values=pixels.to(self.dtype)).last_hidden_state
        return states[:, self.prefix :].float()


def _rgb(embodiment: Embodiment) -> tuple[Camera, ...]:
    where = f"vision_backbone for embodiment '{embodiment.name}'"
    if not embodiment.cameras:
        raise TandemError(f"{where}: no camera (wanted: at least one)")
    for camera in embodiment.cameras:
        if camera.encoding is not Encoding.RGB8:
            raise TandemError(f"{where}: camera '{camera.name}' is {camera.encoding} (allowed: rgb8)")
    return embodiment.cameras


def _taken(
    camera: Camera, config: Any, architecture: VisionArchitecture, settings: BackboneSettings, where: str
) -> tuple[int, int]:
    """The height and width in which a camera's image is seen; TandemError if it does not fit and may not be scaled."""
    came = (camera.height, camera.width)
    patch = _pair(config.patch_size)
    if architecture.any_size:
        sides = zip(came, patch, strict=True)
        height, width = (side * max(1, math.ceil(pixels / side)) for pixels, side in sides)
        wanted = f"multiples of {patch[1]}x{patch[0]}, such as {width}x{height}"
    else:
        height, width = _pair(config.image_size)
        wanted = f"{width}x{height}"
    if came != (height, width) and not settings.vision_resize:
        raise TandemError(
            f"{where}: camera '{camera.name}' gives {camera.width}x{camera.height} (allowed: {wanted}; or "
            "vision_resize=true, which scales the images)"
        )
    return height, width


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size that may be one number."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def _normalisation(architecture: VisionArchitecture, folder: Path) -> dict[str, tuple[float, ...]]:
    """The image fields of a plan: from the folder's preprocessor, or as the architecture was first trained."""
    file = folder / sources.PREPROCESSOR
    values = read_json(file) if file.is_file() else {}
    if values.get("do_normalize") is False:
        return {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
    mean = colour_values(values.get("image_mean", architecture.mean), f"{file}: image_mean")
    std = colour_values(values.get("image_std", architecture.std), f"{file}: image_std")
    if not mean or not std or min(std) <= 0:
        raise TandemError(f"{file}: image_std is {std} (allowed: three numbers above 0)")
    return {"image_mean": mean, "image_std": std}
