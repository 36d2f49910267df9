"""What takes two hands: a brick in each, or both on one brick or pair, side by side over the table's middle.

Long bricks are taken by their ends, across. In the air they lie along y, each hand at the end that points to its side.
"""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_sim.h1.experts.arms import BRISK, CALM, Goal
from tandem_sim.h1.experts.base import Steps, together
from tandem_sim.h1.experts.grasps import Grasp, comfort, grasps
from tandem_sim.h1.experts.sight import Spot
from tandem_sim.h1.experts.skills import HOVER, SAFE, Skills
from tandem_sim.h1.tasks.geometry import wrapped
from tandem_sim.h1.world import World

MEET_X = 0.31  # m: where the hands meet, within easy reach of both
MEET_UP = 0.13  # m over the table: of a brick's centre; the higher, the farther apart the wrists
PAD = 0.010  # m from a brick's end to the middle of the pads that hold it there
PITCH_MM = 16  # least: at 8 mm a brick is narrower than two wrists
HANDS = ("left", "right")
SIDES = (1.0, -1.0)  # of the arms, along y
FIRMLY = 0.02  # m that a grip is commanded narrower than a brick: as hard as it can
LOWERING = 0.03  # m/s of a held brick that meets the table
LAID_DEEP = 0.0025  # m that a brick on the table is commanded below where it meets it
_COMFORT = 0.3  # what discomfort counts beside turning
_LAID_X = (0.31, 0.35, 0.38, 0.28)  # m: rows of the places where bricks are put down
_LAID_Y = (0.12, 0.15, 0.18, 0.21)  # m to the arm's side
_ROOM = 0.014  # m between a brick that is put down and others, for a finger


@dataclass(frozen=True)
class End:
    """A grasp of a brick's end and what it costs."""

    grasp: Grasp
    cost: float  # rad, about what has to be turned


