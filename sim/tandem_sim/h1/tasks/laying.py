"""Where bricks begin: drawn within zones, apart from each other by what a gripper needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.h1.tasks.base import Place

TRIES = 200  # for one brick before all begin anew
ROUNDS = 50


@dataclass(frozen=True)
class Zone:
    """A rectangle of the table, m."""

    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Disc:
    """What a brick covers, whichever way it is turned."""

    x: float
    y: float
    radius: float


# What the grippers reach pointing down, from the robot's own model: both reach the shared zone.
LEFT = Zone((0.27, 0.40), (0.06, 0.24))
RIGHT = Zone((0.27, 0.40), (-0.24, -0.06))
SHARED = Zone((0.28, 0.39), (-0.10, 0.10))
ANY = Zone((0.27, 0.40), (-0.24, 0.24))

MARGIN = 0.022  # m between two bricks, for a finger
OUTSIDE_Y = 0.25  # m: farthest to either side that a brick begins


def beside(clear_y: float, radius: float) -> tuple[Zone, Zone]:
    """The zones left and right of what reaches ``clear_y`` to both sides of the middle, for a brick of ``radius``."""
    near = clear_y + radius + MARGIN
    return Zone(LEFT.x, (near, OUTSIDE_Y)), Zone(RIGHT.x, (-OUTSIDE_Y, -near))


def spread(
    rng: np.random.Generator,
    zones: Sequence[Zone],
    radii: Sequence[float],
    taken: Sequence[Disc] = (),
    yaw: float = math.pi / 2,
) -> tuple[Place, ...]:
    """Draws a place for each brick in its zone, clear of the others and of what is taken.

    Args:
        zones: one a brick.
        radii: of the circles around the bricks, m.
        taken: what must stay clear besides.
        yaw: largest turn either way, rad.

    Raises:
        TandemError: there are more bricks than fit.
    """
    for _ in range(ROUNDS):
        discs = list(taken)
        places = []
        for zone, radius in zip(zones, radii, strict=True):
            found = _free(rng, zone, radius, discs)
            if found is None:
                break
            discs.append(found)
            places.append(Place(found.x, found.y, float(rng.uniform(-yaw, yaw))))
        else:
            return tuple(places)
    raise TandemError(f"H1: {len(zones)} bricks do not fit on the table (allowed: fewer distractors or bricks)")


def _free(rng: np.random.Generator, zone: Zone, radius: float, discs: Sequence[Disc]) -> Disc | None:
    for _ in range(TRIES):
        x, y = float(rng.uniform(*zone.x)), float(rng.uniform(*zone.y))
        if all(math.hypot(x - disc.x, y - disc.y) > radius + disc.radius + MARGIN for disc in discs):
            return Disc(x, y, radius)
    return None
