"""Connections as data: who hangs together with whom, and where everything then is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem_datasets.errors import TandemError
from tandem_sim.bricks import grid
from tandem_sim.bricks.graph import Connection, Connections, Offset, grid_offset
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.poses import relative, then
from tandem_sim.bricks.shapes import KINDS

PITCH = 0.016
BRICKS = [size for size in KINDS.values() if not size.plate]
OFFSETS = st.builds(Offset, st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 3))


@given(OFFSETS, OFFSETS, OFFSETS)
def test_offsets_are_a_group(a, b, c):
    assert a.then(b).then(c) == a.then(b.then(c))
    assert a.then(a.inverse()) == a.inverse().then(a) == Offset(0, 0, 0, 0)


@st.composite
def heaps(draw) -> Connections:
    """Bricks of which each sits on, or under, an earlier one."""
    sizes = {f"b{k}": draw(st.sampled_from(BRICKS)) for k in range(draw(st.integers(2, 7)))}
    edges = []
    for k in range(1, len(sizes)):
        pair = [f"b{draw(st.integers(0, k - 1))}", f"b{k}"]
        lower, upper = pair if draw(st.booleans()) else pair[::-1]
        wide, deep = sizes[upper].footprint(turns := draw(st.integers(0, 3)))
        seat = Seat(
            draw(st.integers(1 - wide, sizes[lower].nx - 1)), draw(st.integers(1 - deep, sizes[lower].ny - 1)), turns
        )
        edges.append(Connection(lower, upper, seat, grid.engaged(sizes[lower], sizes[upper], seat)))
    return Connections(sizes, tuple(sorted(edges)))


@given(heaps())
def test_offsets_through_any_chain_are_where_the_poses_are(heap):
    """Poses by floating-point composition along the edges, offsets by whole numbers."""
    poses = {"b0": (np.zeros(3), np.array([1.0, 0, 0, 0]))}
    while len(poses) < len(heap.sizes):
        for edge in heap:
            seat = edge.seat.pose(heap.sizes[edge.lower], heap.sizes[edge.upper], PITCH)
            if edge.lower in poses:
                poses.setdefault(edge.upper, then(poses[edge.lower], seat))
            elif edge.upper in poses:
                back = relative(seat, (np.zeros(3), np.array([1.0, 0, 0, 0])))
                poses.setdefault(edge.lower, then(poses[edge.upper], back))
    for a in heap.sizes:
        assert heap.component(a) == tuple(heap.sizes)
        for b in heap.sizes:
            assert heap.offset(a, b) == grid_offset(relative(poses[a], poses[b]), PITCH)


SIZES = {"low": KINDS["2x4"], "mid": KINDS["2x4"], "top": KINDS["2x2"], "far": KINDS["1x2"]}
STACK = Connections(SIZES, (Connection("low", "mid", Seat(0, 1, 2), 6), Connection("mid", "top", Seat(1, 3, 1), 1)), ())


def test_queries():
    assert STACK.component("top") == ("low", "mid", "top")
    assert STACK.components() == (("low", "mid", "top"), ("far",))
    assert STACK.offset("low", "far") is None
    assert STACK.between("mid", "low") == STACK.edges[0]
    assert STACK.between("low", "top") is None
    assert [edge.upper for edge in STACK.of("mid")] == ["mid", "top"]
    assert STACK.studs(STACK.edges[1]) == ((1, 3),)


@pytest.mark.parametrize(
    ("upper", "lower", "shift", "turns", "answer"),
    [
        ("mid", "low", None, None, True),
        ("mid", "low", (0, 1), None, True),
        ("mid", "low", (1, 0), None, False),
        ("mid", "low", (0, 1), 0, True),  # half a turn round it looks the same
        ("mid", "low", (0, 1), 1, False),
        ("low", "mid", None, None, False),  # it is the other way round
        ("top", "mid", (1, 3), 0, True),  # a square one looks the same every quarter turn
        ("top", "low", None, None, False),
    ],
)
def test_is_on(upper, lower, shift, turns, answer):
    assert STACK.is_on(upper, lower, shift, turns) is answer


def test_plain_data_is_json():
    assert json.loads(json.dumps(STACK.plain()))[1] == {
        "lower": "mid", "upper": "top", "i": 1, "j": 3, "turns": 1, "studs": [[1, 3]],
    }  # fmt: skip


def test_an_unknown_brick_is_named():
    with pytest.raises(TandemError, match="connections: unknown name 'lwo'; did you mean 'low'"):
        STACK.component("lwo")
