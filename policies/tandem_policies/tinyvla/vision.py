"""Images to patch tokens: a vision transformer (Dosovitskiy et al., 2021) with 2-D sinusoidal positions.

Positions say who looks at whom, but do not mix into what a token says: a red patch is the same token wherever it
lies. With few demonstrations that is the difference between learning what red is and learning boards by heart.

A pretrained image encoder may stand in place of the patch embedding (the stem); the blocks then come after it.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_policies.attention import Block, Stack, sinusoids_2d
from tandem_policies.tinyvla.config import TinyVLAConfig

if TYPE_CHECKING:
    from tandem_policies.pretrained.vision import VisionTower

MOST_PATCHES = 4096  # over all cameras; attention grows with the square


class VisionEncoder(nn.Module):
    """All cameras' patches, in the order of the embodiment's cameras, then in reading order.

    Args:
        config: the sizes.
        embodiment: whose cameras are seen.
        tower: a pretrained encoder (images, as :meth:`forward` takes them) -> (B, N, ``tower.width``), with its
            ``grids`` per camera, instead of the patch embedding.

    Raises:
        TandemError: a camera that is not rgb8, a side that is no multiple of the patch, too many patches.
    """

    def __init__(self, config: TinyVLAConfig, embodiment: Embodiment, tower: "VisionTower | None" = None) -> None:
        super().__init__()
        self.patch = config.patch
        self.drop = config.vision_drop
        self.cameras = tuple(camera.name for camera in embodiment.cameras)
        self.grids = patch_grids(config.patch, embodiment) if tower is None else list(tower.grids)
        check_patches(self.grids, embodiment)
        self.tower = tower
        self.stem = nn.Linear(3 * config.patch**2 if tower is None else tower.width, config.dim)
        self.camera: nn.Parameter | None = None  # which one a patch belongs to
        if len(self.cameras) > 1:
            self.camera = nn.Parameter(nn.init.normal_(torch.empty(len(self.cameras), config.dim), std=0.02))
        self.blocks = Stack(
            Block(config.dim, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.vision_depth)
        )
        positions = [sinusoids_2d(rows, columns, config.dim) for rows, columns in self.grids]
        self.register_buffer("positions", torch.cat(positions), persistent=False)

    def forward(self, images: list[Tensor]) -> Tensor:
        """Images uint8 (B, H, W, 3), one per camera, to tokens (B, N, D)."""
        if self.tower is None:
            patches = torch.cat([self._patches(image) for image in images], dim=1)
            tokens = self.stem(patches * (1 / 127.5) - 1)
        else:
            tokens = self.stem(self.tower(images))
        if self.camera is not None:
            sizes = [rows * columns for rows, columns in self.grids]
            tokens = tokens + torch.cat([row.expand(n, -1) for row, n in zip(self.camera, sizes, strict=True)])
        places = self.get_buffer("positions")
        if not (self.training and self.drop and len(self.blocks)):
            return self.blocks(tokens, places=places)
        # A random part of the batch is left as it is, and costs nothing (stochastic depth, Huang et al., 2016).
        count = max(1, round(len(tokens) * (1 - self.drop)))
        chosen = torch.randperm(len(tokens), device=tokens.device)[:count]
        return tokens.index_copy(0, chosen, self.blocks(tokens[chosen], places=places).to(tokens.dtype))

    def _patches(self, image: Tensor) -> Tensor:
        batch, height, width, channels = image.shape
        p = self.patch
        grid = image.view(batch, height // p, p, width // p, p, channels).transpose(2, 3)
        return grid.reshape(batch, -1, p * p * channels).to(self.stem.weight.dtype)


def check_patches(grids: list[tuple[int, int]], embodiment: Embodiment) -> None:
    """Raises TandemError if there are more patches than attention should be spent on."""
    total = sum(rows * columns for rows, columns in grids)
    if total > MOST_PATCHES:
        raise TandemError(f"{_where(embodiment)}: {total} patches (allowed: {MOST_PATCHES}; take a larger patch)")


def patch_grids(patch: int, embodiment: Embodiment) -> list[tuple[int, int]]:
    """Rows and columns of patches per camera; see :class:`VisionEncoder` for errors."""
    return [_grid(camera, patch, _where(embodiment)) for camera in embodiment.cameras]


def _where(embodiment: Embodiment) -> str:
    return f"policy 'tinyvla' for embodiment '{embodiment.name}'"


def _grid(camera: Camera, patch: int, where: str) -> tuple[int, int]:
    if camera.encoding is not Encoding.RGB8:
        raise TandemError(f"{where}: camera '{camera.name}' is {camera.encoding} (allowed: rgb8)")
    if camera.height % patch or camera.width % patch:
        size = f"{camera.width}x{camera.height}"
        raise TandemError(f"{where}: camera '{camera.name}' is {size} (allowed: multiples of the patch, {patch})")
    return camera.height // patch, camera.width // patch
