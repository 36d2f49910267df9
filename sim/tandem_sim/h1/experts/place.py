"""Place: put the brick on the named part of the plate."""

import math
from collections.abc import Iterator

from tandem_sim.bricks import grid
from tandem_sim.bricks.grid import Seat
from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.grasps import nearer
from tandem_sim.h1.experts.skills import Skills
from tandem_sim.h1.tasks.base import PLATE
from tandem_sim.h1.tasks.place import WITHIN


class PlaceExpert(Skills):
    def plan(self) -> Steps:
        slot = self.task.layout.slot(0)
        if not self.sight.attached(slot, PLATE):
            yield from self.assemble(nearer(self.sight.spot(slot).y), slot, PLATE, self._seats(slot))
        if not self.clear(slot):
            yield from self.leave(slot)
        self.say("done")

    def _seats(self, slot: int) -> Iterator[tuple[Seat, float]]:
        """The seats over the named cell; far from its middle they are a little worse."""
        goal, plate, size = self.task.layout.goal, self.sight.size(PLATE), self.sight.size(slot)
        assert goal is not None
        pitch = self.world.settings.pitch
        middle = self.sight.spot(PLATE)
        for turns in range(4):
            wide, deep = size.footprint(turns)
            for i in range(plate.nx - wide + 1):
                for j in range(plate.ny - deep + 1):
                    x, y, _ = grid.position(plate, size, Seat(i, j, turns), pitch)
                    off_x, off_y = abs(middle.x + x - goal[0]), abs(middle.y + y - goal[1])
                    if max(off_x, off_y) < WITHIN * pitch:
                        yield Seat(i, j, turns), 0.01 * math.hypot(off_x, off_y) / pitch
