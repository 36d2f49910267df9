"""Instructions to a pretrained language model's states."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tandem_policies.network import Assets
from tandem_policies.pretrained.architectures import LANGUAGE, LanguageArchitecture
from tandem_policies.pretrained.settings import LANGUAGE_ASSET, BackboneSettings
from tandem_policies.pretrained.tower import Plan, Tower, build


def language_tower(config: BackboneSettings, assets: Assets | None) -> "LanguageTower":
    """The tower that a config names; as :func:`tandem_policies.pretrained.vision.vision_tower`, errors too."""
    where = f"language_backbone '{config.language_backbone}'"
    assert config.language_backbone is not None
    asset = assets[LANGUAGE_ASSET] if assets else None
    backbone, plan, dtype = build(
        LANGUAGE, config.language_backbone, config.language_tuning, config, asset, where, lambda *_: {}
    )
    return LanguageTower(backbone, plan, config.language_tuning, dtype)


class LanguageTower(Tower[LanguageArchitecture]):
    """A state for every token: a decoder's knows the tokens before it, an encoder's all."""

    def __init__(self, backbone: nn.Module, plan: Plan[LanguageArchitecture], tuning: str, dtype: torch.dtype) -> None:
        super().__init__(backbone, plan, tuning, dtype)
        self.vocab_size = int(self.configuration.vocab_size)  # token ids are below it
        self.positions = plan.recipe.architecture.positions
        longest = getattr(self.configuration, "max_position_embeddings", None)
        if longest and self.positions == "after_padding":
            longest -= int(self.configuration.pad_token_id) + 1
        self.longest: int | None = int(longest) if longest else None  # tokens of a text; None: any number

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens int64 (B, L) and mask bool (B, L), True = real, to states float32 (B, L, width); 0 where padded."""
        seen = mask.clone()
        seen[:, 0] |= ~mask.any(1)  # a text without tokens still looks at one, or the softmax is over nothing
        options: Mapping[str, Any] = {} if self.positions == "own" else {"position_ids": self._places(seen)}
        with self._gradients():
            states = self.backbone(input_ids=tokens, attention_mask=seen.long(), **options).last_hidden_state
        return states.float().masked_fill(~mask[..., None], 0.0)

    def _places(self, seen: Tensor) -> Tensor:
        """Each token's position (B, L): real ones are counted, wherever the padding is."""
        places = seen.long().cumsum(1) - 1
        if self.positions == "after_padding":  # RoBERTa begins after the padding's row
            return (places + 1) * seen + int(self.configuration.pad_token_id)
        return places.clamp(min=0)
