"""What a chunk of actions does, in words: "move left", "move up and right", "stay".

Words come from scalars that displace something along x, y or z (``agent/dx``, ``left_tcp/dz``, ``direction/x``), so
that every demonstration brings its own. What axes mean depends on their frame: in a camera's frame x is right, y down
and z forward (an image, an optical frame), in any other x is forward, y left and z up (ROS REP 103).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from tandem_datasets.embodiment import ActionKind, ActionScalar, Embodiment
from tandem_datasets.errors import TandemError

_IN_IMAGE = {"y": ("up", "down"), "x": ("left", "right"), "z": ("back", "forward")}  # in the order of speech
_IN_SPACE = {"x": ("back", "forward"), "y": ("right", "left"), "z": ("down", "up")}
_STANDS = 0.1  # of the data's largest action: what is shorter counts as standing
_COUNTS = math.sin(math.pi / 8)  # of a direction: eight ways in a plane, each of 45 degrees


@dataclass(frozen=True)
class Mover:
    """Something that actions displace: an agent, a tool."""

    name: str  # "agent", "left_tcp"
    columns: tuple[int, ...]  # of the action, in the order of speech
    ways: tuple[tuple[str, str], ...]  # for each of them: where a negative and where a positive number goes
    sums: bool  # whether consecutive actions add up (``delta_step``)

    def codes(self, action: Tensor, is_pad: Tensor, reach: Tensor) -> Tensor:
        """Which of :meth:`phrases` each chunk (B, K, A), padded (B, K), is: int64 (B,).

        Args:
            action: in units.
            is_pad: what does not count, at the end.
            reach: (A,), the greatest size of each scalar in the data.
        """
        moves = action[..., self.columns].float()
        real = (~is_pad).float()[..., None]
        count = real.sum(1).clamp(min=1)
        if self.sums:
            move = (moves * real).sum(1) / count
        else:  # all from the same place: the last one says where it ends
            move = moves.take_along_dim(count.long()[..., None] - 1, dim=1)[:, 0]
        length = move.norm(dim=-1, keepdim=True)
        far = length > _STANDS * reach[list(self.columns)].max()
        signs = move.sign() * (move.abs() > _COUNTS * length) * far + 1  # 0, 1, 2 as in product() below
        powers = torch.tensor([3**k for k in reversed(range(len(self.columns)))], device=action.device)
        return (signs.long() * powers).sum(-1)

    def phrases(self, named: bool) -> list[str]:
        """One for each code; with the mover's name before it where several move."""
        ways = [(negative, "", positive) for negative, positive in self.ways]
        start = f"{self.name.replace('_', ' ')}: " if named else ""
        return [start + _phrase([word for word in words if word]) for words in product(*ways)]


def movers(embodiment: Embodiment) -> tuple[Mover, ...]:
    """All that the embodiment's actions displace, in their order.

    Raises:
        TandemError: nothing is displaced, or one thing by different units.
    """
    where = f"policy 'tinyvla' for embodiment '{embodiment.name}': text_decoder"
    groups: dict[str, dict[str, int]] = {}
    for column, scalar in enumerate(embodiment.action):
        name, _, leaf = scalar.name.rpartition("/")
        axis = leaf.removeprefix("d")
        if axis in _IN_IMAGE and scalar.kind is not ActionKind.ABSOLUTE:
            groups.setdefault(name or embodiment.name, {})[axis] = column
    if not groups:
        names = ", ".join(f"{scalar.name} ({scalar.kind})" for scalar in embodiment.action)
        raise TandemError(f"{where} has no words for {names} (wanted: a relative scalar named dx, dy, dz, x, y or z)")
    frames = {camera.frame_id for camera in embodiment.cameras if camera.frame_id}
    return tuple(
        _mover(name, columns, [embodiment.action[k] for k in columns.values()], frames, where)
        for name, columns in groups.items()
    )


def _mover(
    name: str, columns: dict[str, int], scalars: Sequence[ActionScalar], image_frames: set[str], where: str
) -> Mover:
    alike = {(scalar.unit, scalar.frame, scalar.kind) for scalar in scalars}
    if len(alike) > 1:
        shown = "; ".join(f"{scalar.name} {scalar.unit} {scalar.frame or '-'} {scalar.kind}" for scalar in scalars)
        raise TandemError(f"{where}: {shown} (wanted: one unit, frame and kind for what moves together)")
    words = _IN_IMAGE if scalars[0].frame in image_frames else _IN_SPACE
    axes = [axis for axis in words if axis in columns]
    return Mover(
        name=name,
        columns=tuple(columns[axis] for axis in axes),
        ways=tuple(words[axis] for axis in axes),
        sums=scalars[0].kind is ActionKind.DELTA_STEP,
    )


def _phrase(words: list[str]) -> str:
    if not words:
        return "stay"
    *first, last = words
    return f"move {', '.join(first)} and {last}" if first else f"move {last}"
