"""Features to a chunk of continuous actions."""

from torch import nn

from tandem_policies.tinyvla.config import TinyVLAConfig


class ActionHead(nn.Sequential):
    """An MLP from features (B, F) to a chunk (B, K, A) of normalised actions."""

    def __init__(self, config: TinyVLAConfig, features: int, action_dim: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(config.head_depth):
            layers += [nn.Linear(features, config.head_dim), nn.GELU(), nn.Dropout(config.dropout)]
            features = config.head_dim
        super().__init__(
            *layers,
            nn.Linear(features, config.chunk_size * action_dim),
            nn.Unflatten(1, (config.chunk_size, action_dim)),
        )
