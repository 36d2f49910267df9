"""The H1's scripted experts: how often each solves its task, on seeds that nothing was tuned for.

    tandem bench experts
    tandem bench experts rows='[expert_stack,expert_stack_8mm]' episodes=20
    tandem bench experts rows='[expert_by_path]' robot=robots/h1.xml
    tandem bench experts +options.action_mode=joint

Episodes run in `workers` processes and come out the same whatever their number. expert_by_path is the margin of the
task that does worst against its target, on an H1 from a file; its note has every task's rate.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, EnvSpec, EpisodeResult, RolloutRequest
from tandem_training.benches._measuring import Target, measure_groups
from tandem_training.config import section
from tandem_training.evaluation import evaluate
from tandem_training.results import Row
from tandem_training.statistics import wilson

LEAST = {
    "reach": 0.95,
    "pick": 0.95,
    "place": 0.95,
    "stack": 0.95,
    "handover": 0.90,
    "join": 0.90,
    "build": 0.90,
    "disassemble": 0.90,
}
LEAST_8MM = 0.80
MARGIN = -5.0  # points


def _rate(least: float) -> Target:
    return Target("", f">= {least:.2f}", lambda value: value >= least)


TARGETS = {
    **{f"expert_{task}": _rate(least) for task, least in LEAST.items()},
    "expert_stack_8mm": _rate(LEAST_8MM),
    "expert_by_path": Target(
        "points", f"no task more than {-MARGIN:g} under its target", lambda value: value >= MARGIN
    ),
}
VARIANT = Path("tests", "sim", "h1", "robots", "h1_variant.xml")
_SHOWN = 8  # failing seeds in a note


def measure(config: Any, wanted: set[str]) -> list[Row]:
    """The rows of :data:`TARGETS`."""
    bench = ExpertBench(config)
    groups: list[tuple[list[str], Callable[[], list[Row]]]] = [
        *(([f"expert_{task}"], partial(bench.task, task)) for task in LEAST),
        (["expert_stack_8mm"], bench.stack_8mm),
        (["expert_by_path"], bench.by_path),
    ]
    return measure_groups(TARGETS, groups, wanted)


class ExpertBench:
    """One configuration's measurements; each method gives the rows of one group."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.options = {"cameras": [], **section(config.options)}

    def task(self, task: str) -> list[Row]:
        rate, note = self._rolled(task, self.options)
        return [Row("", rate, note=note)]

    def stack_8mm(self) -> list[Row]:
        rate, note = self._rolled("stack", {**self.options, "pitch_mm": 8})
        return [Row("", rate, note=note)]

    def by_path(self) -> list[Row]:
        robot = self._robot()
        rates = {task: self._rolled(task, {**self.options, "robot": str(robot)})[0] for task in LEAST}
        margins = {task: 100 * (rates[task] - least) for task, least in LEAST.items()}
        note = ", ".join(f"{task} {rate:.2f}" for task, rate in rates.items())
        return [Row("", min(margins.values()), note=f"{robot.name}, {self.config.episodes} seeds each: {note}")]

    def _robot(self) -> Path:
        if self.config.robot is not None:
            return Path(str(self.config.robot))
        shipped = Path(__file__).parents[3] / VARIANT
        if not shipped.exists():
            raise TandemError(f"tandem bench experts: {VARIANT} is not here (allowed: robot=<an H1's MJCF file>)")
        return shipped

    def _rolled(self, task: str, options: Mapping[str, Any]) -> tuple[float, str]:
        """The success rate, and in words what it comes from."""
        request = RolloutRequest(
            env=EnvSpec(f"tandem/H1{task.capitalize()}-v0", options),
            policy=EXPERT,
            episodes=self.config.episodes,
            seed=self.config.seed,
            workers=self.config.workers,
        )
        evaluation = evaluate(request, "inprocess", title=task)
        won = sum(evaluation.successes)
        low, high = wilson(won, len(evaluation.results))
        note = f"{won} of {len(evaluation.results)}, 95 % interval {low:.2f} to {high:.2f}; "
        note += f"{evaluation.metrics['steps_mean']:.0f} steps on average"
        return won / len(evaluation.results), note + _failures(evaluation.results)


def _failures(results: list[EpisodeResult]) -> str:
    failed = [f"{result.info.seed} {result.info.outcome}" for result in results if not result.info.success]
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    return f"; failed: {', '.join(failed[:_SHOWN])}{more}" if failed else ""
