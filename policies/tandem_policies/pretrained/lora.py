"""LoRA adapters (Hu et al., 2021) in a backbone's linear layers, through peft."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from tandem_datasets.errors import TandemError
from tandem_policies.pretrained.settings import BackboneSettings

_NAMES = re.compile(r"[\w.]+(\s*,\s*[\w.]+)+")
_SHOWN = 4


def chosen_layers(backbone: nn.Module, targets: str | None, where: str) -> list[str]:
    """The linear layers that a text means: a regex that is searched in their names, or several names with commas.

    Args:
        backbone: where they are looked for.
        targets: the text; None takes all.
        where: begins the error's line.

    Raises:
        TandemError: it means none.
    """
    names = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if targets is None:
        return names
    if _NAMES.fullmatch(targets.strip()):
        ends = tuple(f".{end.strip()}" for end in targets.split(","))
        found = [name for name in names if f".{name}".endswith(ends)]
    else:
        found = [name for name in names if re.search(targets, name)]
    if not found:
        examples = list({name.rpartition(".")[2]: name for name in reversed(names)}.values())[-_SHOWN:]
        raise TandemError(
            f"{where}: lora_targets '{targets}' match no linear layer (there are {len(names)}, such as "
            f"{', '.join(reversed(examples))})"
        )
    return found


def add_adapters(backbone: nn.Module, layers: Sequence[str], settings: BackboneSettings, where: str) -> None:
    """Puts an adapter beside each named layer, in float32; afterwards only adapters are trained.

    Raises:
        TandemError: a name is no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    known = {name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    wrong = [name for name in layers if name not in known]
    if wrong or not layers:
        raise TandemError(f"{where}: adapters are wanted at {wrong[0]!r:.80}" if wrong else f"{where}: no adapters")
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type] # annotated as int, but only divided by the rank
        lora_dropout=settings.lora_dropout,
        target_modules=rf"({'|'.join(map(re.escape, layers))})",
    )
    inject_adapter_in_model(config, backbone)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
