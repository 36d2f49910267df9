"""Reach: over the brick."""

from tandem_sim.h1.experts.arms import LEFT, RIGHT, Goal
from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.skills import Skills
from tandem_sim.h1.tasks.reach import ABOVE


class ReachExpert(Skills):
    def plan(self) -> Steps:
        layout = self.task.layout
        arm = LEFT if layout.arm == "left" else RIGHT
        slot = layout.slot(0)

        def above() -> Goal:
            spot = self.sight.spot(slot)
            return Goal(spot.x, spot.y, spot.z + ABOVE, self.arms.target(arm).yaw)

        self.say(f"move the {layout.arm} hand above the {self.sight.name(slot)}")
        yield from self.travel(arm, above, hover=0.0, close=0.003)
        self.say(f"hold the {layout.arm} hand above the {self.sight.name(slot)}")
