"""Disassemble: one hand lifts the pair by the lower brick's free end, the other pulls the upper brick off."""

from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.grasps import nearer
from tandem_sim.h1.experts.parting import Parting
from tandem_sim.h1.tasks.disassemble import RESTS


class DisassembleExpert(Parting):
    """In the air; then each hand puts its brick down on its side."""

    def plan(self) -> Steps:
        upper, lower = self.task.layout.roles[:2]
        if self.sight.attached(upper, lower):
            yield from self.hold_both(upper, lower)
            yield from self.pull(upper, lower)
        putting = f"put the {self.sight.name(upper)} and the {self.sight.name(lower)} down, apart"
        yield from self.at_once(putting, *(self.put_down(slot) for slot in (upper, lower)))
        for slot in (upper, lower):
            if not self.clear(slot):
                yield from self.leave(slot)
        self.say("done")

    def put_down(self, slot: int) -> Steps:
        """Puts a brick down on the table, unless it lies there."""
        arm = self.holder(slot)
        if arm is None:
            lift = self.sight.spot(slot).z - self.task.table - self.task.height / 2
            if abs(lift) <= RESTS and self.sight.upright(slot):
                return
            arm = nearer(self.sight.spot(slot).y)
            yield from self.grasp(arm, slot, self.best_end(arm, slot).grasp)
            yield from self.lift(arm, slot)
        yield from self.lay_down(arm, slot)
