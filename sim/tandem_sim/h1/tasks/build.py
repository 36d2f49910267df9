"""Build: put bricks together as a plan says."""

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.settings import Settings
from tandem_sim.h1.tasks import plan as plans
from tandem_sim.h1.tasks.base import SIZES, Layout, Seen, Task
from tandem_sim.h1.tasks.laying import LEFT, RIGHT, SHARED, spread
from tandem_sim.h1.tasks.plan import Plan, parse, same_seat
from tandem_sim.spaces import MAX_INSTRUCTION

MOST_DRAWN = 5  # bricks of a plan that is drawn: more make a longer instruction than there is room for
WORDINGS = {
    "plain": ("build: {plan}",),
    "varied": (
        "build: {plan}",
        "please build {plan}",
        "put this together: {plan}",
        "assemble {plan}",
        "make {plan}",
    ),
}


class Build(Task):
    """Every brick of the plan sits where the plan says, and all are let go. Its first brick lies in the middle."""

    name = "build"
    failures = ("nothing_built", "partly_built", "wrong_place", "not_released")
    seconds = 45.0
    default_bricks = 3
    _mixed = ("2x4", "2x4", "2x2", "2x3", "2x4", "2x2")

    def __init__(self, settings: Settings, table: float) -> None:
        self._given = None if settings.plan is None else parse(settings.plan)
        self._plan: Plan | None = self._given
        if self._given is not None:
            length = max(len(phrase.format(plan=self._given.text)) for phrase in WORDINGS["varied"])
            if length > MAX_INSTRUCTION:
                raise TandemError(f"plan: an instruction of {length} characters (allowed: {MAX_INSTRUCTION})")
            for colour in self._given.colours:
                if colour not in settings.colours:
                    raise TandemError(f"plan: {colour} is not among colours {list(settings.colours)} (allowed: those)")
        if (settings.bricks or 0) > MOST_DRAWN:
            raise TandemError(f"H1: bricks is {settings.bricks} (allowed: 2 to {MOST_DRAWN})")
        super().__init__(settings, table)

    @property
    def plan(self) -> Plan:
        """The current episode's; its bricks are the roles in order."""
        assert self._plan is not None
        return self._plan

    @property
    def horizon(self) -> int:
        per_brick = self.seconds / self.default_bricks
        return self.settings.horizon or round(per_brick * self._planned * self.settings.rate_hz)

    @property
    def _planned(self) -> int:
        return len(self._given.sizes) if self._given else self.settings.bricks or self.default_bricks

    def choose_sizes(self) -> tuple[BrickSize, ...]:
        drawn = [SIZES[self._mixed[k % len(self._mixed)]] for k in range(self._planned)]
        planned = list(self._given.sizes) if self._given else drawn
        return (*planned, *(SIZES[self._mixed[k % len(self._mixed)]] for k in range(self.distractors)))

    def lay_out(self, rng: np.random.Generator) -> Layout:
        side = int(rng.integers(2))
        zones = [SHARED, *((LEFT, RIGHT)[(k + side) % 2] for k in range(1, len(self.sizes)))]
        places = spread(rng, zones, [self.radius(slot) for slot in range(len(self.sizes))])
        colours = self._colours(rng)
        n = self._planned
        self._plan = self._given or plans.draw(rng, colours[:n], self.sizes[:n])
        text = self.word(rng, WORDINGS, plan=self.plan.text)
        return Layout(places, colours, tuple(range(len(self.sizes))), text)

    def judge(self, seen: Seen) -> float:
        steps = self.plan.steps
        right = sum(self._right(seen, step) for step in steps)
        if right == len(steps) and all(self.parts(seen).values()):
            return 1.0
        return 0.9 * right / len(steps)

    def parts(self, seen: Seen) -> dict[str, bool]:
        steps, n = self.plan.steps, self._planned
        return {
            "connection": all(self._right(seen, step) for step in steps),
            "height": all(all(self.seating(seen, step.upper, step.lower).values()) for step in steps),
            "position": abs(self.lift(seen, 0)) <= 0.001,
            "orientation": self.upright(seen, 0),
            "released": all(self.clear(seen, slot) for slot in range(n)),
            "still": not self.moving(seen, range(n)),
        }

    def failure(self, seen: Seen) -> str:
        right = [self._right(seen, step) for step in self.plan.steps]
        if all(right):
            return "not_released"
        if len(seen.seats) > sum(right):
            return "wrong_place"
        return "partly_built" if any(right) else "nothing_built"

    def _right(self, seen: Seen, step: plans.Step) -> bool:
        found = seen.seats.get((step.upper, step.lower))
        sizes = self.plan.sizes
        return found is not None and same_seat(step.seat, found, sizes[step.upper], sizes[step.lower])

    def _colours(self, rng: np.random.Generator) -> tuple[str, ...]:
        if self._given is None:
            return self.draw_colours(rng)
        left = [colour for colour in self.settings.colours if colour not in self._given.colours]
        more = [left[k] for k in rng.permutation(len(left))[: self.distractors]]
        return (*self._given.colours, *more)
