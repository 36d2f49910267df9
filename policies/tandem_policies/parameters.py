"""What a network weighs: its parameters by part, which of them are trained, and the memory that they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tandem_datasets.errors import TandemError
from tandem_policies.network import PolicyNetwork

_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
          "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes, by safetensors' names  # fmt: skip
_ADAMW_STATES = 2  # running means of the gradient and of its square


@dataclass(frozen=True)
class Weight:
    """A parameter, or a buffer that is stored with them."""

    name: str
    count: int  # numbers
    itemsize: int  # bytes of one
    trains: bool | None = False  # None: unknown
    buffer: bool = False
    floats: bool = True


@dataclass(frozen=True)
class Part:
    """Weights whose names begin alike, summed up. Bytes of gradients and AdamW are those of the trained ones."""

    name: str
    depth: int  # 1: a top-level part
    parameters: int
    trainable: int | None  # None: unknown
    weight_bytes: int  # buffers too
    gradient_bytes: int | None
    adamw_bytes: int | None


def weights_of(network: PolicyNetwork) -> list[Weight]:
    """All weights of a network, which may be on ``meta``; shared ones once."""
    parameters = [
        Weight(name, value.numel(), value.element_size(), value.requires_grad)
        for name, value in network.named_parameters()
    ]
    stored = network.state_dict().keys()
    return parameters + [
        Weight(name, value.numel(), value.element_size(), False, True, value.is_floating_point())
        for name, value in network.named_buffers()
        if name in stored
    ]


def weights_in(file: Path) -> list[Weight]:
    """What the header of a safetensors file lists; it does not tell what is trained, nor buffers from parameters.

    Raises:
        TandemError: it is missing or damaged.
    """
    if not file.is_file():
        raise TandemError(f"{file}: is missing")
    try:
        with safe_open(file, "pt") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            facts = [(name, prod(part.get_shape()), part.get_dtype()) for name, part in parts.items()]
    except (SafetensorError, OSError) as error:
        raise TandemError(f"{file}: damaged: {str(error)[:120]}") from None
    return [Weight(name, count, _SIZES.get(kind, 4), None, floats="F" in kind) for name, count, kind in facts]


def parts_of(weights: Sequence[Weight], depth: int) -> list[Part]:
    """A row for every part down to ``depth`` levels, each before its own parts; larger ones first.

    A wrapper around a single module is no level of its own.
    """
    return list(_parts([(weight.name.split("."), weight) for weight in weights], "", 1, depth))


def total(weights: Sequence[Weight]) -> Part:
    """All of them."""
    return _sum("total", 0, weights)


def serving_bytes(weights: Sequence[Weight], dtype: torch.dtype) -> int:
    """Memory of all weights where the floating ones have this type."""
    return sum(weight.count * (dtype.itemsize if weight.floats else weight.itemsize) for weight in weights)


def _parts(named: list[tuple[list[str], Weight]], prefix: str, level: int, depth: int) -> list[Part]:
    groups: dict[str, list[tuple[list[str], Weight]]] = {}
    for path, weight in named:
        groups.setdefault(path[0] if len(path) > 1 else "", []).append((path[1:], weight))
    own = [weight for _, weight in groups.pop("", [])]
    rows: list[list[Part]] = []
    for name, inside in groups.items():
        begin = prefix + name
        while level == 1 and len({path[0] for path, _ in inside}) == 1 and all(len(path) > 1 for path, _ in inside):
            begin += f".{inside[0][0][0]}"
            inside = [(path[1:], weight) for path, weight in inside]  # noqa: PLW2901 (walks down)
        row = _sum(begin, level, [weight for _, weight in inside])
        rows.append([row, *(_parts(inside, f"{begin}.", level + 1, depth) if level < depth else [])])
    if own:
        rows.append([_sum(f"{prefix}(own)", level, own)])
    rows = [group for group in rows if group[0].parameters]  # not the statistics, which are buffers
    rows.sort(key=lambda group: -group[0].parameters)
    return [row for group in rows if len(rows) > 1 or level == 1 for row in group]


def _sum(name: str, depth: int, weights: Sequence[Weight]) -> Part:
    parameters = [weight for weight in weights if not weight.buffer]
    known = all(weight.trains is not None for weight in weights)
    trained = [weight for weight in parameters if weight.trains]
    gradients = sum(weight.count * weight.itemsize for weight in trained)
    return Part(
        name=name,
        depth=depth,
        parameters=sum(weight.count for weight in parameters),
        trainable=sum(weight.count for weight in trained) if known else None,
        weight_bytes=sum(weight.count * weight.itemsize for weight in weights),
        gradient_bytes=gradients if known else None,
        adamw_bytes=_ADAMW_STATES * gradients if known else None,
    )
