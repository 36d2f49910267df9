"""How the instruction meets the images: four ways behind one interface, chosen by ``fusion`` in the config.

=================  ==========================================================================================
cross_attention    the text's readouts look at the patches; where they look is read out as positions
gated              the same behind tanh gates that begin closed, as in Flamingo; features alone
tokens             learned tokens look at words and patches together
pooled             the mean of the text plus the mean of the patches: a baseline that can hardly bind them
=================  ==========================================================================================

Without a camera there is nothing to meet: :class:`TextAlone`.

To add one: a subclass of :class:`Fusion`, its name in ``FUSIONS`` and in the config's choices.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tandem_policies.attention import Mlp, Stack, on_host, sinusoids_2d
from tandem_policies.tinyvla.config import TinyVLAConfig
from tandem_policies.tinyvla.language import Text

_GATE_SPEED = 10.0  # Flamingo's gates open over many thousand steps; a small policy has a few hundred

Grids = list[tuple[int, int]]
"""Rows and columns of patches, per camera."""


class Fusion(nn.Module, ABC):
    """Text and patches (B, N, D) to features (B, ``out_features``) and, where something looks, its weights."""

    reads_words: ClassVar[bool] = False  # whether it needs the words, and not only the readouts
    out_features: int
    places: Tensor  # where each patch is: (N, D) as sines and cosines, or as coordinates

    @abstractmethod
    def forward(self, text: Text, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, F), and the last block's weights on the patches (B, heads, Q, N) or None."""

    def look(self, weights: Tensor, reading: Tensor) -> Tensor:
        """The weights as one map (B, N) that sums to at most 1.

        Args:
            weights: what :meth:`forward` gave, (B, heads, Q, N).
            reading: (H, F), the head's first weights on the features: what it makes of them.
        """
        return weights.float().mean((1, 2))