class Bimanual(Skills):
    """An expert that uses both hands.

    Raises:
        TandemError: bricks so small that two hands that point down do not fit on them.
    """

    def __init__(self, world: World) -> None:
        settings = world.settings
        if settings.pitch_mm < PITCH_MM:
            raise TandemError(
                f"H1: task '{settings.task}' has no expert at a pitch of {settings.pitch_mm} mm (allowed: {PITCH_MM})"
            )
        super().__init__(world)
        self._quiet = False

    def reset(self) -> None:
        super().reset()
        self._quiet = False

    def say(self, subgoal: str) -> None:
        if not self._quiet:
            super().say(subgoal)

    def at_once(self, subgoal: str, *skills: Steps) -> Steps:
        """Runs skills side by side under one subgoal, whatever they say."""
        self.say(subgoal)
        self._quiet = True
        try:
            yield from together(*skills)
        finally:
            self._quiet = False

    def steady(self, arm: int, skill: Steps) -> Generator[None, None, Any]:
        """Runs the other arm's skill while this arm keeps its place, whatever pushes its target away."""
        rest = self.arms.target(arm)
        while True:
            self.arms.toward(arm, rest, CALM)
            try:
                next(skill)
            except StopIteration as end:
                return end.value
            yield

    def off(self, slot: int) -> float:
        """How far from a brick's middle its ends are taken, m."""
        return max(self.task.half(slot)) - PAD

    def end_grasps(self, slot: int) -> Iterator[Grasp]:
        """All grasps across a brick at the ends of its longer side, which is its y."""
        half = self.task.half(slot)
        assert half[1] >= half[0]
        for grasp in grasps(self.sight, slot):
            if grasp.turn in (math.pi / 2, 3 * math.pi / 2):
                yield replace(grasp, aside=(0.0, self.off(slot)))
                yield replace(grasp, aside=(0.0, -self.off(slot)))

    def best_end(self, arm: int, slot: int, end: float | None = None) -> End:
        """The grasp of a brick's end with the least turning for an arm, up to where the end points to the arm's side.

        Args:
            end: only the end on this side of the brick's own y, +1 or -1.
        """
        spot, now = self.sight.spot(slot), self.arms.target(arm).yaw
        found = []
        for grasp in self.end_grasps(slot):
            side = math.copysign(1.0, grasp.aside[1])
            if end is not None and side != end:
                continue
            take = wrapped(spot.yaw + grasp.turn)
            put = wrapped(self.meeting_yaw(arm, side) + grasp.turn)
            turning = abs(take - now) + abs(put - take)  # a gripper does not turn through its stops
            cost = turning + _COMFORT * (comfort(arm, take) + comfort(arm, put))
            found.append(End(grasp, cost if math.isfinite(cost) else 1e3 + turning))
        return min(found, key=lambda each: each.cost)

    def meeting_yaw(self, arm: int, end: float) -> float:
        """The yaw of a brick in the air whose end, on that side of its own y, points to the arm's side, rad."""
        return 0.0 if end * SIDES[arm] > 0 else math.pi

    def held_end(self, arm: int, slot: int) -> float:
        """On which side of its own y an arm holds a brick, +1 or -1."""
        return math.copysign(1.0, self.sight.within(slot, self.arms.tcp(arm))[1])

    def close(self, arm: int, slot: int, grasp: Grasp, seconds: float = 1.0) -> Steps:
        yield from super().close(arm, slot, grasp, seconds)
        self.arms.grip(arm, grasp.width - FIRMLY)

    def lift(self, arm: int, slot: int) -> Steps:
        """Raises a held brick straight off the table."""
        goal = self.arms.target(arm).raised(HOVER)
        yield from self.straight(arm, lambda: goal, BRISK, close=HOVER / 2)

    def carry(self, arm: int, slot: int, spot: Callable[[], Spot], close: float, height: float = SAFE) -> Steps:
        """Brings a held brick through the air to a spot."""

        def goal() -> Goal:
            return self.held_at(arm, slot, spot())

        yield from self.travel(arm, goal, height, hover=0.0, close=close, holding=slot)

    # putting down

    def laid(self, arm: int, slot: int, others: list[Spot]) -> Spot:
        """Where an arm puts a brick down: on its side of the table, along y, clear of ``others`` if that can be."""
        here, radius = self.sight.spot(slot), self.task.radius(slot)
        found = []
        for x in _LAID_X:
            for y in _LAID_Y:
                at = (x, y * SIDES[arm])
                room = min((math.dist(at, (other.x, other.y)) for other in others), default=math.inf)
                away = math.dist(at, (here.x, here.y))
                crowded = max(2 * radius + _ROOM - room, 0.0)
                found.append((crowded, away, at))
        _, _, (x, y) = min(found)
        yaw = self.meeting_yaw(arm, self.held_end(arm, slot))
        return Spot(x, y, self.task.table + self.task.height / 2, yaw)

    def lay_down(self, arm: int, slot: int) -> Steps:
        """Puts a held brick down on the arm's side of the table and moves away from it."""
        self.say(f"put the {self.sight.name(slot)} down")
        others = [self.sight.spot(other) for other in range(len(self.task.sizes)) if other != slot]
        spot = self.laid(arm, slot, others)
        yield from self.carry(arm, slot, lambda: replace(spot, z=spot.z + 0.006), close=0.004)
        yield from self.lower(arm, slot)
        yield from self.release(arm, slot)
        yield from self.retreat(arm, slot)

    def lower(self, arm: int, slot: int, seconds: float = 1.5) -> Steps:
        """Lowers a held brick onto the table until it is pressed flat."""
        begin = self.arms.target(arm)
        for _ in range(self.steps(seconds)):
            if self.arms.tcp(arm).z - self.arms.target(arm).z > LAID_DEEP:
                return
            self.arms.toward(arm, begin.raised(-0.05), replace(CALM, speed=LOWERING))
            yield
