"""Where bricks sit on each other: poses of the stud grid, engaged studs, and how far a pose is from the grid.

An offset ``(i, j)`` is the cell of the lower brick's studs that the upper brick's corner of lowest x and y covers; cell
(0, 0) is the lower brick's own corner. ``turns`` counts quarter turns of the upper brick, counter-clockwise seen
from above. Origins of bricks are the centres of their boxes (studs not counted), z along the studs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandem_sim.bricks.parameters import BrickSize, SnapParameters

Vector = Sequence[float]


@dataclass(frozen=True, order=True)
class Seat:
    """How an upper brick sits on a lower one."""

    i: int
    j: int
    turns: int

    def pose(self, lower: BrickSize, upper: BrickSize, pitch: float) -> tuple[np.ndarray, np.ndarray]:
        """The upper brick's place (3,), m, and quaternion (4,) in the lower one's frame."""
        return np.array(position(lower, upper, self, pitch)), np.array(quaternion(self.turns))


@dataclass(frozen=True)
class Misfit:
    """How far a pose is from ``seat``, the nearest one: m and rad, at the middle of the engaged studs."""

    seat: Seat
    studs: int
    planar: float
    vertical: float
    yaw: float
    tilt: float

    def within(self, gates: SnapParameters, pitch: float) -> bool:
        """Whether a press at this misfit may lock; ``pitch`` in m."""
        near = self.studs > 0 and self.planar <= gates.planar * pitch and self.vertical <= gates.vertical * pitch
        return near and self.yaw <= gates.yaw and self.tilt <= gates.tilt


def covered(lower: BrickSize, upper: BrickSize, seat: Seat) -> tuple[range, range]:
    """Columns and rows of the lower brick's studs that are engaged; empty where the bricks do not overlap."""
    wide, deep = upper.footprint(seat.turns)
    return (
        range(max(0, seat.i), min(lower.nx, seat.i + wide)),
        range(max(0, seat.j), min(lower.ny, seat.j + deep)),
    )


def engaged(lower: BrickSize, upper: BrickSize, seat: Seat) -> int:
    """The number of engaged studs."""
    columns, rows = covered(lower, upper, seat)
    return len(columns) * len(rows)


def position(lower: BrickSize, upper: BrickSize, seat: Seat, pitch: float) -> tuple[float, float, float]:
    """The upper brick's origin in the lower one's frame, m."""
    wide, deep = upper.footprint(seat.turns)
    return (
        (seat.i + (wide - lower.nx) / 2) * pitch,
        (seat.j + (deep - lower.ny) / 2) * pitch,
        (lower.height + upper.height) / 2 * pitch,
    )


def quaternion(turns: int) -> tuple[float, float, float, float]:
    """The upper brick's orientation in the lower one's frame (w, x, y, z)."""
    half = turns % 4 * math.pi / 4
    return (math.cos(half), 0.0, 0.0, math.sin(half))


def middle(lower: BrickSize, upper: BrickSize, seat: Seat, pitch: float) -> tuple[float, float, float]:
    """The middle of the engaged studs at the height where the bricks meet, in the lower brick's frame, m."""
    columns, rows = covered(lower, upper, seat)
    return (
        ((columns.start + columns.stop) - lower.nx) / 2 * pitch,
        ((rows.start + rows.stop) - lower.ny) / 2 * pitch,
        lower.height / 2 * pitch,
    )


def nearest(lower: BrickSize, upper: BrickSize, pitch: float, offset: Vector, rotation: Sequence[Vector]) -> Misfit:
    """The nearest seat and the distance from it.

    Args:
        offset: the upper brick's origin in the lower one's frame, m, (3,).
        rotation: the upper brick's axes in the lower one's frame, as columns, (3, 3).
    """
    yaw = math.atan2(rotation[1][0] - rotation[0][1], rotation[0][0] + rotation[1][1])
    turns = round(yaw / (math.pi / 2))
    wide, deep = upper.footprint(turns)
    drop = upper.height / 2 * pitch  # from the origin to the underside, along the upper brick's own axis
    i = round((offset[0] - rotation[0][2] * drop) / pitch - (wide - lower.nx) / 2)
    j = round((offset[1] - rotation[1][2] * drop) / pitch - (deep - lower.ny) / 2)
    seat = Seat(i, j, turns % 4)
    studs = engaged(lower, upper, seat)
    tilt = math.acos(max(-1.0, min(1.0, rotation[2][2])))
    if not studs:
        return Misfit(seat, 0, math.inf, math.inf, abs(yaw - turns * math.pi / 2), tilt)
    meeting = middle(lower, upper, seat, pitch)
    point = to_upper(meeting, position(lower, upper, seat, pitch), turns)
    off = [
        offset[k] + rotation[k][0] * point[0] + rotation[k][1] * point[1] + rotation[k][2] * point[2] - meeting[k]
        for k in range(3)
    ]
    return Misfit(seat, studs, math.hypot(off[0], off[1]), abs(off[2]), abs(yaw - turns * math.pi / 2), tilt)


def to_upper(point: Vector, origin: Vector, turns: int) -> tuple[float, float, float]:
    """A point of the lower brick's frame in the frame of an upper one at ``origin``, ``turns`` quarter turns round."""
    x, y, z = point[0] - origin[0], point[1] - origin[1], point[2] - origin[2]
    x, y = ((x, y), (y, -x), (-x, -y), (-y, x))[turns % 4]
    return (x, y, z)
