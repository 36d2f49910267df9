"""Pick: take the brick with the nearer arm and lift it."""

from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.grasps import comfort, grasps, nearer
from tandem_sim.h1.experts.skills import Skills
from tandem_sim.h1.tasks.pick import LIFTED

HIGHER = 0.012  # m above what the task asks


class PickExpert(Skills):
    def plan(self) -> Steps:
        slot = self.task.layout.slot(0)
        arm = self.holder(slot)
        if arm is None:
            spot = self.sight.spot(slot)
            arm = nearer(spot.y)
            now = self.arms.target(arm).yaw

            def turning(grasp) -> float:
                yaw = grasp.goal(spot).yaw
                return abs(yaw - now) + 0.3 * comfort(arm, yaw)

            yield from self.grasp(arm, slot, min(grasps(self.sight, slot), key=turning))
        self.say(f"lift the {self.sight.name(slot)}")
        here = self.arms.target(arm)
        up = self.task.table + self.task.height / 2 + LIFTED + HIGHER - self.sight.spot(slot).z
        if up > HIGHER / 2:
            goal = here.raised(up)
            yield from self.travel(arm, lambda: goal, hover=0.0, close=0.004, holding=slot)
        self.say(f"hold the {self.sight.name(slot)}")
