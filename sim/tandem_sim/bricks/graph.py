"""Who is attached to whom, where, and by which studs: plain data, for observation, grading and plans."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tandem_datasets.errors import unknown
from tandem_sim.bricks import grid
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import BRICK_HEIGHT, PLATE_HEIGHT, BrickSize
from tandem_sim.bricks.poses import Pose, matrix

_ON_GRID = 1e-3  # pitches off which two fast bricks still count as on one grid
_HEIGHT_UNITS = {BRICK_HEIGHT: 3, PLATE_HEIGHT: 1}  # plates


@dataclass(frozen=True, order=True)
class Connection:
    """``upper`` sits on ``lower`` at ``seat``, held by ``studs`` engaged studs."""

    lower: str
    upper: str
    seat: Seat
    studs: int


@dataclass(frozen=True)
class Offset:
    """Where a brick is in another one's frame: half pitches between centres along x and y, half plates up, turns."""

    x: int
    y: int
    z: int
    turns: int

    def then(self, inner: "Offset") -> "Offset":
        """Of c in a, where ``self`` is of b in a and ``inner`` is of c in b."""
        x, y = _turned(inner.x, inner.y, self.turns)
        return Offset(self.x + x, self.y + y, self.z + inner.z, (self.turns + inner.turns) % 4)

    def inverse(self) -> "Offset":
        x, y = _turned(-self.x, -self.y, -self.turns)
        return Offset(x, y, -self.z, -self.turns % 4)


def offset_of(lower: BrickSize, upper: BrickSize, seat: Seat) -> Offset:
    """Of an upper brick at ``seat``, in the lower one's frame."""
    wide, deep = upper.footprint(seat.turns)
    up = _HEIGHT_UNITS[lower.height] + _HEIGHT_UNITS[upper.height]
    return Offset(2 * seat.i + wide - lower.nx, 2 * seat.j + deep - lower.ny, up, seat.turns)


def grid_offset(pose: Pose, pitch: float) -> Offset | None:
    """The whole number of half pitches, half plates and quarter turns that a relative pose is, if it is one."""
    place, turn = pose
    axes = matrix(turn)
    turns = round(math.atan2(axes[1, 0], axes[0, 0]) / (math.pi / 2))
    steps = np.array([pitch / 2, pitch / 2, PLATE_HEIGHT * pitch / 2])
    whole = np.round(place / steps)
    off = np.abs(place - whole * steps).max() + np.abs(axes - matrix(grid.quaternion(turns))).max() * pitch
    return Offset(int(whole[0]), int(whole[1]), int(whole[2]), turns % 4) if off < _ON_GRID * pitch else None


@dataclass(frozen=True)
class Connections:
    """All connections at one moment. ``sizes`` has every brick, attached or not, in the model's order.

    ``aligned`` are offsets between bricks that stand fast on one stud grid: nothing joins them, yet they cannot move.
    """

    sizes: Mapping[str, BrickSize]
    edges: tuple[Connection, ...] = ()
    aligned: tuple[tuple[str, str, Offset], ...] = ()

    def __iter__(self) -> Iterator[Connection]:
        return iter(self.edges)

    def __len__(self) -> int:
        return len(self.edges)

    def of(self, name: str) -> tuple[Connection, ...]:
        """The connections in which a brick takes part."""
        self._known(name)
        return tuple(edge for edge in self.edges if name in (edge.lower, edge.upper))

    def between(self, a: str, b: str) -> Connection | None:
        """The connection of two bricks, whichever is the upper one; None where they are not attached directly."""
        self._known(a, b)
        return next((edge for edge in self.edges if {edge.lower, edge.upper} == {a, b}), None)

    def component(self, name: str) -> tuple[str, ...]:
        """A brick and all that hang together with it by connections, in the model's order."""
        self._known(name)
        found = self._reach(name, self._joined)
        return tuple(other for other in self.sizes if other in found)

    def components(self) -> tuple[tuple[str, ...], ...]:
        """Every brick once, with what it hangs together with."""
        seen: set[str] = set()
        found = []
        for name in self.sizes:
            if name not in seen:
                found.append(self.component(name))
                seen |= set(found[-1])
        return tuple(found)

    def offset(self, a: str, b: str) -> Offset | None:
        """Where b is in a's frame, through any chain of connections; None where they do not hang together."""
        self._known(a, b)
        return self._reach(a, self._held).get(b)

    def is_on(self, upper: str, lower: str, shift: tuple[int, int] | None = None, turns: int | None = None) -> bool:
        """Whether ``upper`` is attached on top of ``lower``, there where asked for.

        Args:
            shift: ``(i, j)`` of :class:`.grid.Seat`; any where None.
            turns: quarter turns; any where None. A brick that looks the same half a turn round counts as the same.
        """
        edge = self.between(upper, lower)
        if edge is None or edge.lower != lower:
            return False
        size = self.sizes[upper]
        period = 1 if size.nx == size.ny else 2
        placed = shift is None or (edge.seat.i, edge.seat.j) == tuple(shift)
        return placed and (turns is None or (edge.seat.turns - turns) % period == 0)

    def studs(self, edge: Connection) -> tuple[tuple[int, int], ...]:
        """The engaged studs of a connection, as cells (column, row) of the lower brick."""
        columns, rows = grid.covered(self.sizes[edge.lower], self.sizes[edge.upper], edge.seat)
        return tuple((column, row) for column in columns for row in rows)

    def plain(self) -> list[dict[str, Any]]:
        """As lists, words and numbers, for JSON and for grading."""
        return [
            {"lower": edge.lower, "upper": edge.upper, "i": edge.seat.i, "j": edge.seat.j, "turns": edge.seat.turns,
             "studs": [list(stud) for stud in self.studs(edge)]}
            for edge in self.edges
        ]  # fmt: skip

    # how they hang together

    @cached_property
    def _joined(self) -> dict[str, list[tuple[str, Offset]]]:
        found: dict[str, list[tuple[str, Offset]]] = {name: [] for name in self.sizes}
        for edge in self.edges:
            step = offset_of(self.sizes[edge.lower], self.sizes[edge.upper], edge.seat)
            found[edge.lower].append((edge.upper, step))
            found[edge.upper].append((edge.lower, step.inverse()))
        return found

    @cached_property
    def _held(self) -> dict[str, list[tuple[str, Offset]]]:
        found = {name: list(steps) for name, steps in self._joined.items()}
        for a, b, step in self.aligned:
            found[a].append((b, step))
            found[b].append((a, step.inverse()))
        return found

    @staticmethod
    def _reach(start: str, steps: Mapping[str, list[tuple[str, Offset]]]) -> dict[str, Offset]:
        found = {start: Offset(0, 0, 0, 0)}
        queue = deque([start])
        while queue:
            name = queue.popleft()
            for other, step in steps[name]:
                if other not in found:
                    found[other] = found[name].then(step)
                    queue.append(other)
        return found

    def _known(self, *names: str) -> None:
        for name in names:
            if name not in self.sizes:
                raise unknown("connections", name, self.sizes)


def _turned(x: int, y: int, turns: int) -> tuple[int, int]:
    return ((x, y), (-y, x), (-x, -y), (y, -x))[turns % 4]
