"""Build: the plan's bricks one after the other, each with the arm that has the least to turn and to travel."""

import math

from tandem_sim.h1.experts.arms import LEFT, RIGHT
from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.seats import best, like_seats
from tandem_sim.h1.experts.skills import SAFE, Skills
from tandem_sim.h1.tasks.build import Build
from tandem_sim.h1.tasks.plan import Step

FAR = 8.0  # rad that a metre of travel counts as


class BuildExpert(Skills):
    def plan(self) -> Steps:
        assert isinstance(self.task, Build)
        plan = self.task.plan
        for step in plan.steps:
            if not self.sight.attached(step.upper, step.lower):
                arm = self._arm(step)
                seats = like_seats(self.sight, step.upper, step.lower, step.seat)
                yield from self.assemble(arm, step.upper, step.lower, seats, self._height())
            if not self.clear(step.upper):
                yield from self.leave(step.upper)
        self.say("done")

    def _arm(self, step: Step) -> int:
        """The arm that lies nearer and turns less."""

        def cost(arm: int) -> float:
            here, spot = self.arms.target(arm), self.sight.spot(step.upper)
            seats = like_seats(self.sight, step.upper, step.lower, step.seat)
            turning = best(self.sight, arm, step.upper, step.lower, seats, here.yaw).cost
            return turning + FAR * math.hypot(spot.x - here.x, spot.y - here.y)

        return min((LEFT, RIGHT), key=cost)

    def _height(self) -> float:
        """Over the table, so that a held brick clears all that is built, m."""
        tops = [self.sight.pose(slot)[2] + self.task.height / 2 for slot in range(len(self.task.sizes))]
        return max(SAFE, max(tops) - self.task.table + 0.045)
