"""The stud grid: seats and poses belong together, whatever the sizes, overlaps and turns."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem_datasets.errors import TandemError
from tandem_sim.bricks import grid
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import BrickSize, SnapParameters
from tandem_sim.bricks.poses import matrix, multiply
from tandem_sim.bricks.shapes import KINDS

PITCH = 0.016
BRICKS = [size for size in KINDS.values() if not size.plate]


@st.composite
def seats(draw) -> tuple[BrickSize, BrickSize, Seat]:
    lower, upper = draw(st.sampled_from(list(KINDS.values()))), draw(st.sampled_from(BRICKS))
    turns = draw(st.integers(0, 3))
    wide, deep = upper.footprint(turns)
    return lower, upper, Seat(
        draw(st.integers(1 - wide, lower.nx - 1)), draw(st.integers(1 - deep, lower.ny - 1)), turns
    )  # fmt: skip


def turned(axis: int, angle: float) -> list[float]:
    return [math.cos(angle / 2), *(math.sin(angle / 2) * np.eye(3)[axis])]


@given(seats())
def test_a_seated_brick_is_nearest_to_its_own_seat(case):
    lower, upper, seat = case
    place, turn = seat.pose(lower, upper, PITCH)
    found = grid.nearest(lower, upper, PITCH, place.tolist(), matrix(turn).tolist())
    assert found.seat == seat
    assert max(found.planar, found.vertical, found.yaw) < 1e-12
    assert found.tilt < 1e-7


@given(seats(), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(-0.05, 0.05), st.floats(-0.003, 0.003))
def test_the_misfit_is_what_the_brick_was_moved_by(case, x, y, yaw, z):
    """Moved and turned about the middle of the engaged studs."""
    lower, upper, seat = case
    place, straight = seat.pose(lower, upper, PITCH)
    middle = np.array(grid.middle(lower, upper, seat, PITCH))
    spin = turned(2, yaw)
    moved = middle + matrix(spin) @ (place - middle) + (0.3 * x * PITCH, 0.3 * y * PITCH, z)
    found = grid.nearest(lower, upper, PITCH, moved.tolist(), matrix(multiply(spin, straight)).tolist())
    if found.seat != seat:  # a long brick, turned far about its end, is nearer to another seat
        assert abs(yaw) * math.hypot(upper.nx, upper.ny) > 0.05
        return
    assert found.planar == pytest.approx(0.3 * PITCH * math.hypot(x, y), abs=1e-9)
    assert found.vertical == pytest.approx(abs(z), abs=1e-9)
    assert found.yaw == pytest.approx(abs(yaw), abs=1e-9)


@given(seats(), st.integers(0, 1), st.floats(0.001, 0.05))
def test_a_lean_is_a_tilt(case, axis, angle):
    lower, upper, seat = case
    place, straight = seat.pose(lower, upper, PITCH)
    found = grid.nearest(lower, upper, PITCH, place.tolist(), matrix(multiply(turned(axis, angle), straight)).tolist())
    assert found.tilt == pytest.approx(angle, abs=1e-6)


@given(seats())
def test_engaged_studs_are_those_under_the_upper_brick(case):
    lower, upper, seat = case
    place, _ = seat.pose(lower, upper, PITCH)
    wide, deep = upper.footprint(seat.turns)
    under = [
        (column, row)
        for column in range(lower.nx)
        for row in range(lower.ny)
        if abs((column + 0.5 - lower.nx / 2) * PITCH - place[0]) < wide * PITCH / 2
        and abs((row + 0.5 - lower.ny / 2) * PITCH - place[1]) < deep * PITCH / 2
    ]
    columns, rows = grid.covered(lower, upper, seat)
    assert [(column, row) for column in columns for row in rows] == under
    assert grid.engaged(lower, upper, seat) == len(under) >= 1


def test_bricks_beside_each_other_fit_nowhere():
    size = KINDS["2x2"]
    found = grid.nearest(size, size, PITCH, [3 * PITCH, 0, 1.2 * PITCH], np.eye(3).tolist())
    assert found.studs == 0
    assert not found.within(SnapParameters(), PITCH)


@pytest.mark.parametrize("name", ["planar", "vertical", "yaw", "tilt", "press", "hold", "ramp", "pull", "overload"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_are_finite_and_positive(name, value):
    with pytest.raises(TandemError, match=rf"snap parameters: {name} .*above 0"):
        SnapParameters(**{name: value})


def test_gates_wider_than_the_grid_are_refused():
    with pytest.raises(TandemError, match=r"planar 0.6 \(allowed: below 0.5\)"):
        SnapParameters(planar=0.6)


def test_a_brick_has_studs():
    with pytest.raises(TandemError, match="0x4 studs"):
        BrickSize(0, 4)
