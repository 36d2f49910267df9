"""TinyVLA: what is seen and what is asked become tokens, a fusion makes features of them, a head makes actions.

::

    images.<camera> uint8 (B, H, W, 3) -> vision -> patches (B, N, D) --+
                                                                        +-> fusion -> features (B, F) -+-> head -> chunk
    tokens (B, L), tokens_mask (B, L) -> language -> text (B, Q + L, D) +                              |    (B, K, A)
    state float32 (B, S), normalised -> linear or MLP -> (B, D) ---------------------------------------+
                                                                                                       +-> text decoder

Without a camera there is no vision, and text and state alone are features.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.policy import NoiseKey
from tandem_policies.attention import Stack
from tandem_policies.network import Assets, Batch, PolicyNetwork, masked_mean
from tandem_policies.pretrained.settings import LANGUAGE_ASSET, VISION_ASSET
from tandem_policies.tinyvla.config import TinyVLAConfig
from tandem_policies.tinyvla.fusion import FUSIONS, TextAlone
from tandem_policies.tinyvla.head import HEADS
from tandem_policies.tinyvla.language import LanguageEncoder, NoInstruction, Text
from tandem_policies.tinyvla.speech import TextDecoder
from tandem_policies.tinyvla.vision import VisionEncoder

if TYPE_CHECKING:
    from tandem_policies.pretrained.language import LanguageTower
    from tandem_policies.pretrained.vision import VisionTower


class TinyVLA(PolicyNetwork):
    """Any number of rgb8 cameras, none too, with or without state and instruction. See the base for batches and units.

    Raises:
        TandemError: an embodiment that the configuration does not fit.
    """

    policy_type = "tinyvla"
    state_range: Tensor  # (S,), of each state scalar's limits

    def __init__(self, config: TinyVLAConfig, embodiment: Embodiment, assets: Assets | None = None) -> None:
        super().__init__(config, embodiment, assets)
        self.config: TinyVLAConfig = config
        named = config.tokenizer or config.language_backbone
        if named is not None and not assets:
            from tandem_policies.tokenizer_source import fetch_tokenizer

            self.tokenizer = fetch_tokenizer(named, config.tokenizer_pad)
        self.vision = _vision(config, embodiment, assets)
        self.language = self._language(assets)
        self.fusion = FUSIONS[config.fusion](config, self.vision.grids) if self.vision else TextAlone(config)
        self.state = _state_reader(config, embodiment.state_dim) if embodiment.state_dim else None
        ranges = [scalar.high - scalar.low for scalar in embodiment.state]
        self.register_buffer("state_range", torch.tensor(ranges, dtype=torch.float32), persistent=False)
        features = self.fusion.out_features + (config.dim if self.state else 0)
        self.head = HEADS[config.head](config, features, embodiment.action_dim)
        self.text = TextDecoder(config, features, embodiment, self.tokenizer) if config.text_decoder else None
        self.speaks = config.text_decoder

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's loss on normalised actions, and the text's beside it.

        Also logs ``action_l2``, the mean Euclidean error in units, and, where it speaks, ``text_loss`` and
        ``text_accuracy``, the share of sentences that are exactly right; a sentence counts by its chunk's real actions.
        """
        features, _ = self._features(batch)
        is_pad = batch["action_is_pad"]
        loss, chunk = self.head.loss(features, self.normalised("action", batch["action"]), is_pad)
        with torch.no_grad():
            miss = (self.in_units("action", chunk) - batch["action"]).norm(dim=-1, keepdim=True)
            metrics = {"action_l2": masked_mean(miss, is_pad)}
        if self.text is not None:
            target = self.text.target(batch["action"], is_pad, self._reach())
            text_loss, accuracy = self.text.loss(features, target, (~is_pad).sum(1))
            loss = loss + self.config.text_weight * text_loss
            metrics |= {"text_loss": text_loss.detach(), "text_accuracy": accuracy.detach()}
        return loss, {"loss": loss.detach(), **metrics}

    def predict(self, batch: Batch, keys: Sequence[NoiseKey] | None = None) -> Tensor:
        """Chunks float32 (B, K, A) in units; ``keys`` change nothing unless the head is ``flow``."""
        return self.in_units("action", self.head.predict(self._features(batch)[0], keys))

    def say(self, batch: Batch, keys: Sequence[NoiseKey] | None = None) -> list[str]:
        """What it does, to each of B observations ("move up and right"); empty without a text decoder."""
        return super().say(batch, keys) if self.text is None else self.text.say(self._features(batch)[0])

    def attention(self, batch: Batch, camera: str | None = None) -> Tensor:
        """Where the fusion looks: (B, gh, gw) of a camera, of the first one if None.

        Raises:
            TandemError: no such camera, or a fusion that pools everything and looks nowhere.
        """
        if self.vision is None:
            raise TandemError(f"policy 'tinyvla' for embodiment '{self.embodiment.name}': no camera to look through")
        name = camera or self.vision.cameras[0]
        index = self.embodiment.cameras.index(self.embodiment.camera(name))
        begin = sum(rows * columns for rows, columns in self.vision.grids[:index])
        rows, columns = self.vision.grids[index]
        _, weights = self._features(batch)
        if weights is None:
            looking = "cross_attention, gated, tokens"
            raise TandemError(f"policy 'tinyvla': fusion '{self.config.fusion}' has no attention (allowed: {looking})")
        seen = self.fusion.look(weights, self.head.reading)
        return seen[:, begin : begin + rows * columns].unflatten(1, (rows, columns))

    def encode_language(self, tokens: Mapping[str, Tensor]) -> Tensor | None:
        """The readouts (B, Q, D) of B instructions; None if none is heard, or the fusion needs the words too."""
        if isinstance(self.language, NoInstruction) or self.fusion.reads_words:
            return None
        return self.language(tokens["tokens"], tokens["tokens_mask"]).readouts

    @classmethod
    def asset_names(cls, config: TinyVLAConfig) -> tuple[str, ...]:  # type: ignore[override]
        """The tokenizer, and what describes each pretrained backbone."""
        backbones = {VISION_ASSET: config.vision_backbone, LANGUAGE_ASSET: config.language_backbone}
        return (*super().asset_names(config), *(name for name, backbone in backbones.items() if backbone is not None))

    def assets(self) -> Assets:
        """See :meth:`asset_names`."""
        names = self.asset_names(self.config)[1:]
        return {**super().assets(), **{name: tower.asset() for name, tower in zip(names, self._towers(), strict=True)}}

    def set_statistics(self, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        super().set_statistics(statistics)
        self.head.set_limits(*(self.normalised("action", self.get_buffer(f"action_{end}")) for end in ("min", "max")))

    def gradient_checkpointing_enable(self) -> None:
        """Trades time for memory in training: blocks, and backbones, compute their activations again."""
        for part in self.modules():
            if isinstance(part, Stack):
                part.checkpointing = True
        for tower in self._towers():
            tower.gradient_checkpointing_enable()

    def _towers(self) -> "list[VisionTower | LanguageTower]":
        """The pretrained backbones, vision first."""
        towers = (getattr(self.vision, "tower", None), getattr(self.language, "tower", None))
        return [tower for tower in towers if tower is not None]

    def _features(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Features (B, F) for the head, and the fusion's weights on the patches (B, heads, Q, N)."""
        patches = self.vision([batch[f"images.{camera}"] for camera in self.vision.cameras]) if self.vision else None
        size = batch["state"].shape[0] if patches is None else patches.shape[0]
        features, weights = self.fusion(self._text(batch, size), patches)
        if self.state is not None:
            state = self.normalised("state", batch["state"])
            if self.config.state_floor:  # where a brick rests differs by micrometres, which say nothing
                std = self.get_buffer("state_std")
                state = state * (std / torch.maximum(std, self.config.state_floor * self.state_range))
            if self.training and self.config.state_noise:
                state = state + self.config.state_noise * torch.randn_like(state)
            features = torch.cat([features, self.state(state)], dim=1)
        return features, weights

    def _text(self, batch: Batch, size: int) -> Text:
        if isinstance(self.language, NoInstruction):
            return self.language(size)
        ready = batch.get("language")
        return self.language(batch["tokens"], batch["tokens_mask"]) if ready is None else Text.of(ready)

    def _language(self, assets: Assets | None) -> LanguageEncoder | NoInstruction:
        if not self.embodiment.hears_instruction:
            if self.config.language_backbone is not None:
                deaf = f"embodiment '{self.embodiment.name}', which hears no instruction"
                raise TandemError(f"policy 'tinyvla': a language_backbone for {deaf} (allowed: null)")
            return NoInstruction(self.config)
        tower = _language_tower(self.config, assets)
        size = tower.vocab_size if tower else self.config.vocab_size or self.tokenizer.size
        if self.tokenizer.size > size:
            allowed = "the language backbone's own tokenizer" if tower else f"vocab_size {size}"
            raise TandemError(f"policy 'tinyvla': the tokenizer has {self.tokenizer.size} ids (allowed: {allowed})")
        encoder = LanguageEncoder(self.config, size, self.longest_text, tower)
        if tower is not None and tower.longest is not None:
            self.longest_text = min(self.longest_text, tower.longest)
        return encoder

    def _reach(self) -> Tensor:
        """The greatest size of each action scalar in the data, (A,)."""
        return torch.maximum(self.get_buffer("action_min").abs(), self.get_buffer("action_max").abs())


def _vision(config: TinyVLAConfig, embodiment: Embodiment, assets: Assets | None) -> VisionEncoder | None:
    """What sees, if there is a camera."""
    if embodiment.cameras:
        return VisionEncoder(config, embodiment, _vision_tower(config, embodiment, assets))
    where = f"policy 'tinyvla' for embodiment '{embodiment.name}'"
    if config.vision_backbone is not None:
        raise TandemError(f"{where}, which has no camera: vision_backbone '{config.vision_backbone}' (allowed: null)")
    return None


def _state_reader(config: TinyVLAConfig, state_dim: int) -> nn.Module:
    """(B, S) to (B, D)."""
    if not config.state_depth:
        return nn.Linear(state_dim, config.dim)
    layers: list[nn.Module] = []
    for _ in range(config.state_depth):
        layers += [nn.Linear(state_dim, config.head_dim), nn.GELU()]
        state_dim = config.head_dim
    return nn.Sequential(*layers, nn.Linear(state_dim, config.dim))


def _vision_tower(config: TinyVLAConfig, embodiment: Embodiment, assets: Assets | None) -> "VisionTower | None":
    """The pretrained image encoder that the config names; transformers is imported for it alone."""
    if config.vision_backbone is None:
        return None
    from tandem_policies.pretrained.vision import vision_tower

    return vision_tower(config, embodiment, assets)


def _language_tower(config: TinyVLAConfig, assets: Assets | None) -> "LanguageTower | None":
    """The pretrained text model that the config names."""
    if config.language_backbone is None:
        return None
    from tandem_policies.pretrained.language import language_tower

    return language_tower(config, assets)


Network = TinyVLA
