"""Reach: bring the named hand over the named brick, and keep it there."""

import numpy as np

from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.tasks.base import ARMS, SIZES, Layout, Seen, Task
from tandem_sim.h1.tasks.geometry import distance
from tandem_sim.h1.tasks.laying import LEFT, RIGHT, spread

ABOVE = 0.05  # m over the brick's centre: where the TCP has to be
REACHED = 0.02  # m from there
STILL_TCP = 0.03  # m/s
ELSEWHERE = 0.05  # m: an episode that ends this close over another brick went to the wrong one

WORDINGS = {
    "plain": ("reach the {colour} brick with the {arm} hand",),
    "varied": (
        "reach the {colour} brick with the {arm} hand",
        "move your {arm} hand to the {colour} brick",
        "put the {arm} gripper over the {colour} brick",
        "with your {arm} hand, go to the {colour} one",
        "hold the {arm} hand above the {colour} brick, please",
        "{arm} hand to the {colour} brick",
        "bring the {arm} gripper to the brick that is {colour}",
    ),
}


class Reach(Task):
    """The TCP of the arm on the brick's side comes within 2 cm of a point 5 cm above the brick's centre and stays."""

    name = "reach"
    seconds = 5.0
    failures = ("wrong_brick", "wrong_hand", "not_reached")
    has_goal = True
    default_distractors = 2

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return (SIZES["2x4"],) * (1 + self.distractors)

    def lay_out(self, rng: np.random.Generator) -> Layout:
        sides = rng.permutation([k % 2 for k in range(len(self.sizes))])
        zones = [(LEFT, RIGHT)[side] for side in sides]
        places = spread(rng, zones, [self.radius(slot) for slot in range(len(self.sizes))])
        colours = self.draw_colours(rng)
        roles = tuple(int(k) for k in rng.permutation(len(self.sizes)))
        named = roles[0]
        arm = ARMS[int(sides[named])]
        place = places[named]
        goal = (place.x, place.y, self.table + self.height / 2 + ABOVE, place.yaw)
        instruction = self.word(rng, WORDINGS, colour=colours[named], arm=arm)
        return Layout(places, colours, roles, instruction, goal=goal, arm=arm)

    def begin(self, layout: Layout, seen: Seen) -> None:
        super().begin(layout, seen)
        self._last, self._speed = seen.tcps, 0.0
        self._first = max(self._distance(seen, ARMS.index(layout.arm), layout.roles[0]), REACHED)

    def judge(self, seen: Seen) -> float:
        arm, slot = ARMS.index(self.layout.arm), self.layout.roles[0]
        away = self._distance(seen, arm, slot)
        self._speed = distance(seen.tcps[arm], self._last[arm]) * self.settings.rate_hz
        self._last = seen.tcps
        if away <= REACHED and self._speed <= STILL_TCP:
            return 1.0
        return max(0.0, 0.9 * (1 - away / self._first))

    def parts(self, seen: Seen) -> dict[str, bool]:
        away = self._distance(seen, ARMS.index(self.layout.arm), self.layout.roles[0])
        return {"position": away <= REACHED, "still": self._speed <= STILL_TCP}

    def failure(self, seen: Seen) -> str:
        arm, roles = ARMS.index(self.layout.arm), self.layout.roles
        if any(self._distance(seen, arm, slot) <= ELSEWHERE for slot in roles[1:]):
            return "wrong_brick"
        return "wrong_hand" if self._distance(seen, 1 - arm, roles[0]) <= ELSEWHERE else "not_reached"

    def _distance(self, seen: Seen, arm: int, slot: int) -> float:
        x, y, z = seen.poses[slot][:3]
        return distance(seen.tcps[arm], (x, y, z + ABOVE))
