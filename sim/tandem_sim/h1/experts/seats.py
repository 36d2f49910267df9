"""Where to put a brick on another one or on the plate, and with which grasp to take it for that."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tandem_sim.bricks.grid import Seat
from tandem_sim.h1.experts.grasps import Grasp, comfort, crowded, grasps
from tandem_sim.h1.experts.sight import Sight
from tandem_sim.h1.tasks.geometry import wrapped
from tandem_sim.h1.tasks.plan import middle_seat, same_seat

_SIDEWAYS = 0.5  # rad that a seat across the lower brick counts as worse than one along it
_CROWDED = 3.0  # rad that a grasp beside another brick counts as worse
_COMFORT = 0.3  # what discomfort counts beside turning


@dataclass(frozen=True)
class Putting:
    """A grasp, and the seat that it leads to."""

    grasp: Grasp
    seat: Seat
    cost: float  # rad, about what has to be turned


def middle_seats(sight: Sight, upper: int, lower: int) -> Iterator[tuple[Seat, float]]:
    """Seats in the middle of the lower brick, each way round; those across it at a price."""
    size, below = sight.size(upper), sight.size(lower)
    square = size.nx == size.ny or below.nx == below.ny
    for turns in range(4):
        yield middle_seat(size, below, turns), 0.0 if square or turns % 2 == 0 else _SIDEWAYS


def like_seats(sight: Sight, upper: int, lower: int, wanted: Seat) -> Iterator[tuple[Seat, float]]:
    """Seats that answer a plan's as well as the one that it names."""
    size, below = sight.size(upper), sight.size(lower)
    for turns in range(4):
        wide, deep = size.footprint(turns)
        for i in {wanted.i, below.nx - wide - wanted.i}:
            for j in {wanted.j, below.ny - deep - wanted.j}:
                if same_seat(wanted, Seat(i, j, turns), size, below):
                    yield Seat(i, j, turns), 0.0


def best(sight: Sight, arm: int, upper: int, lower: int, seats: Iterable[tuple[Seat, float]], now: float) -> Putting:
    """The grasp and seat with the least turning for an arm.

    Args:
        now: the gripper's yaw, rad.
    """
    found = []
    spot = sight.spot(upper)
    for seat, price in seats:
        there = sight.seat_spot(upper, lower, seat)
        for grasp in grasps(sight, upper):
            take, put = wrapped(spot.yaw + grasp.turn), wrapped(there.yaw + grasp.turn)
            turning = abs(take - now) + abs(put - take)  # a gripper does not turn through its stops
            turning += _CROWDED if crowded(sight, upper, grasp) else 0.0
            cost = price + turning + _COMFORT * (comfort(arm, take) + comfort(arm, put))
            found.append(Putting(grasp, seat, cost))
    assert found
    return min(found, key=lambda putting: (putting.cost if math.isfinite(putting.cost) else 1e9, putting.seat))
