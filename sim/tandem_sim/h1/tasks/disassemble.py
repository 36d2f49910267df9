"""Disassemble: pull two joined bricks apart and leave both lying on the table."""

import numpy as np

from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.tasks.base import SIZES, Attachment, Layout, Place, Seen, Task
from tandem_sim.h1.tasks.laying import ANY, SHARED, spread
from tandem_sim.h1.tasks.plan import shifted_seat

RESTS = 0.001  # m above the table
WORDINGS = {
    "plain": ("take the {upper} brick off the {lower} brick",),
    "varied": (
        "take the {upper} brick off the {lower} brick",
        "pull the {upper} and the {lower} brick apart",
        "separate the {upper} brick from the {lower} one and put both on the table",
        "disassemble the {upper} and {lower} bricks",
        "remove the {upper} brick from the {lower} one",
    ),
}


class Disassemble(Task):
    """The two bricks that began joined lie on the table, upright, apart and let go."""

    name = "disassemble"
    seconds = 24.0
    failures = ("wrong_brick", "still_joined", "still_held", "not_at_rest")
    default_distractors = 0
    _mixed = ("2x4", "2x4", "2x3", "2x2")

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return tuple(SIZES[self._mixed[k % len(self._mixed)]] for k in range(2 + self.distractors))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        upper, lower = (int(k) for k in rng.permutation(2))
        along = int(rng.choice([-2, 2]))  # half of the studs stay engaged
        seat = shifted_seat(self.sizes[upper], self.sizes[lower], along, 0)
        pair = 1.5 * self.radius(lower)
        others = range(2, len(self.sizes))
        base, *rest = spread(rng, [SHARED, *(ANY for _ in others)], [pair, *(self.radius(slot) for slot in others)])
        places: list[Place] = [base, base, *rest]
        colours = self.draw_colours(rng)
        instruction = self.word(rng, WORDINGS, upper=colours[upper], lower=colours[lower])
        roles = (upper, lower, *others)
        return Layout(tuple(places), colours, roles, instruction, attachments=(Attachment(upper, lower, seat),))

    def judge(self, seen: Seen) -> float:
        pair = self.layout.roles[:2]
        if pair in seen.seats or pair[::-1] in seen.seats:
            return 0.0
        if all(self.parts(seen).values()):
            return 1.0
        return 0.5 + 0.2 * sum(abs(self.lift(seen, slot)) <= RESTS for slot in pair)

    def parts(self, seen: Seen) -> dict[str, bool]:
        pair = self.layout.roles[:2]
        return {
            "separate": pair not in seen.seats and pair[::-1] not in seen.seats,
            "height": all(abs(self.lift(seen, slot)) <= RESTS for slot in pair),
            "orientation": all(self.upright(seen, slot) for slot in pair),
            "released": all(self.clear(seen, slot) for slot in pair),
            "still": not self.moving(seen, pair),
        }

    def failure(self, seen: Seen) -> str:
        pair = self.layout.roles[:2]
        if pair in seen.seats or pair[::-1] in seen.seats:
            others = any(self.lift(seen, slot) > 0.01 for slot in self.layout.roles[2:])
            return "wrong_brick" if others else "still_joined"
        return "still_held" if not all(self.clear(seen, slot) for slot in pair) else "not_at_rest"
