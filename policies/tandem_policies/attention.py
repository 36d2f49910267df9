"""The transformer parts that policies share: few and large operations, pre-normalised blocks."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """(B, N, D) to (B, N, D).

        Args:
            x: the tokens.
            mask: bool, (B, 1, 1, N) or (N, N), True for the tokens that may be looked at.
            places: (N, D), added to what queries and keys are made of, but not to the values.
        """
        batch, length, dim = x.shape
        qkv = self.qkv(x)
        if places is not None:  # projected once for all samples
            qkv = qkv + F.pad(F.linear(places, self.qkv.weight[: 2 * dim]), (0, dim))
        q, k, v = qkv.view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, dim))


class Mlp(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out))


class Block(nn.Module):
    """A pre-normalised transformer encoder block."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, dropout)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), dim, dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """(B, N, D) to (B, N, D); see :class:`SelfAttention`."""
        x = x + self.attention(self.norm_attention(x), mask, places)
        return x + self.mlp(self.norm_mlp(x))


class Stack(nn.ModuleList):
    """Blocks in a row. With ``checkpointing`` training keeps what goes into a block and computes the rest again on
    the way back (Chen et al., 2016): less memory for about a third more time.
    """

    checkpointing: bool = False

    def forward(self, x: Tensor, mask: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """All :class:`Block` in turn: (B, N, D) to (B, N, D)."""
        for block in self:
            x = self.run(block, x, mask, places)
        return x

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """One block, with its activations kept or not."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def on_host[**P, T](make: Callable[P, T]) -> Callable[P, T]:
    """For functions that make a fixed table: it is computed on the CPU even where a network is outlined on ``meta``.

    There torch would run ``arange`` and the like through decompositions in Python, which take seconds to import.
    """

    @wraps(make)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.device("cpu"):
            return make(*args, **kwargs)

    return run


@on_host
def sinusoids(count: int, dim: int, longest_wave: float) -> Tensor:
    """:func:`sinusoids_at` of the positions 0 .. count - 1: (count, dim)."""
    return sinusoids_at(torch.arange(count), dim, longest_wave)


def sinusoids_at(positions: Tensor, dim: int, longest_wave: float) -> Tensor:
    """Sines and cosines of positions (N,) at ``dim / 2`` wavelengths from 2 pi to ``longest_wave``: (N, dim).

    After Vaswani et al. (2017).
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32) / max(1, half - 1)
    angles = positions[:, None].float() / torch.exp(exponents * math.log(longest_wave / (2 * math.pi)))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@on_host
def sinusoids_2d(rows: int, columns: int, dim: int) -> Tensor:
    """Positions of a patch grid in reading order, half of the features for each axis: (rows * columns, dim)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    longest = 4.0 * max(rows, columns, 2)
    return torch.cat([sinusoids_at(axis.flatten(), dim // 2, longest) for axis in (y, x)], dim=1)
