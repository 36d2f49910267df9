"""Language looks into the image: cross-attention whose weights are also read out as an expected position.

A softmax over places, read as the mean place, is the spatial soft-argmax of Levine et al. (2016): it hands the head
coordinates instead of a pattern, and the head's error teaches the attention directly.
"""

import torch
from torch import Tensor, nn

from tandem_policies.attention import Mlp, on_host
from tandem_policies.tinyvla.config import TinyVLAConfig


class CrossAttention(nn.Module):
    """Queries (B, Q, D) over tokens (B, N, D), with the weights at hand."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed values (B, Q, D) and weights (B, heads, Q, N)."""
        batch, count, dim = queries.shape
        width = dim // self.heads
        q = self.q(queries).view(batch, count, self.heads, width).transpose(1, 2)
        k, v = self.kv(tokens).view(batch, -1, 2, self.heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * width**-0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, count, dim)
        return self.out(mixed), weights


class FusionBlock(nn.Module):
    """Cross-attention, then an MLP, both with residuals on the queries."""

    def __init__(self, config: TinyVLAConfig) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(config.dim)
        self.norm_tokens = nn.LayerNorm(config.dim)
        self.attention = CrossAttention(config.dim, config.fusion_heads)
        self.norm_mlp = nn.LayerNorm(config.dim)
        self.mlp = Mlp(config.dim, round(config.dim * config.mlp_ratio), config.dim, config.dropout)

    def forward(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """New queries (B, Q, D) and weights (B, heads, Q, N)."""
        mixed, weights = self.attention(self.norm_queries(queries), self.norm_tokens(tokens))
        queries = queries + mixed
        return queries + self.mlp(self.norm_mlp(queries)), weights


class Fusion(nn.Module):
    """What the instruction asks for, as it is seen: fused features and where they were seen."""

    def __init__(self, config: TinyVLAConfig, grids: list[tuple[int, int]]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FusionBlock(config) for _ in range(config.fusion_depth))
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = config.fusion_dropout
        places = patch_places(grids)
        self.register_buffer("places", places, persistent=False)
        self.columns = places.shape[1]  # of one expected position
        self.fused_features = config.queries * config.dim  # of out_features, the first ones
        self.out_features = self.fused_features + config.queries * config.fusion_heads * self.columns

    def forward(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, out_features) and the last block's weights (B, heads, Q, N)."""
        for block in self.blocks:
            queries, weights = block(queries, tokens)
        expected = weights.float() @ self.places
        fused = self.norm(queries).flatten(1)
        if self.training and self.dropout:  # features can tell boards apart by heart, positions cannot
            fused = fused * (torch.rand(len(fused), 1, device=fused.device) >= self.dropout)
        return torch.cat([fused, expected.flatten(1)], dim=1), weights


@on_host
def patch_places(grids: list[tuple[int, int]]) -> Tensor:
    """Each patch's centre (x, y) in its image, from -1 to 1: (N, 2), or (N, 3 * cameras).

    With several cameras each has three columns of its own, zero for the others' patches: x, y and 1, so that their
    expectation also says how much of the attention is in which camera.
    """
    blocks = []
    for rows, columns in grids:
        y, x = torch.meshgrid(_centres(rows), _centres(columns), indexing="ij")
        blocks.append(torch.stack([x.flatten(), y.flatten(), torch.ones(rows * columns)], dim=1))
    return blocks[0][:, :2] if len(blocks) == 1 else torch.block_diag(*blocks)


def _centres(count: int) -> Tensor:
    return (torch.arange(count) + 0.5) * (2 / count) - 1
