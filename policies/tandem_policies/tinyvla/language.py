"""Instructions to queries: a small transformer over byte-level BPE tokens and a few readout tokens."""

import torch
from torch import Tensor, nn

from tandem_policies.attention import Block, sinusoids
from tandem_policies.tinyvla.config import TinyVLAConfig


class LanguageEncoder(nn.Module):
    """The readout tokens collect from the text what to look for; they are what leaves."""

    def __init__(self, config: TinyVLAConfig, longest: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.readout = nn.Parameter(torch.randn(config.queries, config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.language_depth)
        )
        places = sinusoids(longest, config.dim, 4.0 * longest)
        self.register_buffer("positions", places, persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens int64 (B, L) and mask bool (B, L), True = real, to queries (B, Q, D)."""
        batch, length = tokens.shape
        queries = self.readout.shape[0]
        text = self.embedding(tokens) + self.get_buffer("positions")[:length]
        x = torch.cat([self.readout.expand(batch, -1, -1), text], dim=1)
        seen = torch.cat([mask.new_ones(batch, queries), mask], dim=1)[:, None, None]
        for block in self.blocks:
            x = block(x, seen)
        return x[:, :queries]


class NoInstruction(nn.Module):
    """The queries of an embodiment that hears nothing: learned, the same for all."""

    def __init__(self, config: TinyVLAConfig) -> None:
        super().__init__()
        self.readout = nn.Parameter(torch.randn(config.queries, config.dim))

    def forward(self, batch: int) -> Tensor:
        """Queries (B, Q, D)."""
        return self.readout.expand(batch, -1, -1)
