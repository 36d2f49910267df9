"""What an expert is: a plan that runs step by step, begins anew where it failed, and says what it is about."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from tandem_sim.h1.experts.arms import Arms
from tandem_sim.h1.experts.sight import Sight
from tandem_sim.h1.world import World

Steps = Iterator[None]
"""A skill or plan under way: it commands the arms for a control step, then yields; it ends without yielding."""


class Failed(Exception):  # noqa: N818 - it is no error of the program: the plan begins anew
    """A skill cannot go on: something slipped, was missed, or took too long."""


class Expert(ABC):
    """Acts in one world, by a plan that asks the world at each step.

    A plan has to begin from any state, since it begins anew after a failure, and whenever it has ended: where all is
    done already it ends at once. So an expert also labels what others do.
    """

    def __init__(self, world: World) -> None:
        self.world, self.task = world, world.task
        self.arms, self.sight = Arms(world), Sight(world)
        self.subgoal = ""
        self.failures: list[str] = []
        self._period = self.arms.period

    def reset(self) -> None:
        """Begins an episode, of which the world has the layout."""
        self.arms.reset()
        self.sight.reset()
        self.failures = []
        self.subgoal = ""
        self._run, self._step = self._forever(), -1
        self._action = np.zeros(0, np.float32)

    def action(self, step: int) -> np.ndarray:
        """The action (A,) float32 for control step ``step`` of the episode; asked again it says the same."""
        if step != self._step:
            self._step = step
            self.arms.observe()
            next(self._run)
            self._action = self.arms.action()
        return self._action.copy()

    @abstractmethod
    def plan(self) -> Steps:
        """From wherever the world is, what is left to do."""

    def say(self, subgoal: str) -> None:
        """Tells what the expert is about from this step on."""
        self.subgoal = subgoal

    def steps(self, seconds: float) -> int:
        """Control steps in a time."""
        return max(1, round(seconds / self._period))

    def _forever(self) -> Steps:
        while True:
            try:
                yield from self.plan()
            except Failed as failure:
                self.failures.append(str(failure))
            yield


def together(*skills: Steps) -> Steps:
    """Runs skills side by side until all have ended."""
    running = list(skills)
    while running:
        running = [skill for skill in running if next(skill, _ENDED) is not _ENDED]
        if running:
            yield


_ENDED = object()
