"""The text decoder: an auxiliary task in which the policy says what it does.

A small causal transformer writes, with the instruction's tokenizer, the sentence that :mod:`.words` finds for the
demonstrated chunk. It sees the fused features and nothing else, so that its loss asks of them what direction means.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tandem_datasets.embodiment import Embodiment
from tandem_policies.attention import Block, Stack, on_host, sinusoids
from tandem_policies.tinyvla.config import TinyVLAConfig
from tandem_policies.tinyvla.words import movers
from tandem_policies.tokenizer import TextTokenizer


class TextDecoder(nn.Module):
    """Features (B, F) to sentences of W tokens, padded; of the tokenizer's ids it knows those that sentences have.

    Raises:
        TandemError: no sentence can be found for the embodiment's actions.
    """

    ids: Tensor  # (V,), the tokenizer's ids of the decoder's own vocabulary; the first one is padding

    def __init__(self, config: TinyVLAConfig, features: int, embodiment: Embodiment, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.movers = movers(embodiment)
        self.tokenizer = tokenizer
        ids, tables = _sentences([mover.phrases(len(self.movers) > 1) for mover in self.movers], tokenizer)
        self.register_buffer("ids", ids, persistent=False)
        for index, table in enumerate(tables):  # (phrases, width) per mover
            self.register_buffer(f"phrases_{index}", table, persistent=False)
        self.length = sum(table.shape[1] for table in tables)
        self.condition = nn.Linear(features, config.dim)
        self.embedding = nn.Embedding(len(ids), config.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)  # at first what is seen outweighs what was said
        self.blocks = Stack(
            Block(config.dim, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.text_depth)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, len(ids))
        self.register_buffer("positions", sinusoids(self.length, config.dim, 4.0 * self.length), persistent=False)

    def target(self, action: Tensor, is_pad: Tensor, reach: Tensor) -> Tensor:
        """The sentences (B, W) of chunks (B, K, A) in units, as the decoder's own ids."""
        parts = [
            self.get_buffer(f"phrases_{index}")[mover.codes(action, is_pad, reach)]
            for index, mover in enumerate(self.movers)
        ]
        return torch.cat(parts, dim=1)

    def loss(self, features: Tensor, target: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the share of sentences that are exactly right.

        A row counts by its number of ``real`` actions (B,), as in the heads' losses: batches that are weighed by their
        real actions then add up to the loss of all of them together.
        """
        logits = self(features, target[:, :-1]).float()
        errors = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)
        right = (logits.argmax(-1) == target).all(1)  # greedy decoding takes the same way where all are right
        weights = real.to(errors.dtype) / real.sum().clamp(min=1)
        return (errors * weights).sum(), (right * weights).sum()

    def say(self, features: Tensor) -> list[str]:
        """One sentence each, greedily."""
        said = torch.zeros(len(features), 0, dtype=torch.long, device=features.device)
        for _ in range(self.length):
            said = torch.cat([said, self(features, said)[:, -1:].argmax(-1)], dim=1)
        padding = int(self.ids[0])
        rows = self.ids[said].tolist()
        return [self.tokenizer.decode([token for token in row if token != padding]) for row in rows]

    def forward(self, features: Tensor, said: Tensor) -> Tensor:
        """Logits (B, T + 1, V) of the next token after none, one, ... all of the T tokens said (B, T)."""
        before = F.pad(said, (1, 0))  # padding stands for the beginning too
        length = before.shape[1]
        x = self.embedding(before) + self.condition(features)[:, None] + self.get_buffer("positions")[:length]
        earlier = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        return self.out(self.norm(self.blocks(x, earlier)))


@on_host
def _sentences(phrases: list[list[str]], tokenizer: TextTokenizer) -> tuple[Tensor, list[Tensor]]:
    """The ids that the phrases need (V,), padding first; and per mover its phrases in them (phrases, width)."""
    rows = [[tokenizer.ids(phrase) for phrase in mover] for mover in phrases]
    used = sorted({token for mover in rows for row in mover for token in row})
    place = {token: index for index, token in enumerate(used, start=1)}
    tables = []
    for mover in rows:
        width = max(map(len, mover))
        padded = [[place[token] for token in row] + [0] * (width - len(row)) for row in mover]
        tables.append(torch.tensor(padded))
    return torch.tensor([tokenizer.pad, *used]), tables
