"""Instructions to text tokens: a small transformer over the words and a few readout tokens.

The words come from an embedding of our own, or from a pretrained language model in its place.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tandem_policies.attention import Block, Stack, sinusoids
from tandem_policies.tinyvla.config import TinyVLAConfig

if TYPE_CHECKING:
    from tandem_policies.pretrained.language import LanguageTower


class Text(NamedTuple):
    """What the fusions get of B instructions."""

    readouts: Tensor  # (B, Q, D): learned tokens that collected what the words ask for
    words: Tensor  # (B, L, D): the words in their context; L = 0 where only the readouts are there
    mask: Tensor  # bool (B, L), True for words, False for padding

    @classmethod
    def of(cls, readouts: Tensor) -> "Text":
        """Without words."""
        return cls(readouts, readouts[:, :0], torch.ones_like(readouts[:, :0, 0], dtype=torch.bool))


class LanguageEncoder(nn.Module):
    """Words and readout tokens look at each other; see :class:`Text`.

    Args:
        config: the sizes.
        vocab_size: rows of the embedding.
        longest: tokens of the longest instruction.
        tower: a pretrained model (tokens (B, L), mask (B, L)) -> (B, L, ``tower.width``) instead of the embedding.
    """

    def __init__(
        self, config: TinyVLAConfig, vocab_size: int, longest: int, tower: "LanguageTower | None" = None
    ) -> None:
        super().__init__()
        self.tower = tower
        self.embedding: nn.Module = (
            nn.Embedding(vocab_size, config.dim) if tower is None else nn.Linear(tower.width, config.dim)
        )
        self.readout = nn.Parameter(torch.randn(config.queries, config.dim))
        self.blocks = Stack(
            Block(config.dim, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.language_depth)
        )
        places = sinusoids(longest, config.dim, 4.0 * longest)
        self.register_buffer("positions", places, persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Text:
        """Tokens int64 (B, L) and mask bool (B, L), True = real."""
        batch, length = tokens.shape
        queries = self.readout.shape[0]
        words = self.embedding(tokens if self.tower is None else self.tower(tokens, mask))
        x = torch.cat([self.readout.expand(batch, -1, -1), words + self.get_buffer("positions")[:length]], dim=1)
        seen = torch.cat([mask.new_ones(batch, queries), mask], dim=1)[:, None, None]
        x = self.blocks(x, seen)
        return Text(x[:, :queries], x[:, queries:], mask)


class NoInstruction(nn.Module):
    """The readouts of an embodiment that hears nothing: learned, the same for all."""

    def __init__(self, config: TinyVLAConfig) -> None:
        super().__init__()
        self.readout = nn.Parameter(torch.randn(config.queries, config.dim))

    def forward(self, batch: int) -> Text:
        """The same :class:`Text` for B observations."""
        return Text.of(self.readout.expand(batch, -1, -1))
