"""Runs a policy for evaluation through any rollout backend, and writes what came of it."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.rollout import EXPERT, EnvSpec, EpisodeResult, RolloutBackend, RolloutRequest
from tandem_training.baseline_names import is_baseline
from tandem_training.results import METRICS, latency_line, machine, print_lines, write_json
from tandem_training.statistics import percentiles, wilson

BACKENDS = "tandem.backends"


@dataclass(frozen=True)
class Evaluation:
    """Episodes in order of index, and the metrics that stand in ``metrics.json``."""

    results: list[EpisodeResult]
    metrics: dict[str, Any]

    @property
    def successes(self) -> list[bool]:
        return [result.info.success for result in self.results]


def find_backend(name: str) -> RolloutBackend:
    """The backend registered as ``name``; TandemError with the nearest name, or why it cannot be imported."""
    found = {entry.name: entry for entry in entry_points(group=BACKENDS)}
    if name not in found:
        raise unknown("backend", name, found)
    try:
        return found[name].load()
    except ImportError as error:
        raise TandemError(f"backend '{name}': cannot be imported: {error} (try `tandem doctor`)") from error


def evaluate(
    request: RolloutRequest,
    backend: str,
    out: Path | None = None,
    films: int = 0,
    title: str = "rolling out",
) -> Evaluation:
    """Runs the episodes and, given ``out``, writes films, a plot and at last ``metrics.json`` there.

    Films are made from the recorded episodes, so that both backends have them; without
    ``request.record`` the recording is a temporary one.
    """
    run = find_backend(backend)
    started = time.perf_counter()
    with _recording(request, wanted=bool(out and films)) as recorded:
        with progress(request.episodes, title) as advance:
            results = run(recorded, advance)
        seconds = time.perf_counter() - started
        metrics = summarise(recorded, backend, results, seconds)
        if out is not None:
            _write(out, recorded, results, metrics, films)
    return Evaluation(results, metrics)


def summarise(request: RolloutRequest, backend: str, results: list[EpisodeResult], seconds: float) -> dict[str, Any]:
    """The evaluation's figures by MEASURES' names."""
    successes = sum(result.info.success for result in results)
    steps = sum(result.steps for result in results)
    periods = sum(result.periods for result in results)
    failures = Counter(result.info.outcome for result in results if not result.info.success)
    low, high = wilson(successes, len(results))
    return {
        "env": request.env.id,
        "policy": request.policy,
        "backend": backend,
        "mode": request.options.get("mode") if backend == "ros2" else None,
        "episodes": len(results),
        "successes": successes,
        "success_rate": successes / len(results) if results else 0.0,
        "success_ci95": [low, high],
        "failures": dict(sorted(failures.items())),
        "steps_mean": steps / len(results) if results else 0.0,
        "steps_per_s": steps / seconds,
        "latency_ms": percentiles([value for result in results for value in result.latency_ms]),
        "on_time_fraction": sum(result.on_time for result in results) / periods if periods else None,
        "seeds": [request.seed, request.seed + request.episodes - 1],
        "seconds": seconds,
        "machine": machine(),
    }


def print_evaluation(metrics: dict[str, Any]) -> None:
    """The evaluation as a table on the terminal."""
    low, high = metrics["success_ci95"]
    latency = metrics["latency_ms"]
    mode = f" ({metrics['mode']})" if metrics["mode"] else ""
    lines = {
        "policy": metrics["policy"],
        "environment": metrics["env"],
        "backend": metrics["backend"] + mode,
        "success": f"{metrics['success_rate']:.1%}  ({metrics['successes']} of {metrics['episodes']}; "
        f"95 % interval {low:.1%} to {high:.1%})",
        "failures": ", ".join(f"{kind}: {count}" for kind, count in metrics["failures"].items()) or "none",
        "steps, mean": f"{metrics['steps_mean']:.2f}  ({metrics['steps_per_s']:,.0f} steps a second of wall time)",
    }
    if latency["p50"] is not None:
        lines["latency"] = latency_line(latency)
    if metrics["on_time_fraction"] is not None:
        lines["on time"] = f"{metrics['on_time_fraction']:.2%} of control periods"
    lines["seeds"] = f"{metrics['seeds'][0]} to {metrics['seeds'][1]}"
    print_lines(lines)


@contextmanager
def progress(total: int, title: str) -> Iterator[Callable[[EpisodeResult], None]]:
    """A bar over episodes that shows the success so far; silent where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    won = 0
    with Progress(*columns, transient=True, disable=not Console().is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def advance(result: EpisodeResult) -> None:
            nonlocal won
            won += result.info.success
            done = result.index + 1
            bar.update(task, completed=done, description=f"{title} ({won / done:.0%} success)")

        yield advance


@contextmanager
def _recording(request: RolloutRequest, wanted: bool) -> Iterator[RolloutRequest]:
    """The request with a store to record to, a temporary one if it is only needed for films."""
    if request.record is not None or not wanted:
        yield request
        return
    folder = tempfile.mkdtemp(prefix="tandem-eval-")
    try:
        yield replace(request, record=Path(folder) / "episodes.zarr")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    out: Path, request: RolloutRequest, results: list[EpisodeResult], metrics: dict[str, Any], films: int
) -> None:
    from tandem_training.films import write_films
    from tandem_training.plots import plot_evaluation

    folder, plot = out / "films", out / "episodes.png"
    try:
        if films and request.record is not None:
            metrics["films"] = write_films(request.record, [result.info for result in results], folder, films)
        plot_evaluation(results, plot)
        write_json(out / METRICS, metrics)
    except BaseException:  # a full disk, Ctrl-C: all of it or nothing
        shutil.rmtree(folder, ignore_errors=True)
        plot.unlink(missing_ok=True)
        raise


def policy_loader(policy: str, device: str, threads: int, env: EnvSpec | None = None):
    """A loader of a policy for backends that run it in this process; None for the expert.

    ``env`` is what a baseline is wanted for; without it none is known.
    """
    if policy == EXPERT:
        return None

    return partial(_load_policy, policy, device, threads, env)


def _load_policy(policy: str, device: str, threads: int, env: EnvSpec | None):
    if env is not None and is_baseline(policy):
        from tandem_training.baselines import load_baseline

        return load_baseline(policy, env)
    import tandem_policies

    return tandem_policies.load(policy, device=device, threads=threads)
