"""Handover: the left hand takes the named brick and gives it to the right one, in the air."""

import numpy as np

from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.tasks.base import SIZES, Layout, Seen, Task, size_name
from tandem_sim.h1.tasks.laying import ANY, LEFT, spread

LIFTED = 0.04  # m above where it lay
LEFT_ARM, RIGHT_ARM = 0, 1

WORDINGS = {
    "plain": ("hand the {colour} brick from the left hand to the right hand",),
    "varied": (
        "hand the {colour} brick from the left hand to the right hand",
        "take the {colour} brick with your left hand and pass it to your right",
        "give the {colour} {size} from left to right",
        "pass the {colour} one over to the right gripper",
        "left hand: pick the {colour} brick; right hand: take it over",
        "pick the {colour} brick with the left and hand it over to the right hand",
    ),
}


class Handover(Task):
    """The right gripper alone holds the brick in the air, and took it there from the left one, both holding it."""

    name = "handover"
    seconds = 20.0
    failures = ("wrong_brick", "dropped", "not_passed_in_the_air", "not_handed_over", "not_taken")
    default_distractors = 1
    _mixed = ("2x4", "2x4", "1x4")

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return tuple(SIZES[self._mixed[k % len(self._mixed)]] for k in range(1 + self.distractors))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        roles = tuple(int(k) for k in rng.permutation(len(self.sizes)))
        zones = [ANY] * len(self.sizes)
        zones[roles[0]] = LEFT
        places = spread(rng, zones, [self.radius(slot) for slot in range(len(self.sizes))])
        colours = self.draw_colours(rng)
        named = roles[0]
        instruction = self.word(rng, WORDINGS, colour=colours[named], size=size_name(self.sizes[named]))
        return Layout(places, colours, roles, instruction)

    def begin(self, layout: Layout, seen: Seen) -> None:
        super().begin(layout, seen)
        self._taken = self._passed = False

    @property
    def passed(self) -> bool:
        """Whether both grippers have held the brick in the air."""
        return self._passed

    def judge(self, seen: Seen) -> float:
        slot = self.layout.roles[0]
        in_right = False
        if self.lift(seen, slot) >= LIFTED:
            left, right = (self.held(seen, slot, arm) for arm in (LEFT_ARM, RIGHT_ARM))
            self._taken |= left
            self._passed |= left and right
            in_right = right and not left and self._passed
        if in_right and all(self.parts(seen).values()):
            return 1.0
        return 0.3 * self._taken + 0.3 * self._passed + 0.3 * in_right

    def parts(self, seen: Seen) -> dict[str, bool]:
        slot = self.layout.roles[0]
        return {
            "passed": self._passed,
            "held": self.held(seen, slot, RIGHT_ARM) and not self.held(seen, slot, LEFT_ARM),
            "height": self.lift(seen, slot) >= LIFTED,
            "released": self.clear_of(seen, slot, LEFT_ARM),
            "still": not self.moving(seen, (slot,)),
        }

    def failure(self, seen: Seen) -> str:
        slot = self.layout.roles[0]
        if not self._taken:
            others = any(self.lift(seen, other) >= LIFTED / 2 for other in self.layout.roles[1:])
            return "wrong_brick" if others else "not_taken"
        if self.held(seen, slot, RIGHT_ARM) and not self._passed:
            return "not_passed_in_the_air"
        return "dropped" if self.lift(seen, slot) < LIFTED / 2 else "not_handed_over"
