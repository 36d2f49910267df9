"""Join: one brick in each hand, pressed together in the air."""

import numpy as np

from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.tasks.base import SIZES, Layout, Seen, Task, size_name
from tandem_sim.h1.tasks.laying import ANY, LEFT, RIGHT, spread

LIFTED = 0.04  # m above where they lay

WORDINGS = {
    "plain": ("join the {upper} brick onto the {lower} brick in the air",),
    "varied": (
        "join the {upper} brick onto the {lower} brick in the air",
        "take one brick in each hand and press the {upper} one onto the {lower} one",
        "in the air, put the {upper} {size} on top of the {lower} brick",
        "lift both bricks and click the {upper} one onto the {lower} one",
        "hold the {lower} brick in one hand and attach the {upper} one with the other",
    ),
}


class Join(Task):
    """The named bricks, lifted by a hand each, were joined off the table and are held up."""

    name = "join"
    seconds = 24.0
    failures = ("joined_on_the_table", "upside_down", "wrong_brick", "dropped", "not_joined", "not_taken")
    default_distractors = 0
    _mixed = ("2x4", "2x4", "2x2")

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return tuple(SIZES[self._mixed[k % len(self._mixed)]] for k in range(2 + self.distractors))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        upper, lower = (int(k) for k in rng.permutation(2))  # the long ones: two hands fit on no others
        roles = (upper, lower, *range(2, len(self.sizes)))
        side = int(rng.integers(2))
        zones = [ANY] * len(self.sizes)
        zones[roles[0]], zones[roles[1]] = (LEFT, RIGHT)[side], (RIGHT, LEFT)[side]
        places = spread(rng, zones, [self.radius(slot) for slot in range(len(self.sizes))])
        colours = self.draw_colours(rng)
        size = size_name(self.sizes[upper])
        instruction = self.word(rng, WORDINGS, upper=colours[upper], lower=colours[lower], size=size)
        return Layout(places, colours, roles, instruction)

    def begin(self, layout: Layout, seen: Seen) -> None:
        super().begin(layout, seen)
        self._taken = [False, False]
        self._was_joined = self._in_the_air = False

    @property
    def in_the_air(self) -> bool:
        """Whether the bricks were joined off the table, one in each hand."""
        return self._in_the_air

    def judge(self, seen: Seen) -> float:
        pair = self.layout.roles[:2]
        lifted = [self.lift(seen, slot) >= LIFTED for slot in pair]
        held = [[up and self.held(seen, slot, arm) for arm in (0, 1)] for slot, up in zip(pair, lifted, strict=True)]
        self._taken = [was or any(by) for was, by in zip(self._taken, held, strict=True)]
        joined = pair in seen.seats
        if joined and not self._was_joined:  # where it happened counts, and in whose hands
            one_each = (held[0][0] and held[1][1]) or (held[0][1] and held[1][0])
            self._in_the_air = one_each and all(lifted)
        self._was_joined = joined
        if joined and self._in_the_air and all(self.parts(seen).values()):
            return 1.0
        return 0.25 * sum(self._taken) + 0.4 * (joined and self._in_the_air)

    def parts(self, seen: Seen) -> dict[str, bool]:
        pair = self.layout.roles[:2]
        lifted = all(self.lift(seen, slot) >= LIFTED for slot in pair)
        return self.seating(seen, *pair) | {
            "joined_in_the_air": pair in seen.seats and self._in_the_air,
            "held_up": lifted and any(self.held(seen, slot, arm) for slot in pair for arm in (0, 1)),
            "still": not self.moving(seen, pair),
        }

    def failure(self, seen: Seen) -> str:
        upper, lower = self.layout.roles[:2]
        if (upper, lower) in seen.seats:
            return "dropped" if self._in_the_air else "joined_on_the_table"
        if (lower, upper) in seen.seats:
            return "upside_down"
        if seen.seats:
            return "wrong_brick"
        if not all(self._taken):
            return "not_taken"
        return "not_joined" if all(self.lift(seen, slot) >= LIFTED / 2 for slot in (upper, lower)) else "dropped"
