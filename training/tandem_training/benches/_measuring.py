"""What benches share: rows with their targets, rows that broke or were left out, demonstrations, timed commands."""

import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_training.evaluation import evaluate
from tandem_training.results import Row
from tandem_training.steps import Done, Steps

console = Console(highlight=False)


@dataclass(frozen=True)
class Target:
    """A row's unit, its target in words, and what meets it."""

    unit: str
    text: str
    meets: Callable[[float], bool]


def judge(name: str, target: Target, row: Row) -> Row:
    """The row under its name with unit and target; met by its value, unless the row has judged itself."""
    met = row.met if row.met is not None or row.value is None else bool(target.meets(row.value))
    return replace(row, name=name, unit=target.unit, target=target.text, met=met)


def measure_groups(
    targets: Mapping[str, Target],
    groups: Sequence[tuple[Sequence[str], Callable[[], Sequence[Row]]]],
    wanted: set[str],
) -> list[Row]:
    """Runs each group that holds a wanted row; the others stand there as left out, broken ones with what broke."""
    rows: list[Row] = []
    for names, run in groups:
        if not wanted & set(names):
            rows += [judge(name, targets[name], Row(name, None, note="left out")) for name in names]
            continue
        console.print(f"[bold]{', '.join(names)}[/] ...")
        started = time.perf_counter()
        try:
            found = list(run())
        except Exception as error:  # noqa: BLE001 - one broken row must not lose the others
            if not isinstance(error, TandemError):
                traceback.print_exc()
            note = f"broke: {type(error).__name__}: {error}"[:300]
            found = [Row(name, None, met=False, note=note) for name in names]
        measured = [judge(name, targets[name], row) for name, row in zip(names, found, strict=True)]
        rows += [row if row.name in wanted else replace(row, value=None, met=None, note="left out") for row in measured]
        for row in measured:
            console.print(
                f"  {row.name} = {row.value} {row.unit} ({row.note}) [dim]{time.perf_counter() - started:.0f} s[/]"
            )
    return rows


def median_row(values: Sequence[float], note: str = "") -> Row:
    """The median of repeats, with their spread in the note."""
    spread = f"{min(values):.4g} to {max(values):.4g} over {len(values)} repeats"
    return Row("", statistics.median(values), repeats=len(values), note=f"{note}; {spread}" if note else spread)


def demonstrations(job: Steps, env: EnvSpec, name: str, episodes: int, seed: int, recovery: float = 0.0) -> Done:
    """The step that makes ``<name>.zarr``: a store of expert demonstrations, with its ``frames`` among the facts.

    ``recovery`` is how many deliberate disturbances a second the expert recovers from.
    """
    options = {"recovery": recovery} if recovery else {}

    def make(path: Path) -> dict[str, Any]:
        request = RolloutRequest(env, EXPERT, episodes, seed, record=path, label=True, options=options)
        results = evaluate(request, "inprocess", title=f"{name}: the expert demonstrates").results
        return {"frames": sum(result.steps for result in results)}

    made_from = {"env": env.id, "options": dict(env.options), "episodes": episodes, "seed": seed, **options}
    return job.run(f"{name}.zarr", made_from, make)


def tandem(*arguments: str) -> list[str]:
    """The command line of a ``tandem`` command, the one that stands beside this interpreter."""
    beside = Path(sys.executable).with_name("tandem")
    return [str(beside), *arguments] if beside.exists() else [sys.executable, "-m", "tandem_training.cli", *arguments]


def seconds_of(command: Sequence[str], timeout_s: float = 120) -> float:
    """Wall seconds of a command that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise TandemError(f"{' '.join(command[1:3])}: exit status {done.returncode}: {done.stderr.strip()[-200:]}")
    return seconds
