"""TinyVLA: a ViT, a small language transformer, cross-attention between them and a continuous action head."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.policy import NoiseKey
from tandem_policies.network import Assets, Batch, PolicyNetwork, masked_mean
from tandem_policies.tinyvla.config import TinyVLAConfig
from tandem_policies.tinyvla.fusion import Fusion
from tandem_policies.tinyvla.head import ActionHead
from tandem_policies.tinyvla.language import LanguageEncoder, NoInstruction, Text
from tandem_policies.tinyvla.vision import VisionEncoder


class TinyVLA(PolicyNetwork):
    """Any number of rgb8 cameras, with or without state and instruction. See the base for batches and units."""

    policy_type = "tinyvla"

    def __init__(self, config: TinyVLAConfig, embodiment: Embodiment, assets: Assets | None = None) -> None:
        super().__init__(config, embodiment, assets)
        self.config: TinyVLAConfig = config
        self.vision = VisionEncoder(config, embodiment, _vision_tower(config, embodiment, assets))
        self.language: LanguageEncoder | NoInstruction = (
            LanguageEncoder(config, self._vocab_size(), self.longest_text, _language_tower(config, assets))
            if embodiment.hears_instruction
            else NoInstruction(config)
        )
        self.fusion = Fusion(config, self.vision.grids)
        self.state = nn.Linear(embodiment.state_dim, config.dim) if embodiment.state_dim else None
        features = self.fusion.out_features + (config.dim if self.state else 0)
        self.head = ActionHead(config, features, embodiment.action_dim)
        self.loss_beta = config.loss_beta
        self.state_noise = config.state_noise

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Smooth L1 on normalised actions; also logs ``action_l2``, the mean Euclidean error in units."""
        chunk, _ = self._forward(batch)
        chunk = chunk.float()
        errors = F.smooth_l1_loss(
            chunk, self.normalised("action", batch["action"]), reduction="none", beta=self.loss_beta
        )
        loss = masked_mean(errors, batch["action_is_pad"])
        with torch.no_grad():
            miss = (self.in_units("action", chunk) - batch["action"]).norm(dim=-1, keepdim=True)
            return loss, {"loss": loss.detach(), "action_l2": masked_mean(miss, batch["action_is_pad"])}

    def predict(self, batch: Batch, keys: Sequence[NoiseKey] | None = None) -> Tensor:
        """Chunks float32 (B, K, A) in units; deterministic, so that ``keys`` change nothing."""
        return self.in_units("action", self._forward(batch)[0].float())

    def encode_language(self, tokens: Mapping[str, Tensor]) -> Tensor | None:
        """The queries (B, Q, D) of B instructions; None if the embodiment hears none."""
        if isinstance(self.language, NoInstruction):
            return None
        return self.language(tokens["tokens"], tokens["tokens_mask"]).readouts

    def attention(self, batch: Batch, camera: str | None = None) -> Tensor:
        """Where the readout looks: (B, gh, gw) of a camera, of the first one if None.

        Heads count by how much the action head makes of their positions; some look nowhere and matter little.
        """
        name = camera or self.vision.cameras[0]
        index = self.embodiment.cameras.index(self.embodiment.camera(name))
        begin = sum(rows * columns for rows, columns in self.vision.grids[:index])
        rows, columns = self.vision.grids[index]
        weights = torch.einsum("bhqn,hq->bn", self._forward(batch)[1].float(), self._influence())
        return weights[:, begin : begin + rows * columns].unflatten(1, (rows, columns))

    def _influence(self) -> Tensor:
        """The share (heads, Q) of each expected position in the first layer's squared weights on all of them."""
        heads, queries = self.config.fusion_heads, self.config.queries
        first = self.head[0].get_parameter("weight")[:, self.fusion.fused_features : self.fusion.out_features]
        squares = first.float().square().sum(0).view(heads, queries, self.fusion.columns).sum(-1)
        return squares / squares.sum()

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalised chunks (B, K, A) and the readout's weights (B, heads, Q, N)."""
        tokens = self.vision([batch[f"images.{camera}"] for camera in self.vision.cameras])
        features, weights = self.fusion(self._text(batch, tokens.shape[0]).readouts, tokens)
        if self.state is not None:
            state = self.normalised("state", batch["state"])
            if self.training and self.state_noise:
                state = state + self.state_noise * torch.randn_like(state)
            features = torch.cat([features, self.state(state)], dim=1)
        return self.head(features), weights

    def _text(self, batch: Batch, size: int) -> Text:
        if isinstance(self.language, NoInstruction):
            return self.language(size)
        ready = batch.get("language")
        return self.language(batch["tokens"], batch["tokens_mask"]) if ready is None else Text.of(ready)

    def _vocab_size(self) -> int:
        """Rows of the token embedding."""
        size = self.config.vocab_size or self.tokenizer.size
        if self.tokenizer.size > size:
            ids = f"the tokenizer has {self.tokenizer.size} ids"
            raise TandemError(f"policy 'tinyvla': {ids} (allowed: vocab_size {size})")
        return size


def _vision_tower(config: TinyVLAConfig, embodiment: Embodiment, assets: Assets | None) -> nn.Module | None:
    """The pretrained image encoder that the config names; transformers is imported for it alone."""
    if config.vision_backbone is None:
        return None
    from tandem_policies.pretrained import vision_tower

    return vision_tower(config, embodiment, assets)


def _language_tower(config: TinyVLAConfig, assets: Assets | None) -> nn.Module | None:
    """The pretrained text model that the config names."""
    if config.language_backbone is None:
        return None
    from tandem_policies.pretrained import language_tower

    return language_tower(config, assets)


Network = TinyVLA
