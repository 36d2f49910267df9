"""One episode's book-keeping: how long success has lasted, what is gained in a step, and when and how it ends."""

from collections.abc import Mapping
from dataclasses import dataclass

from tandem_sim.h1.tasks.base import FALLEN, STILL_S, Layout, Seen, Task

ALMOST = 0.99  # progress once all holds, until it has lasted
_NOT_ASKED: Mapping[str, bool] = {}


@dataclass(slots=True)
class Verdict:
    """What a control step led to."""

    reward: float  # gain in progress; a whole episode's sum is 1 for a success, less otherwise
    success: bool
    terminated: bool
    truncated: bool
    progress: float  # 0 to 1
    parts: Mapping[str, bool]  # of the last step: what success asks for, and whether it holds
    outcome: str  # of the last step: "success" or the kind of failure; else ""


class Trial:
    """Judges one world's episodes."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.steps = 0
        self._needed = round(STILL_S * task.settings.rate_hz)
        self._lasted = 0
        self._horizon = task.horizon
        self._progress = 0.0
        self._lowest = task.table - FALLEN
        self._at_stake: tuple[int, ...] = ()

    def begin(self, layout: Layout, seen: Seen) -> None:
        """A new episode."""
        self.task.begin(layout, seen)
        self._at_stake = layout.roles[: self.task.needed]
        self.steps = self._lasted = 0
        self._progress = 0.0

    def step(self, seen: Seen) -> Verdict:
        """Judges the end of a control step."""
        task = self.task
        self.steps += 1
        there = task.judge(seen)
        self._lasted = self._lasted + 1 if there >= 1.0 else 0
        success = self._lasted >= self._needed
        progress = 1.0 if success else min(there, ALMOST)
        reward, self._progress = progress - self._progress, progress
        fell = not success and self._fallen(seen)
        truncated = not success and not fell and self.steps >= self._horizon
        outcome = ""
        if success:
            outcome = "success"
        elif fell:
            outcome = "fell"
        elif truncated:
            outcome = task.failure(seen)
        parts = task.parts(seen) if outcome else _NOT_ASKED
        return Verdict(reward, success, success or fell, truncated, progress, parts, outcome)

    def _fallen(self, seen: Seen) -> bool:
        """Whether a brick that the task needs lies below the table."""
        for slot in self._at_stake:  # noqa: SIM110 - sooner than any()
            if seen.poses[slot][2] < self._lowest:
                return True
        return False
