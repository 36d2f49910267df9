"""Taking a pair apart: one hand holds the lower brick by its free end, the other pulls the upper one off."""

import math
from dataclasses import replace

from tandem_sim.h1.experts.arms import BRISK, CALM, LEFT, RIGHT, Goal
from tandem_sim.h1.experts.base import Failed, Steps
from tandem_sim.h1.experts.bimanual import HANDS, MEET_UP, MEET_X, SIDES, Bimanual
from tandem_sim.h1.experts.sight import Spot

WAIT = 0.05  # m over its grasp where the second hand waits
PULL = 0.02  # m that the upper brick is raised to come off, and beyond
PULLING = 0.06  # m/s


class Parting(Bimanual):
    """An expert that takes a pair apart in the air; each brick sticks out beyond the other one."""

    def hold_both(self, upper: int, lower: int) -> Steps:
        """One hand takes the lower brick and lifts the pair, the other one takes the upper brick."""
        name, under = self.sight.name(upper), self.sight.name(lower)
        free, over = -self.toward(lower, upper), -self.toward(upper, lower)  # ends that stick out
        above, below = self.holder(upper), self.holder(lower)
        if above is None:
            if below is None:
                below = self.nimbler(lower, free)
                self.open(1 - below)
                yield from self.grasp(below, lower, self.best_end(below, lower, free).grasp)
                yield from self.lift(below, lower)
            above = 1 - below
            aside = SIDES[below] * self.task.half(lower)[1] / 2
            spot = Spot(MEET_X, aside, self.task.table + MEET_UP, self.meeting_yaw(below, free))
            waiting = self.best_end(above, upper, over).grasp.goal(self._carried(upper, lower, spot)).raised(WAIT)
            yield from self.at_once(
                f"hold the {under} out to the {HANDS[above]} hand",
                self.carry(below, lower, lambda: spot, close=0.003),
                self.travel(above, lambda: waiting, hover=0.0, close=0.01),
            )
        if not self.holds(above, upper):
            self.say(f"take the {name} with the {HANDS[above]} hand")
            grasp = self.best_end(above, upper, over).grasp
            yield from self.straight(above, lambda: grasp.goal(self.sight.spot(upper)), BRISK)
            yield from self.close(above, upper, grasp)
        if self.holder(lower) is None:
            yield from self.grasp(1 - above, lower, self.best_end(1 - above, lower, free).grasp)

    def pull(self, upper: int, lower: int, seconds: float = 3.0) -> Steps:
        """Pulls the upper brick off and clear of the lower one."""
        name, under = self.sight.name(upper), self.sight.name(lower)
        self.say(f"pull the {name} off the {under}")
        above = self.holder(upper)
        for _ in range(self.steps(seconds)):
            if above is None or not self.holds(above, upper):
                raise Failed(f"lost the {name}")
            if not self.sight.attached(upper, lower):
                break
            self.arms.toward(above, self.arms.target(above).raised(PULL), replace(CALM, speed=PULLING))
            yield
        else:
            raise Failed(f"the {name} does not come off the {under}")
        assert above is not None
        up = self.arms.target(above).raised(PULL)
        yield from self.straight(above, lambda: up, BRISK, close=PULL / 2)

    def nimbler(self, slot: int, end: float) -> int:
        """The arm that has less to turn to take a brick's end and show it."""
        return min((LEFT, RIGHT), key=lambda arm: self.best_end(arm, slot, end).cost)

    def toward(self, slot: int, other: int) -> float:
        """On which side of a brick's own y the other one is, +1 or -1."""
        spot = self.sight.spot(other)
        return math.copysign(1.0, self.sight.within(slot, Goal(spot.x, spot.y, spot.z, 0.0))[1])

    def _carried(self, upper: int, lower: int, spot: Spot) -> Spot:
        """Where the upper brick will be once the lower one is at ``spot``."""
        below, above = self.sight.spot(lower), self.sight.spot(upper)
        turn = spot.yaw - below.yaw
        cos, sin = math.cos(turn), math.sin(turn)
        x, y = above.x - below.x, above.y - below.y
        there = (spot.x + cos * x - sin * y, spot.y + sin * x + cos * y, spot.z + above.z - below.z)
        return Spot(*there, above.yaw + turn)
