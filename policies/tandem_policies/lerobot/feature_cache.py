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
_BLOCK = 64  # rows
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


class _Shelf:
    """Rows of one shape and precision, in blocks.

    Kept one by one between a step's large tensors, they would have the allocator keep those too: several times as much.
    """

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._blocks: list[dict[str, Tensor]] = []

    @property
    def n_bytes(self) -> int:
        return sum(values.nbytes for block in self._blocks for values in block.values())

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    def get(self, key: bytes) -> dict[str, Tensor]:
        block, row = divmod(self._slots[key], _BLOCK)
        return {name: values[row] for name, values in self._blocks[block].items()}

    def put(self, key: bytes, row: dict[str, Tensor], most_bytes: int) -> None:
        """Unless a block that is needed for it makes all blocks together larger than ``most_bytes``."""
        if len(self._slots) == len(self._blocks) * _BLOCK:
            if self.n_bytes + _BLOCK * sum(value.nbytes for value in row.values()) > most_bytes:
                return
            self._blocks.append({name: value.new_empty(_BLOCK, *value.shape) for name, value in row.items()})
        self._slots[key] = len(self._slots)
        for name, values in self.get(key).items():
            values.copy_(row[name])


class FeatureCache:
    """Stands for ``backbone.forward``.

    Features are found by a hash of the picture, so that no order of the data is assumed. They are forgotten when a
    weight changes. Nothing is kept or looked for while ``active`` is false, while a weight is trained, and on devices
    other than a CPU, where computing is quicker than comparing.
    """

    def __init__(self, backbone: nn.Module, most_bytes: int) -> None:
        self._backbone, self._forward, self._most_bytes = backbone, type(backbone).forward, most_bytes
        self.active = True
        self.n_computed = 0
        self._shelves: dict[str, _Shelf] = {}
        self._version: tuple[int, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Taken by the features that are kept."""
        return sum(shelf.n_bytes for shelf in self._shelves.values())

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
            self._shelves, self._version = {}, version
        shelf = self._shelves.setdefault(_kind(pictures), _Shelf())
        keys = _keys(pictures)
        missing = {key: at for at, key in enumerate(keys) if key not in shelf}
        fresh = dict(zip(missing, self._computed(pictures, list(missing.values())), strict=True))
        rows = [fresh[key] if key in fresh else shelf.get(key) for key in keys]
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        most_bytes = self._most_bytes - (self.n_bytes - shelf.n_bytes)
        for key, row in fresh.items():
            shelf.put(key, row, most_bytes)
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
                yield {name: value[at] for name, value in named.items()}


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


def _kind(pictures: Tensor) -> str:
    """What else decides on features than a row's bytes: its shape, its order in memory, and the precision."""
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return f"{tuple(pictures.shape[1:])} {pictures.is_contiguous()} {pictures.dtype} {precision}"


def _keys(pictures: Tensor) -> list[bytes]:
    """Of each row. One in another order in memory has another one, and is computed again at worst."""
    ordered = pictures if pictures.is_contiguous() else pictures.movedim(1, -1)
    rows = ordered.contiguous().view(torch.uint8).numpy()
    return [hashlib.sha256(row).digest() for row in rows]
