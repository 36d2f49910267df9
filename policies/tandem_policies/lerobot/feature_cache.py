"""Features that a frozen image backbone gave for a picture are kept in training: each is computed once.

A backbone that nothing changes gives the same features for the same picture, whatever step it is. On two CPU cores
a ResNet-18 was more than half of a step of ACT or Diffusion.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

MOST_BYTES = 2 << 30  # of one backbone's features; those of later pictures are computed each time
_AT_ONCE = 4  # rows computed together: always as many, for sums round otherwise in batches of other sizes
_COLOURS = 3
_FIXED = (  # layers whose output depends on their own row alone, and is the same each time
    nn.Conv2d,
    nn.GroupNorm,
    FrozenBatchNorm2d,
    nn.BatchNorm2d,  # in evaluation mode, in which an engine has what it freezes
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
)


def remember_features(policy: nn.Module, most_bytes: int = MOST_BYTES) -> None:
    """Has the frozen backbones of ``policy`` keep their features; done once, it stays done.

    A backbone is the largest part that takes pictures, has no weight to train, and several layers, all of which repeat
    themselves.
    """
    for backbone in _backbones(policy):
        if not isinstance(backbone.forward, FeatureCache):
            backbone.forward = FeatureCache(backbone, most_bytes)  # type: ignore[method-assign]  # one object's own


def sees_pictures(part: nn.Module) -> bool:
    """Whether it is a convolution that takes colour images."""
    return isinstance(part, nn.Conv2d) and part.in_channels == _COLOURS


class FeatureCache:
    """Stands for ``backbone.forward``.

    Features are found by a hash of the picture, so that no order of the data is assumed. They are forgotten when a
    weight changes. Nothing is kept or looked for while ``active`` is false, while a weight is trained, and on devices
    other than a CPU, where computing is quicker than comparing.
    """

    def __init__(self, backbone: nn.Module, most_bytes: int) -> None:
        self._backbone, self._forward, self._most_bytes = backbone, type(backbone).forward, most_bytes
        self.active = True
        self.n_computed = self.n_bytes = 0
        self._rows: dict[bytes, dict[str, Tensor]] = {}
        self._version: tuple[int, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.active or kwargs or len(args) != 1 or not _are_pictures(args[0]) or self._is_trained():
            return self._forward(self._backbone, *args, **kwargs)
        return self._remembered(args[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureCache":
        """Of a copied backbone: empty."""
        backbone = memo.get(id(self._backbone))
        if backbone is None:
            raise TypeError("a feature cache is copied with its backbone only")
        return FeatureCache(backbone, self._most_bytes)

    def _is_trained(self) -> bool:
        norms = [part for part in self._backbone.modules() if isinstance(part, nn.BatchNorm2d)]
        return any(weight.requires_grad for weight in self._backbone.parameters()) or any(n.training for n in norms)

    @torch.compiler.disable
    @torch.no_grad()
    def _remembered(self, pictures: Tensor) -> Any:
        tensors = [*self._backbone.parameters(), *self._backbone.buffers()]
        version = tuple(tensor._version for tensor in tensors)
        if version != self._version:
            self._rows, self._version, self.n_bytes = {}, version, 0
        keys = _keys(pictures)
        missing = {key: at for at, key in enumerate(keys) if key not in self._rows}
        fresh = dict(zip(missing, self._computed(pictures, list(missing.values())), strict=True))
        for key, row in fresh.items():
            n_bytes = sum(value.nbytes for value in row.values())
            if self.n_bytes + n_bytes <= self._most_bytes:
                self._rows[key] = row
                self.n_bytes += n_bytes
        rows = [fresh[key] if key in fresh else self._rows[key] for key in keys]
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return stacked.get("", stacked)

    def _computed(self, pictures: Tensor, wanted: list[int]) -> Iterator[dict[str, Tensor]]:
        """Features of each wanted row, by name; a backbone that returns one tensor has the name ``""``."""
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            filled = some + some[:1] * (_AT_ONCE - len(some))
            features = self._forward(self._backbone, pictures[filled])
            named = {"": features} if isinstance(features, Tensor) else dict(features)
            self.n_computed += len(some)
            for at in range(len(some)):
                yield {name: value[at].clone(memory_format=torch.contiguous_format) for name, value in named.items()}


def _backbones(part: nn.Module) -> Iterator[nn.Module]:
    leaves = [each for each in part.modules() if next(each.children(), None) is None]
    if part in leaves or not any(sees_pictures(leaf) for leaf in leaves):
        return
    if all(isinstance(leaf, _FIXED) for leaf in leaves) and not any(p.requires_grad for p in part.parameters()):
        yield part
        return
    for child in part.children():
        yield from _backbones(child)


def _are_pictures(given: Any) -> bool:
    return isinstance(given, Tensor) and given.ndim == 4 and given.device.type == "cpu" and not given.requires_grad


def _keys(pictures: Tensor) -> list[bytes]:
    """Of each row; one that lies in memory in another order has another key, and is computed again at worst."""
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    head = f"{tuple(pictures.shape[1:])} {pictures.dtype} {precision}".encode()
    swapped = not pictures.is_contiguous()
    rows = (pictures.movedim(1, -1) if swapped else pictures).contiguous().view(torch.uint8).numpy()
    tail = b"channels last" if swapped else b""
    keys = []
    for row in rows:
        made = hashlib.sha256(head + tail)
        made.update(row)
        keys.append(made.digest())
    return keys
