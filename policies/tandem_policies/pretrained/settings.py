"""The config fields of pretrained backbones; free of torch, as all configs are."""

import re
from dataclasses import dataclass

from tandem_policies.settings import PolicyConfig, setting

# What a backbone is built from again, beside a policy's weights.
VISION_ASSET, LANGUAGE_ASSET = "vision_backbone.json", "language_backbone.json"
TUNINGS = ("frozen", "lora", "full")
DTYPES = ("float32", "bfloat16")
_LONGEST_PATTERN = 1000


@dataclass(frozen=True)
class BackboneSettings(PolicyConfig):
    """Which backbones a policy sees and reads with, and what of them is trained; see :class:`PolicyConfig` for errors.

    A backbone is named as on the Hugging Face hub (``google/siglip-base-patch16-224``), or by a local folder.
    """

    vision_backbone: str | None = None  # null: the policy's own vision
    vision_tuning: str = "frozen"  # or lora, or full
    vision_resize: bool = False  # scale images to the size that the backbone takes, instead of refusing them
    language_backbone: str | None = None  # null: the policy's own language encoder
    language_tuning: str = "frozen"  # or lora, or full
    backbone_dtype: str = "float32"  # of frozen weights, under LoRA adapters too: or bfloat16, half the memory
    lora_rank: int = setting(16, 1, 1024)
    lora_alpha: float = setting(32.0, 0.001, 10000.0)  # an adapter's output is scaled by alpha / rank
    lora_dropout: float = setting(0.0, 0.0, 0.9)  # of an adapter's input
    lora_targets: str | None = None  # linear layers: a regex, or names "q_proj,v_proj"; null: all of them

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in ("vision", "language"):
            self._check_tower(part, getattr(self, f"{part}_backbone"), getattr(self, f"{part}_tuning"))
        if self.backbone_dtype not in DTYPES:
            self.refuse("backbone_dtype", self.backbone_dtype, " or ".join(DTYPES))
        if self.lora_targets is not None:
            self._check_pattern(self.lora_targets)

    def _check_tower(self, part: str, backbone: str | None, tuning: str) -> None:
        if backbone is not None and not backbone.strip():
            self.refuse(f"{part}_backbone", backbone, "a name on the Hugging Face hub, a folder, or null")
        if tuning not in TUNINGS:
            self.refuse(f"{part}_tuning", tuning, ", ".join(TUNINGS))
        if tuning == "lora" and backbone is None:
            self.refuse(f"{part}_tuning", tuning, f"only with a {part}_backbone; its own layers always train in full")
        if tuning == "full" and backbone is not None and self.backbone_dtype != "float32":
            # An optimizer's small steps vanish in bfloat16's 8 bits; mixed precision keeps float32 weights instead.
            self.refuse("backbone_dtype", self.backbone_dtype, f"float32 with {part}_tuning=full")

    def _check_pattern(self, pattern: str) -> None:
        try:
            fine = bool(pattern.strip()) and len(pattern) <= _LONGEST_PATTERN and bool(re.compile(pattern))
        except (re.error, RecursionError):
            fine = False
        if not fine:
            self.refuse("lora_targets", pattern, "a regular expression, or names of layers with commas between them")
