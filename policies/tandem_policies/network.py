"""The base of all networks: a plain torch module that owns its normalisation, its loss and its prediction.

A batch is a dict of tensors: ``images.<camera>`` uint8 (B, H, W, C), ``state`` float32 (B, S) and ``action`` float32
(B, K, A) in the embodiment's units, ``action_is_pad`` bool (B, K), and what the network's ``tokenize`` makes of the
instructions, by default ``tokens`` int64 (B, L) and ``tokens_mask`` bool (B, L) with True for real tokens. Where a
network sees several observations (``n_obs_steps`` above 1), images and state have a time axis after the batch's,
oldest first; where its loss wants actions from before the newest one (``n_past_actions``), there are ``past_action``
float32 (B, P, A) and ``past_action_is_pad`` bool (B, P). Predicting needs no actions; ``language`` may stand for the
tokens there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.policy import NoiseKey
from tandem_policies.registry import create
from tandem_policies.settings import PolicyConfig
from tandem_policies.tokenizer import TOKENIZER, TextTokenizer, packaged_tokenizer

__all__ = ["Assets", "Batch", "PolicyNetwork", "count_parameters", "create", "masked_mean", "parameter_table"]

Batch = Mapping[str, Tensor]
Assets = Mapping[str, str]
"""Small texts that a network is built from and that travel with its weights, by file name: ``tokenizer.json`` ..."""

_QUANTITIES = ("mean", "std", "min", "max")
_SMALLEST_STD = 1e-6  # a state scalar that never varied is only centred, not blown up


class PolicyNetwork(nn.Module, ABC):
    """A policy's network for one embodiment.

    Subclasses take ``(config, embodiment, assets)``, call this ``__init__`` first, normalise with
    :meth:`normalised` and :meth:`in_units` and nowhere else, and name their folder in ``policy_type``. Without assets a
    network is fresh: it takes the packaged texts, or fetches by name what its config asks for. With them it is built
    from these alone, its weights are replaced afterwards, and nothing is fetched.
    """

    policy_type: ClassVar[str]
    longest_text: int = 48  # tokens; what is longer is cut at the end
    n_obs_steps: int = 1  # observations that one inference sees
    n_past_actions: int = 0  # P, actions before the newest observation that the loss wants
    speaks: bool = False  # whether :meth:`say` has words for what it does

    def __init__(self, config: PolicyConfig, embodiment: Embodiment, assets: Assets | None = None) -> None:
        super().__init__()
        embodiment.require_action(f"network '{self.policy_type}'")
        self.config = config
        self.embodiment = embodiment
        self.tokenizer = TextTokenizer(assets[TOKENIZER], TOKENIZER) if assets else packaged_tokenizer()
        for key, size in (("state", embodiment.state_dim), ("action", embodiment.action_dim)):
            for quantity in _QUANTITIES:
                start = torch.ones(size) if quantity in ("std", "max") else torch.zeros(size)
                self.register_buffer(f"{key}_{quantity}", start)

    @property
    def chunk_size(self) -> int:
        """K, the actions of one inference."""
        return self.config.chunk_size

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.get_buffer("action_mean").device

    @classmethod
    def asset_names(cls, config: PolicyConfig) -> tuple[str, ...]:
        """The files that :meth:`assets` of a network with this config has."""
        return (TOKENIZER,)

    def assets(self) -> Assets:
        """What a network equal to this one but for its weights is built from."""
        return {TOKENIZER: self.tokenizer.text}

    def write(self, folder: Path) -> None:
        """Writes the files of a policy directory into an empty folder; :func:`tandem_policies.files.save` calls it."""
        from tandem_policies.files import write_layout

        write_layout(self, folder)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the network's batches hold of B instructions, row b of each tensor for text b.

        By default ``tokens`` int64 (B, L) and ``tokens_mask`` bool (B, L); L is the longest of them.
        """
        ids, mask = self.tokenizer.encode(texts, self.longest_text)
        return {"tokens": torch.from_numpy(ids), "tokens_mask": torch.from_numpy(mask)}

    def set_statistics(self, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Takes ``mean``, ``std``, ``min`` and ``max`` of ``state`` (S,) and ``action`` (A,), in their units.

        Raises:
            TandemError: one is missing, has another shape or is not finite.
        """
        for key, size in (("state", self.embodiment.state_dim), ("action", self.embodiment.action_dim)):
            for quantity in _QUANTITIES if size else ():
                if quantity not in statistics.get(key, {}):
                    raise TandemError(f"statistics: {key}.{quantity} is missing (wanted: {', '.join(_QUANTITIES)})")
                values = np.asarray(statistics[key][quantity], np.float32)
                if (
                    values.shape != (size,)
                    or not np.isfinite(values).all()
                    or (quantity == "std" and (values < 0).any())
                ):
                    shown = np.array2string(values, threshold=8).replace("\n", " ")
                    raise TandemError(f"statistics: {key}.{quantity} is {shown} (allowed: {size} finite numbers)")
                if quantity == "std":  # an action scalar that never varied stays what it was, whatever is predicted
                    least = 1 if key == "state" else _SMALLEST_STD
                    values = np.where(values < _SMALLEST_STD, np.float32(least), values)
                self.get_buffer(f"{key}_{quantity}").copy_(torch.from_numpy(values))

    def start(self, batch: Batch) -> None:
        """Looks at a batch of the data before a fresh network's first step; for initialisations that depend on it."""

    def normalised(self, key: str, values: Tensor) -> Tensor:
        """``state`` (..., S) or ``action`` (..., A) from units to zero mean and unit variance."""
        return (values - self.get_buffer(f"{key}_mean")) / self.get_buffer(f"{key}_std")

    def in_units(self, key: str, values: Tensor) -> Tensor:
        """The inverse of :meth:`normalised`."""
        return values * self.get_buffer(f"{key}_std") + self.get_buffer(f"{key}_mean")

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and detached scalars to log; padded actions count for nothing."""

    def weight(self, batch: Batch) -> Tensor:
        """The share of a batch that :meth:`loss` is the mean of, so that batches can be weighed against each other."""
        return (~batch["action_is_pad"]).float().mean()

    @abstractmethod
    def predict(self, batch: Batch, keys: Sequence[NoiseKey] | None = None) -> Tensor:
        """Chunks float32 (B, K, A) in units. Stochastic heads draw row b's noise from ``keys[b]`` alone."""

    def say(self, batch: Batch, keys: Sequence[NoiseKey] | None = None) -> list[str]:
        """What the policy says to each of B observations; empty texts where it does not speak."""
        size = next(iter(batch.values())).shape[0]
        return [""] * size

    def encode_language(self, tokens: Mapping[str, Tensor]) -> Tensor | None:
        """What of :meth:`tokenize`'s tensors can be computed ahead for ``batch["language"]``: (B, ...).

        None, if an instruction is only understood together with the images.
        """
        return None

    def attention(self, batch: Batch, camera: str | None = None) -> Tensor:
        """Where the policy looks in a camera's image (the first one's): (B, gh, gw), each map summing to at most 1."""
        raise TandemError(f"policy '{self.policy_type}': has no attention map to show")


def masked_mean(errors: Tensor, is_pad: Tensor) -> Tensor:
    """The mean of ``errors`` (B, K, A) over the actions that are not padding (B, K); 0 if all are."""
    real = (~is_pad).to(errors.dtype)
    return (errors.mean(-1) * real).sum() / real.sum().clamp(min=1)


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Parameters by top-level part, largest first, and their ``total``."""
    sizes = {name: sum(value.numel() for value in part.parameters()) for name, part in network.named_children()}
    sizes["other"] = sum(value.numel() for value in network.parameters(recurse=False))
    rows = {name: size for name, size in sorted(sizes.items(), key=lambda item: -item[1]) if size}
    return {**rows, "total": sum(rows.values())}


def parameter_table(network: nn.Module) -> str:
    """:func:`count_parameters` as lines to print."""
    rows: dict[str, Any] = count_parameters(network)
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {size:>12,}" for name, size in rows.items())
