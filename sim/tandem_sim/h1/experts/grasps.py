"""Where to take a brick: from above, across a side that fits between the fingers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tandem_sim.h1.experts.arms import LEFT, RIGHT, Goal
from tandem_sim.h1.experts.sight import Sight, Spot
from tandem_sim.h1.tasks.geometry import gap, wrapped
from tandem_sim.h1.wrist import MAX_WIDTH, TIP

SPARE = 0.014  # m between both fingers and the brick when open: what an approach needs
OPEN = 0.024  # m that the grip opens wider than the brick to take it, where it can
FINGER_HALF = 0.006  # m, half of a finger's thickness
FINGER_ROOM = 0.012  # m around it: half of what it measures, and a little more
OVER_GROUND = 0.0015  # m between the fingertips and what the brick lies on
# rad, of a gripper pointing down, where the left arm can turn it all over the table; mirrored for the right one
TURNS = (-2.3, 1.65)
EASY = -0.3  # rad: the middle of it, where the tool is far from its stops


@dataclass(frozen=True)
class Grasp:
    """How a gripper takes a brick, relative to it."""

    turn: float  # rad, the TCP's yaw less the brick's
    up: float  # m, the TCP's height over the brick's centre
    width: float  # m, of the brick between the fingers
    aside: tuple[float, float] = (0.0, 0.0)  # m, of the TCP from the brick's centre, in the brick's frame

    @property
    def opening(self) -> float:
        """How wide the grip opens to take it, m: no wider than it needs, for neighbours' sake."""
        return min(self.width + OPEN, MAX_WIDTH)

    def goal(self, spot: Spot) -> Goal:
        """The TCP that takes, or holds, a brick there."""
        cos, sin = math.cos(spot.yaw), math.sin(spot.yaw)
        x, y = self.aside
        at = (spot.x + cos * x - sin * y, spot.y + sin * x + cos * y)
        return Goal(*at, spot.z + self.up, wrapped(spot.yaw + self.turn))


def comfort(arm: int, yaw: float) -> float:
    """How far a gripper is turned from where it is easy, rad; infinite beyond what the arm can everywhere."""
    mirrored = yaw if arm == LEFT else -yaw
    if not TURNS[0] <= mirrored <= TURNS[1]:
        return math.inf
    return abs(mirrored - EASY)


def grasps(sight: Sight, slot: int) -> Iterator[Grasp]:
    """All grasps of a brick in its middle."""
    half = sight.task.half(slot)
    up = max(0.0, TIP + OVER_GROUND - half[2])
    for turns in range(4):
        across = half[1] if turns % 2 == 0 else half[0]  # with the brick's yaw the fingers open along its y
        if 2 * across + SPARE <= MAX_WIDTH:
            yield Grasp(turns * math.pi / 2, up, 2 * across)


def crowded(sight: Sight, slot: int, grasp: Grasp) -> bool:
    """Whether an open finger would come down on another brick."""
    goal = grasp.goal(sight.spot(slot))
    along = goal.yaw + math.pi / 2  # the fingers open along the TCP's x axis
    at = grasp.opening / 2 + FINGER_HALF
    for side in (-at, at):
        finger = (goal.x + side * math.cos(along), goal.y + side * math.sin(along), goal.z)
        others = (other for other in range(len(sight.task.sizes)) if other != slot)
        if any(gap(sight.pose(other), sight.task.half(other), finger) < FINGER_ROOM for other in others):
            return True
    return False


def nearer(y: float) -> int:
    """The arm on that side."""
    return LEFT if y >= 0 else RIGHT
