"""Pick: lift the named brick off the table and hold it."""

import numpy as np

from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.tasks.base import SIZES, Layout, Seen, Task, size_name
from tandem_sim.h1.tasks.geometry import distance
from tandem_sim.h1.tasks.laying import LEFT, RIGHT, spread

LIFTED = 0.06  # m above where it lay
TAKEN = 0.01  # m: a brick this far up was lifted at all

WORDINGS = {
    "plain": ("pick up the {colour} brick",),
    "varied": (
        "pick up the {colour} brick",
        "lift the {colour} brick",
        "take the {colour} one",
        "grasp the {colour} brick and raise it",
        "get the {colour} brick off the table",
        "please pick the {colour} {size}",
        "hold up the {size} brick that is {colour}",
    ),
}


class Pick(Task):
    """The named brick is held by a gripper, 6 cm up."""

    name = "pick"
    seconds = 10.0
    failures = ("wrong_brick", "dropped", "not_lifted")
    default_distractors = 2
    _mixed = ("2x4", "2x3", "2x2", "2x4", "1x4")

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return tuple(SIZES[self._mixed[k % len(self._mixed)]] for k in range(1 + self.distractors))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        sides = rng.permutation([k % 2 for k in range(len(self.sizes))])
        zones = [(LEFT, RIGHT)[side] for side in sides]
        places = spread(rng, zones, [self.radius(slot) for slot in range(len(self.sizes))])
        colours = self.draw_colours(rng)
        roles = tuple(int(k) for k in rng.permutation(len(self.sizes)))
        named = roles[0]
        instruction = self.word(rng, WORDINGS, colour=colours[named], size=size_name(self.sizes[named]))
        return Layout(places, colours, roles, instruction)

    def begin(self, layout: Layout, seen: Seen) -> None:
        super().begin(layout, seen)
        self._was_lifted = False
        self._first = max(self._reach(seen), 1e-3)

    def judge(self, seen: Seen) -> float:
        slot = self.layout.roles[0]
        if not self._in_hand(seen):
            return 0.3 * max(0.0, 1 - self._reach(seen) / self._first)
        up = self.lift(seen, slot)
        self._was_lifted |= up > TAKEN
        if up >= LIFTED and not self.moving(seen, (slot,)):
            return 1.0
        return 0.5 + 0.4 * min(max(up / LIFTED, 0.0), 1.0)

    def parts(self, seen: Seen) -> dict[str, bool]:
        slot = self.layout.roles[0]
        return {
            "held": self._in_hand(seen),
            "height": self.lift(seen, slot) >= LIFTED,
            "still": not self.moving(seen, (slot,)),
        }

    def failure(self, seen: Seen) -> str:
        if any(self.lift(seen, slot) > TAKEN for slot in self.layout.roles[1:]):
            return "wrong_brick"
        return "dropped" if self._was_lifted else "not_lifted"

    def _in_hand(self, seen: Seen) -> bool:
        slot = self.layout.roles[0]
        return self.held(seen, slot, 0) or self.held(seen, slot, 1)

    def _reach(self, seen: Seen) -> float:
        pose = seen.poses[self.layout.roles[0]]
        return min(distance(tcp, pose) for tcp in seen.tcps)
