"""What the towers share: a backbone that is frozen, adapted or trained, and the text that it is built from again."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tandem_datasets.errors import TandemError
from tandem_policies.pretrained import architectures, sources
from tandem_policies.pretrained.architectures import Architecture, Recipe
from tandem_policies.pretrained.lora import add_adapters, chosen_layers
from tandem_policies.pretrained.settings import BackboneSettings

_FORMAT = 1


@dataclass(frozen=True)
class Plan[A: Architecture]:
    """All that a tower is built from besides the policy's config; it travels with the weights as JSON."""

    recipe: Recipe[A]
    adapted: tuple[str, ...]  # the layers with LoRA adapters
    image_mean: tuple[float, ...] = ()  # of pixels from 0 to 1, per channel; vision only
    image_std: tuple[float, ...] = ()

    def text(self) -> str:
        """The JSON; :meth:`read` is the inverse."""
        content = {
            "format": _FORMAT,
            "architecture": self.recipe.name,
            **{key: value for key, value in asdict(self).items() if key != "recipe" and value},
            "config": self.recipe.config,
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def read(cls, known: Mapping[str, A], text: str, where: str) -> "Plan[A]":
        """From an untrusted text; TandemError if it is no plan of a known architecture."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TandemError(f"{where}: not JSON: {' '.join(str(error).split())[:120]}") from None
        values = content if isinstance(content, dict) else {}
        if values.get("format") != _FORMAT or not isinstance(values.get("config"), dict):
            raise TandemError(f"{where}: no backbone's description (wanted: format {_FORMAT} and a config)")
        name = str(values.get("architecture"))[:60]
        if name not in known:
            raise architectures.unknown(f"{where}: architecture", name, known)
        adapted = values.get("adapted", [])
        if not isinstance(adapted, list) or not all(isinstance(layer, str) for layer in adapted):
            raise TandemError(f"{where}: adapted is {adapted!r:.60} (wanted: a list of layers' names)")
        colours = [colour_values(values.get(key, ()), f"{where}: {key}") for key in ("image_mean", "image_std")]
        return cls(Recipe.checked(name, known[name], values["config"], where), tuple(adapted), *colours)


def colour_values(values: Any, where: str) -> tuple[float, ...]:
    """Three plain numbers, or none."""
    plain = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    if not plain or len(values) not in (0, 3) or not all(abs(value) < 1e3 for value in values):
        raise TandemError(f"{where} is {values!r:.60} (wanted: three numbers)")
    return tuple(float(value) for value in values)


class Tower[A: Architecture](nn.Module):
    """A backbone and how it is tuned.

    Frozen, it stays in evaluation mode (no dropout), needs no gradients, and no activations are kept for any.
    """

    backbone: nn.Module

    def __init__(self, backbone: nn.Module, plan: Plan[A], tuning: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.plan = plan
        self.frozen = tuning == "frozen"
        self.dtype = dtype  # of the backbone's weights, adapters apart
        self.width = int(self.configuration.hidden_size)  # of a token
        if self.frozen:
            backbone.requires_grad_(False)
            backbone.eval()

    @property
    def configuration(self) -> Any:
        """Transformers' configuration of the backbone."""
        return self.backbone.config

    def train(self, mode: bool = True) -> "Tower[A]":
        """As all modules; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def gradient_checkpointing_enable(self) -> None:
        """In training, activations are computed again instead of kept, where the backbone is trained and can."""
        if not self.frozen and getattr(self.backbone, "supports_gradient_checkpointing", False):
            self.backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    def asset(self) -> str:
        """The text that the tower is built from again."""
        return self.plan.text()

    def _gradients(self) -> AbstractContextManager:
        return torch.no_grad() if self.frozen else nullcontext()


def build[A: Architecture](
    known: Mapping[str, A],
    name: str,
    tuning: str,
    settings: BackboneSettings,
    asset: str | None,
    where: str,
    colours: Callable[[A, Path], Mapping[str, Any]],
) -> tuple[nn.Module, Plan[A], torch.dtype]:
    """The backbone, what it was built from, and the type of its weights.

    Args:
        known: the table of architectures.
        name: hub name or folder, for a fresh one.
        tuning: frozen, lora or full.
        settings: the policy's.
        asset: the plan of one that is opened again; its weights come later.
        where: begins an error's line.
        colours: the plan's image fields, from the architecture and the folder.
    """
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[settings.backbone_dtype]
    if asset is not None:
        plan = Plan.read(known, asset, where)
        backbone = plan.recipe.empty(dtype, where)
        if bool(plan.adapted) != (tuning == "lora"):
            raise TandemError(f"{where}: adapters at {len(plan.adapted)} layers contradict the tuning '{tuning}'")
        if plan.adapted:
            add_adapters(backbone, plan.adapted, settings, where)
        return backbone, plan, dtype
    outlined = torch.get_default_device().type == "meta"  # to be counted: no weights are wanted
    folder = sources.find(name, where, weights=not outlined)
    recipe = Recipe.from_folder(known, folder, where)
    backbone = recipe.empty(dtype, where) if outlined else recipe.loaded(folder, dtype, where)
    layers = chosen_layers(backbone, settings.lora_targets, where) if tuning == "lora" else []
    if layers:
        add_adapters(backbone, layers, settings, where)
    return backbone, Plan(recipe, tuple(layers), **colours(recipe.architecture, folder)), dtype
