"""`tandem train --multirun`: a training for every combination of values, one after the other, and a table of them."""

import csv
import io
import os
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_training.config import expand, given, parse, quoted
from tandem_training.engine.folder import drop_if_empty, holds_something, locked
from tandem_training.initial import check_chosen
from tandem_training.results import write_json, write_whole
from tandem_training.train import WHERE, run

FOLDER = Path("outputs/multirun")
RECORD, TABLE = "sweep.json", "sweep.csv"
_FIGURES = ("steps", "seconds", "best_step")


@dataclass
class Job:
    """One combination of values."""

    out: str
    overrides: list[str]  # all of them
    changed: dict[str, str]  # key -> value, of the keys that have several values
    status: str = "waiting"  # running, done, failed
    error: str = ""
    figures: dict[str, Any] = field(default_factory=dict)  # steps, seconds, best_step and the best validation
    metric: str = ""  # the figure that chooses
    mode: str = "min"  # or max


def sweep(overrides: Sequence[str]) -> int:
    """Runs all jobs into ``<out>/<n>`` (``outputs/multirun/<time>`` without an ``out``) and prints their table.

    Every job's configuration is checked before the first one runs. A job that fails does not stop the others; Ctrl-C
    stops the sweep. ``sweep.json`` and ``sweep.csv`` are written after each job.

    Returns:
        The exit status: 1 if a job failed.

    Raises:
        TandemError: a configuration is wrong, or the folder is not empty.
    """
    if "WORLD_SIZE" in os.environ:
        raise TandemError(f"{WHERE}: --multirun in several processes (allowed: one training under accelerate launch)")
    root = _root(overrides)
    plans = expand("train", [text for text in overrides if not text.startswith("out=")])
    varied = _varied(plans)
    jobs = [
        Job(str(root / str(number)), plan, {key: dict(_pairs(plan))[key] for key in varied})
        for number, plan in enumerate(plans)
    ]
    configs = [_config(job) for job in jobs]
    if holds_something(root):
        raise TandemError(f"{WHERE}: out={root} is not empty (allowed: a new or empty folder)")
    with locked(root, WHERE):
        try:
            for number, (job, config) in enumerate(zip(jobs, configs, strict=True)):
                print(f"\njob {number + 1}/{len(jobs)}: {_named(job) or 'as configured'}")
                _run(job, config)
                _write(root, jobs)
        finally:
            if any(job.status != "waiting" for job in jobs):
                _write(root, jobs)
                print_jobs(jobs)
                print(f"written to {root / RECORD} and {root / TABLE}")
            drop_if_empty(root)
    return 1 if any(job.status == "failed" for job in jobs) else 0


def _root(overrides: Sequence[str]) -> Path:
    out = given("train", overrides, "out")
    return Path(str(out)) if out is not None else FOLDER / f"{datetime.now():%Y%m%d-%H%M%S}"


def _config(job: Job) -> Any:
    from omegaconf import OmegaConf

    from tandem_training.engine.settings import TrainerSettings

    config = parse("train", [*job.overrides, f"out={quoted(job.out)}"], "")
    check_chosen(config, job.overrides)
    TrainerSettings.from_mapping(OmegaConf.to_container(config.trainer))  # type: ignore[arg-type]
    return config


def _run(job: Job, config: Any) -> None:
    job.status = "running"
    try:
        metrics = run(config, again="tandem train --resume", overrides=job.overrides).metrics
    except TandemError as error:
        job.status, job.error = "failed", str(error)
        print(f"error: {error}")
    except Exception as error:  # noqa: BLE001 - one broken job must not lose the others
        traceback.print_exc()
        job.status, job.error = "failed", f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]
    else:
        best = metrics["best"]
        figures = (metrics["steps"], metrics["seconds"], best["step"])
        job.status, job.figures = "done", dict(zip(_FIGURES, figures, strict=True)) | best["val"]
        job.metric, job.mode = best["metric"], best["mode"]


def _varied(plans: Sequence[Sequence[str]]) -> list[str]:
    """The keys that have not the same value in all jobs."""
    values: dict[str, set[str]] = {}
    for plan in plans:
        for key, value in _pairs(plan):
            values.setdefault(key, set()).add(value)
    return [key for key, found in values.items() if len(found) > 1]


def _pairs(plan: Sequence[str]) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (text.partition("=") for text in plan)]


def _named(job: Job) -> str:
    return " ".join(f"{key}={value}" for key, value in job.changed.items())


def _write(root: Path, jobs: Sequence[Job]) -> None:
    write_json(root / RECORD, {"jobs": [asdict(job) for job in jobs]})
    names = list(dict.fromkeys(name for job in jobs for name in job.figures))
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["job", "out", "status", *jobs[0].changed, *names, "error"])
    for number, job in enumerate(jobs):
        figures = [job.figures.get(name, "") for name in names]
        table.writerow([number, job.out, job.status, *job.changed.values(), *figures, job.error])
    write_whole(root / TABLE, text.getvalue().encode())


def print_jobs(jobs: Sequence[Job]) -> None:
    """The table of a sweep on the terminal, with the figure that chooses, and which job is the best."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    best = _best(jobs)
    names = [*_FIGURES, *([best.metric] if best else [])]
    table = Table(title="sweep", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("job", *jobs[0].changed, *names):
        table.add_column(name, overflow="fold")
    for number, job in enumerate(jobs):
        figures = [f"{job.figures[name]:.5g}" if name in job.figures else job.status for name in names]
        table.add_row(str(number), *job.changed.values(), *figures, style="bold" if job is best else "")
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(table)
    for number, job in enumerate(jobs):
        if job.error:
            console.print(f"job {number}: {job.error}")
    if best:
        console.print(f"best: {_named(best)} ({best.out}/best)")


def _best(jobs: Sequence[Job]) -> Job | None:
    done = [job for job in jobs if job.metric]
    return min(done, key=lambda job: job.figures[job.metric] * (1 if job.mode == "min" else -1), default=None)
