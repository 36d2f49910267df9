"""Place: press the named brick onto the named part of the baseplate."""

import numpy as np

from tandem_sim.bricks.parameters import BRICK_HEIGHT, PLATE_HEIGHT, BrickSize
from tandem_sim.bricks.shapes import KINDS
from tandem_sim.h1.tasks.base import MIDDLE, PLATE, SIZES, Layout, Seen, Task, size_name
from tandem_sim.h1.tasks.geometry import distance
from tandem_sim.h1.tasks.laying import beside, spread

CELLS = {  # steps from the plate's middle away from the robot and to its left
    "middle": (0, 0),
    "far side": (1, 0),
    "near side": (-1, 0),
    "left side": (0, 1),
    "right side": (0, -1),
    "far left corner": (1, 1),
    "far right corner": (1, -1),
    "near left corner": (-1, 1),
    "near right corner": (-1, -1),
}
STEP = {"8x8": 2, "16x16": 4}  # studs between cells
WITHIN = 0.6  # pitches from the cell's middle along each side: half a stud, where an odd brick cannot sit on it
MOVED = 0.01  # m: a brick that was moved at all

WORDINGS = {
    "plain": ("place the {colour} brick on the {cell} of the plate",),
    "varied": (
        "place the {colour} brick on the {cell} of the plate",
        "put the {colour} {size} on the plate's {cell}",
        "press the {colour} brick onto the {cell} of the baseplate",
        "the {colour} one goes on the {cell} of the grey plate",
        "attach the {colour} brick to the plate, {cell}",
        "please put the {colour} brick down on the {cell} of the plate",
    ),
}


class Place(Task):
    """The named brick sits on the plate's studs, over the named cell, and is let go."""

    name = "place"
    seconds = 16.0
    failures = ("wrong_brick", "wrong_cell", "not_seated", "not_released", "not_placed")
    has_goal = True
    default_distractors = 1
    _mixed = ("2x4", "2x2", "2x3", "2x4")

    def plate(self) -> BrickSize | None:
        return KINDS[f"baseplate {self.settings.baseplate}"]

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        return tuple(SIZES[self._mixed[k % len(self._mixed)]] for k in range(1 + self.distractors))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        plate, pitch = self.plate(), self.settings.pitch
        assert plate is not None
        radii = [self.radius(slot) for slot in range(len(self.sizes))]
        sides = rng.permutation([k % 2 for k in range(len(self.sizes))])
        zones = [beside(plate.ny * pitch / 2, radius)[side] for side, radius in zip(sides, radii, strict=True)]
        places = spread(rng, zones, radii)
        colours = self.draw_colours(rng)
        roles = tuple(int(k) for k in rng.permutation(len(self.sizes)))
        cell = list(CELLS)[int(rng.integers(len(CELLS)))]
        step = STEP[self.settings.baseplate] * pitch
        up = self.table + (PLATE_HEIGHT + BRICK_HEIGHT / 2) * pitch
        goal = (MIDDLE[0] + CELLS[cell][0] * step, MIDDLE[1] + CELLS[cell][1] * step, up, 0.0)
        instruction = self.word(
            rng, WORDINGS, colour=colours[roles[0]], cell=cell, size=size_name(self.sizes[roles[0]])
        )
        return Layout(places, colours, roles, instruction, goal=goal)

    def begin(self, layout: Layout, seen: Seen) -> None:
        super().begin(layout, seen)
        assert layout.goal is not None
        self._way = distance(seen.poses[layout.roles[0]], layout.goal)

    def judge(self, seen: Seen) -> float:
        slot, goal = self.layout.roles[0], self.layout.goal
        assert goal is not None
        seated = (slot, PLATE) in seen.seats and self._over(seen, slot)
        if seated and all(self.parts(seen).values()):
            return 1.0
        near = max(0.0, 1 - distance(seen.poses[slot], goal) / self._way)
        return 0.5 * near + 0.4 * seated

    def parts(self, seen: Seen) -> dict[str, bool]:
        slot = self.layout.roles[0]
        return self.seating(seen, slot, PLATE) | {
            "position": self._over(seen, slot),
            "released": self.clear(seen, slot),
            "still": not self.moving(seen, (slot,)),
        }

    def failure(self, seen: Seen) -> str:
        slot = self.layout.roles[0]
        if (slot, PLATE) in seen.seats:
            return "not_released" if self._over(seen, slot) else "wrong_cell"
        if any((other, PLATE) in seen.seats for other in self.layout.roles[1:]):
            return "wrong_brick"
        return "not_seated" if self._over(seen, slot) else "not_placed"

    def _over(self, seen: Seen, slot: int) -> bool:
        """Whether the brick's middle is over the named cell."""
        goal, pose, most = self.layout.goal, seen.poses[slot], WITHIN * self.settings.pitch
        assert goal is not None
        return abs(pose[0] - goal[0]) <= most and abs(pose[1] - goal[1]) <= most
