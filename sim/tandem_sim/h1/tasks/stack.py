"""Stack: press the named brick onto another named one."""

import numpy as np

from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.tasks.base import SIZES, Layout, Seen, Task, size_name
from tandem_sim.h1.tasks.geometry import distance
from tandem_sim.h1.tasks.laying import ANY, LEFT, RIGHT, SHARED, spread

MOVED = 0.02  # m: a brick that was moved at all

WORDINGS = {
    "plain": ("stack the {upper} brick on the {lower} brick",),
    "varied": (
        "stack the {upper} brick on the {lower} brick",
        "put the {upper} brick on top of the {lower} one",
        "press the {upper} {size} onto the {lower} brick",
        "attach the {upper} brick on top of the {lower} brick",
        "the {upper} one goes on the {lower} one",
        "take the {upper} brick and build it onto the {lower} brick",
        "click the {upper} brick onto the {lower} brick, please",
    ),
}


class Stack(Task):
    """The named brick sits on the other one's studs, on any of them, and is let go."""

    name = "stack"
    seconds = 16.0
    failures = ("wrong_brick", "upside_down", "not_connected", "not_released", "not_moved", "misplaced")
    default_distractors = 1
    _mixed = ("2x4", "2x4", "2x3", "2x2")

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return tuple(SIZES[self._mixed[k % len(self._mixed)]] for k in range(2 + self.distractors))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        roles = tuple(int(k) for k in rng.permutation(len(self.sizes)))
        zones = [ANY] * len(self.sizes)
        zones[roles[0]] = (LEFT, RIGHT)[int(rng.integers(2))]
        zones[roles[1]] = SHARED
        places = spread(rng, zones, [self.radius(slot) for slot in range(len(self.sizes))])
        colours = self.draw_colours(rng)
        upper, lower = roles[:2]
        size = size_name(self.sizes[upper])
        instruction = self.word(rng, WORDINGS, upper=colours[upper], lower=colours[lower], size=size)
        return Layout(places, colours, roles, instruction)

    def begin(self, layout: Layout, seen: Seen) -> None:
        super().begin(layout, seen)
        upper, lower = layout.roles[:2]
        self._start = list(seen.poses[upper])
        self._way = distance(seen.poses[upper], self._target(seen, lower))

    def judge(self, seen: Seen) -> float:
        upper, lower = self.layout.roles[:2]
        joined = (upper, lower) in seen.seats
        if joined and all(self.parts(seen).values()):
            return 1.0
        near = max(0.0, 1 - distance(seen.poses[upper], self._target(seen, lower)) / self._way)
        return 0.5 * near + 0.4 * joined

    def parts(self, seen: Seen) -> dict[str, bool]:
        upper, lower = self.layout.roles[:2]
        return self.seating(seen, upper, lower) | {
            "released": self.clear(seen, upper),
            "still": not self.moving(seen, (upper, lower)),
        }

    def failure(self, seen: Seen) -> str:
        upper, lower = self.layout.roles[:2]
        if (upper, lower) in seen.seats:
            return "not_released"
        if (lower, upper) in seen.seats:
            return "upside_down"
        if seen.seats:
            return "wrong_brick"
        parts = self.seating(seen, upper, lower)
        if parts["position"] and distance(seen.poses[upper], self._target(seen, lower)) < self.height:
            return "not_connected"
        return "not_moved" if distance(seen.poses[upper], self._start) < MOVED else "misplaced"

    def _target(self, seen: Seen, lower: int) -> tuple[float, float, float]:
        x, y, z = seen.poses[lower][:3]
        return (x, y, z + self.height)
