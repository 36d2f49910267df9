"""Stack: put the one brick on the other."""

from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.grasps import nearer
from tandem_sim.h1.experts.seats import middle_seats
from tandem_sim.h1.experts.skills import Skills


class StackExpert(Skills):
    def plan(self) -> Steps:
        upper, lower = self.task.layout.roles[:2]
        if not self.sight.attached(upper, lower):
            yield from self.assemble(
                nearer(self.sight.spot(upper).y), upper, lower, middle_seats(self.sight, upper, lower)
            )
        if not self.clear(upper):
            yield from self.leave(upper)
        self.say("done")
