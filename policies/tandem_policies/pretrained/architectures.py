"""Which of transformers' models can be backbones, and how one is built: from a folder, or from its config alone.

A backbone is the part of a model that gives a state for every token or patch: poolers, heads and mask tokens, which
nothing here would read or train, are left out. Only the classes named below are ever imported; no file can name
another one or bring code of its own.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tandem_datasets.errors import TandemError, unknown
from tandem_policies.pretrained.sources import CONFIG
from tandem_policies.untrusted import read_json

_DEPTHS = re.compile(r"(num_(hidden_|decoder_)?|n_?)layers?")  # config keys that say how many layers are built
_MOST_LAYERS = 512
_NOT_ABOUT_THE_MODEL = ("architectures", "attn_implementation", "auto_map", "dtype", "torch_dtype",
                        "transformers_version", "use_cache", "id2label", "label2id")  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A model of transformers, and what of it is the backbone."""

    config: str  # the class of its configuration
    model: str  # the class that reads its weights
    inner: str = ""  # its module that is the backbone; all of it, if empty
    part_of: str = ""  # the model type of whole checkpoints that hold it beside others
    renamed: Mapping[str, str] = field(default_factory=dict)  # patterns of names in such a checkpoint, and ours
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the configuration
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the model's constructor
    unread: tuple[str, ...] = ()  # modules and parameters of the backbone that nothing reads

    def config_in(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's own part of a whole checkpoint's ``config.json``."""
        key = "text_config" if "Text" in self.config else "vision_config"
        inside = values.get(key) if values.get("model_type") == self.part_of else values
        return dict(inside) if isinstance(inside, Mapping) else {}


@dataclass(frozen=True)
class VisionArchitecture(Architecture):
    """A model that takes images."""

    prefix: int = 0  # class tokens before the patches, registers not counted
    any_size: bool = False  # its positions fit any multiple of the patch
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of the pixels (0..1) that it learned from
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class LanguageArchitecture(Architecture):
    """A model that takes tokens: a decoder's states see what came before, an encoder's see the whole text."""

    positions: Literal["count", "after_padding", "own"] = "count"


_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CLIP: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
_NO_POOLER = {"add_pooling_layer": False}

VISION: dict[str, VisionArchitecture] = {
    "clip_vision_model": VisionArchitecture(
        "CLIPVisionConfig", "CLIPVisionModel", "vision_model", "clip", unread=("post_layernorm",), prefix=1, **_CLIP
    ),
    "deit": VisionArchitecture("DeiTConfig", "DeiTModel", arguments=_NO_POOLER, prefix=2, **_IMAGENET),
    "dinov2": VisionArchitecture(
        "Dinov2Config", "Dinov2Model", changes={"use_mask_token": False}, prefix=1, any_size=True, **_IMAGENET
    ),
    "dinov2_with_registers": VisionArchitecture(
        "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", unread=("embeddings.mask_token",), prefix=1,
        any_size=True, **_IMAGENET,
    ),
    "dinov3_vit": VisionArchitecture(
        "DINOv3ViTConfig", "DINOv3ViTModel", unread=("embeddings.mask_token",), prefix=1, any_size=True, **_IMAGENET
    ),
    "siglip_vision_model": VisionArchitecture(
        "SiglipVisionConfig", "SiglipVisionModel", "vision_model", "siglip", changes={"vision_use_head": False}
    ),
    "vit": VisionArchitecture("ViTConfig", "ViTModel", arguments=_NO_POOLER, prefix=1),
}  # fmt: skip

LANGUAGE: dict[str, LanguageArchitecture] = {
    "bert": LanguageArchitecture("BertConfig", "BertModel", arguments=_NO_POOLER),
    "clip_text_model": LanguageArchitecture("CLIPTextConfig", "CLIPTextModel", "text_model", "clip"),
    "distilbert": LanguageArchitecture("DistilBertConfig", "DistilBertModel"),
    "gemma": LanguageArchitecture("GemmaConfig", "GemmaModel"),
    "gemma2": LanguageArchitecture("Gemma2Config", "Gemma2Model"),
    "gemma3_text": LanguageArchitecture(
        "Gemma3TextConfig", "Gemma3TextModel", part_of="gemma3", renamed={r"^(model\.)?language_model\.(model\.)?": ""}
    ),
    "llama": LanguageArchitecture("LlamaConfig", "LlamaModel"),
    "mistral": LanguageArchitecture("MistralConfig", "MistralModel"),
    "modernbert": LanguageArchitecture("ModernBertConfig", "ModernBertModel"),
    "phi": LanguageArchitecture("PhiConfig", "PhiModel"),
    "phi3": LanguageArchitecture("Phi3Config", "Phi3Model"),
    "qwen2": LanguageArchitecture("Qwen2Config", "Qwen2Model"),
    "qwen3": LanguageArchitecture("Qwen3Config", "Qwen3Model"),
    "roberta": LanguageArchitecture("RobertaConfig", "RobertaModel", arguments=_NO_POOLER, positions="after_padding"),
    "siglip_text_model": LanguageArchitecture(
        "SiglipTextConfig", "SiglipTextModel", "text_model", "siglip", unread=("head",)
    ),
    "smollm3": LanguageArchitecture("SmolLM3Config", "SmolLM3Model"),
    "t5": LanguageArchitecture("T5Config", "T5EncoderModel", "encoder", positions="own"),
    "xlm-roberta": LanguageArchitecture(
        "XLMRobertaConfig", "XLMRobertaModel", arguments=_NO_POOLER, positions="after_padding"
    ),
}


def find[A: Architecture](known: Mapping[str, A], model_type: object, where: str) -> tuple[str, A]:
    """The backbone's name in a table and its entry, for a ``model_type`` of it or of a whole that holds it.

    Raises:
        TandemError: none of the table's.
    """
    for name, architecture in known.items():
        if model_type in (name, architecture.part_of) and model_type:
            return name, architecture
    wholes = {architecture.part_of for architecture in known.values()} - {""}
    raise unknown(f"{where}: architecture", str(model_type)[:60], {*known, *wholes})


@dataclass(frozen=True)
class Recipe[A: Architecture]:
    """A backbone without its weights."""

    name: str  # in the table
    architecture: A
    config: dict[str, Any]  # plain JSON, as the model's configuration writes itself

    @classmethod
    def from_folder(cls, known: Mapping[str, A], folder: Path, where: str) -> "Recipe[A]":
        """Reads a model's ``config.json``."""
        values = read_json(folder / CONFIG)
        name, architecture = find(known, values.get("model_type"), where)
        if "quantization_config" in values:
            raise TandemError(f"{where}: its weights are quantised (allowed: float32, float16 or bfloat16 weights)")
        return cls.checked(name, architecture, architecture.config_in(values), where)

    @classmethod
    def checked(cls, name: str, architecture: A, values: Mapping[str, Any], where: str) -> "Recipe[A]":
        """From untrusted values; TandemError if no model can be made of them."""
        kept = {key: value for key, value in values.items() if _matters(key)}
        _check_depths(kept, where)
        made = _quietly(lambda: _class(architecture.config).from_dict({**kept, **architecture.changes}), where)
        values = {key: value for key, value in made.to_dict().items() if _matters(key)}
        return cls(name, architecture, json.loads(json.dumps(values)))

    def configuration(self) -> Any:
        """Transformers' configuration object."""
        return _class(self.architecture.config).from_dict(self.config)

    def loaded(self, folder: Path, dtype: torch.dtype, where: str) -> nn.Module:
        """The backbone with a folder's weights, in evaluation mode.

        Raises:
            TandemError: the weights are damaged, of another architecture or of other sizes.
        """
        architecture = self.architecture
        kind = _class(architecture.model)
        whole = bool(architecture.part_of) and read_json(folder / CONFIG).get("model_type") == architecture.part_of
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
        if whole and architecture.renamed:
            options["key_mapping"] = dict(architecture.renamed)
        with torch.random.fork_rng(devices=[]):  # what it initialises is replaced, and must not move our randomness
            model, report = _quietly(
                lambda: kind.from_pretrained(
                    str(folder),
                    config=self.configuration(),
                    dtype=dtype,
                    ignore_mismatched_sizes=True,  # the report has them
                    **options,
                    **architecture.arguments,
                ),
                where,
            )
        backbone = self._backbone_of(model)
        self._check(report, model, backbone, where)
        return backbone

    def _check(self, report: Mapping[str, Any], model: nn.Module, backbone: nn.Module, where: str) -> None:
        """Raises TandemError unless all of the backbone was in the file."""
        names = {id(value): name for name, value in [*model.named_parameters(), *model.named_buffers()]}
        wanted = {names[id(value)] for value in [*backbone.parameters(), *backbone.buffers()]}
        missing = sorted(wanted & set(report["missing_keys"]))
        if missing:
            raise TandemError(
                f"{where}: the weights are of another architecture: no '{missing[0]}', and "
                f"{len(missing) - 1} more are missing (wanted: those of a {self.architecture.model})"
            )
        for name, came, allowed in sorted(report["mismatched_keys"]):
            if name in wanted:
                raise TandemError(f"{where}: '{name}' is {list(came)} (its {CONFIG} wants {list(allowed)})")

    def empty(self, dtype: torch.dtype, where: str) -> nn.Module:
        """The backbone with weights that are not initialised: to be loaded into, or to be counted on ``meta``."""
        from transformers.initialization import no_init_weights

        with no_init_weights():
            kind = _class(self.architecture.model)
            model = _quietly(
                lambda: kind._from_config(self.configuration(), dtype=dtype, **self.architecture.arguments), where
            )
        return self._backbone_of(model).eval()

    def _backbone_of(self, model: nn.Module) -> nn.Module:
        backbone = model.get_submodule(self.architecture.inner)
        for path in self.architecture.unread:
            parent, _, name = path.rpartition(".")
            holder = backbone.get_submodule(parent)
            setattr(holder, name, nn.Identity() if name in dict(holder.named_children()) else None)
        if hasattr(backbone.config, "use_cache"):
            backbone.config.use_cache = False  # nothing is generated here
        return backbone


def _matters(key: str) -> bool:
    return key not in _NOT_ABOUT_THE_MODEL and not key.startswith("_")


def _class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _quietly[T](make: Callable[[], T], where: str) -> T:
    """Runs a step of transformers without its warnings and bars; whatever it raises becomes one line."""
    with _silence():
        try:
            return make()
        except Exception as error:  # noqa: BLE001 (it raises what it likes: a config's values end up anywhere)
            line = " ".join(str(error).split())[:200] or type(error).__name__
            raise TandemError(f"{where}: transformers cannot build this model: {line}") from None


@contextmanager
def _silence() -> Iterator[None]:
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _check_depths(values: Mapping[str, Any], where: str) -> None:
    """Refuses so many layers that their outline alone takes minutes; widths cost nothing before the weights fit."""
    for key, value in values.items():
        if _DEPTHS.fullmatch(str(key)) and not (isinstance(value, int) and 1 <= value <= _MOST_LAYERS):
            raise TandemError(f"{where}: {key} is {value!r:.30} (allowed: 1..{_MOST_LAYERS})")