class CrossAttention(nn.Module):
    """Queries (B, Q, D) over tokens (B, N, D), with the weights at hand."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, queries: Tensor, tokens: Tensor, mask: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mixed values (B, Q, D) and weights (B, heads, Q, N).

        Args:
            queries: (B, Q, D).
            tokens: (B, N, D).
            mask: bool (B, N), True for the tokens that may be looked at.
            places: (N, D), added to what the values are made of, but not to the keys: what is looked for does not
                depend on where it is, what is seen there says it.
        """
        batch, count, dim = queries.shape
        width = dim // self.heads
        q = self.q(queries).view(batch, count, self.heads, width).transpose(1, 2)
        kv = self.kv(tokens)
        if places is not None:  # projected once for all samples
            kv = kv + F.pad(F.linear(places, self.kv.weight[dim:]), (dim, 0))
        k, v = kv.view(batch, -1, 2, self.heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * width**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        weights = scores.softmax(-1)
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

    def forward(
        self, queries: Tensor, tokens: Tensor, mask: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """New queries (B, Q, D) and weights (B, heads, Q, N); see :class:`CrossAttention`."""
        mixed, weights = self.attention(self.norm_queries(queries), self.norm_tokens(tokens), mask, places)
        queries = queries + mixed
        return queries + self.mlp(self.norm_mlp(queries)), weights


class GatedBlock(FusionBlock):
    """The same, each part behind a tanh gate that begins closed: at first the text passes as it came."""

    def __init__(self, config: TinyVLAConfig) -> None:
        super().__init__(config)
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(
        self, queries: Tensor, tokens: Tensor, mask: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed, weights = self.attention(self.norm_queries(queries), self.norm_tokens(tokens), mask, places)
        attention, mlp = (_GATE_SPEED * self.gates).tanh()
        queries = queries + attention * mixed
        return queries + mlp * self.mlp(self.norm_mlp(queries)), weights


class ReadOutAttention(Fusion):
    """Cross-attention whose weights are also read out as an expected position.

    A softmax over places, read as the mean place, is the spatial soft-argmax of Levine et al. (2016): it hands the
    head coordinates instead of a pattern, and the head's error teaches the attention directly.
    """

    def __init__(self, config: TinyVLAConfig, grids: Grids) -> None:
        super().__init__()
        self.blocks = Stack(FusionBlock(config) for _ in range(config.fusion_depth))
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = config.fusion_dropout
        places = patch_places(grids)
        self.register_buffer("places", places, persistent=False)
        self.looks = (config.fusion_heads, config.queries, places.shape[1])  # each of a few columns: one position
        self.fused_features = config.queries * config.dim  # of out_features, the first ones
        self.out_features = self.fused_features + config.queries * config.fusion_heads * places.shape[1]

    def forward(self, text: Text, patches: Tensor) -> tuple[Tensor, Tensor]:
        queries = text.readouts
        for block in self.blocks:
            queries, weights = self.blocks.run(block, queries, patches)
        with torch.autocast(patches.device.type, enabled=False):  # bfloat16 rounds a position to 1/256
            expected = weights.float() @ self.places
        fused = self.norm(queries).flatten(1)
        if self.training and self.dropout:  # features can tell boards apart by heart, positions cannot
            fused = fused * (torch.rand(len(fused), 1, device=fused.device) >= self.dropout)
        return torch.cat([fused, expected.flatten(1)], dim=1), weights

    def look(self, weights: Tensor, reading: Tensor) -> Tensor:
        """Heads count by the head's squared weights on their positions; some look nowhere and matter little."""
        squares = reading[:, self.fused_features : self.out_features].float().square().sum(0)
        influence = squares.view(self.looks).sum(-1)
        return torch.einsum("bhqn,hq->bn", weights.float(), influence / influence.sum())


class GatedFusion(Fusion):
    """Flamingo's gated cross-attention (Alayrac et al., 2022): readouts look at patches through gates."""

    def __init__(self, config: TinyVLAConfig, grids: Grids) -> None:
        super().__init__()
        self.blocks = Stack(GatedBlock(config) for _ in range(config.fusion_depth))
        self.norm = nn.LayerNorm(config.dim)
        self.register_buffer("places", place_codes(grids, config.dim), persistent=False)
        self.out_features = config.queries * config.dim

    def forward(self, text: Text, patches: Tensor) -> tuple[Tensor, Tensor]:
        queries = text.readouts
        for block in self.blocks:
            queries, weights = self.blocks.run(block, queries, patches, None, self.places)
        return self.norm(queries).flatten(1), weights


class TokenFusion(Fusion):
    """Learned tokens that look at themselves, the words and the patches at once, as in BLIP-2's Q-Former and Perceiver.

    One block asks before it has read: give it a ``fusion_depth`` of at least 2.
    """

    reads_words = True

    def __init__(self, config: TinyVLAConfig, grids: Grids) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(config.queries, config.dim))
        self.blocks = Stack(FusionBlock(config) for _ in range(config.fusion_depth))
        self.norm = nn.LayerNorm(config.dim)
        self.register_buffer("places", place_codes(grids, config.dim), persistent=False)
        self.out_features = config.queries * config.dim

    def forward(self, text: Text, patches: Tensor) -> tuple[Tensor, Tensor]:
        batch, patch_count, _ = patches.shape
        queries = self.tokens.expand(batch, -1, -1)
        others = torch.cat([text.readouts, text.words, patches], dim=1)
        seen = text.mask.new_ones(batch, queries.shape[1] + text.readouts.shape[1])
        mask = torch.cat([seen, text.mask, text.mask.new_ones(batch, patch_count)], dim=1)
        places = F.pad(self.places, (0, 0, mask.shape[1] - patch_count, 0))  # text has none
        for block in self.blocks:
            queries, weights = self.blocks.run(block, queries, torch.cat([queries, others], dim=1), mask, places)
        return self.norm(queries).flatten(1), weights[..., -patch_count:]


class PooledFusion(Fusion):
    """Pooled text plus pooled image: what is where must be told from one sum.

    Each patch is joined with its place before the mean, which would otherwise forget it.
    """

    def __init__(self, config: TinyVLAConfig, grids: Grids) -> None:
        super().__init__()
        self.patch = Mlp(config.dim, round(config.dim * config.mlp_ratio), config.dim, config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.register_buffer("places", place_codes(grids, config.dim), persistent=False)
        self.out_features = config.dim

    def forward(self, text: Text, patches: Tensor) -> tuple[Tensor, None]:
        seen = self.patch(patches + self.places).mean(1)
        return self.norm(text.readouts.mean(1) + seen), None


class TextAlone(Fusion):
    """For an embodiment without cameras: the readouts as they are, whatever ``fusion`` says."""

    def __init__(self, config: TinyVLAConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.out_features = config.queries * config.dim

    def forward(self, text: Text, patches: Tensor | None = None) -> tuple[Tensor, None]:
        return self.norm(text.readouts).flatten(1), None


FUSIONS: dict[str, type[ReadOutAttention] | type[GatedFusion] | type[TokenFusion] | type[PooledFusion]] = {
    "cross_attention": ReadOutAttention,
    "gated": GatedFusion,
    "tokens": TokenFusion,
    "pooled": PooledFusion,
}


def place_codes(grids: Grids, dim: int) -> Tensor:
    """Sines and cosines of each patch's place (N, dim), for fusions whose features must say where something is."""
    return torch.cat([sinusoids_2d(rows, columns, dim) for rows, columns in grids])


@on_host
def patch_places(grids: Grids) -> Tensor:
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
