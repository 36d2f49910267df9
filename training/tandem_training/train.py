"""`tandem train` as a function: one training into one folder, begun or resumed."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_training.engine.folder import CONFIG, drop_if_empty, holds_something, locked, replace_config
from tandem_training.engine.settings import TrainerSettings
from tandem_training.initial import adopted
from tandem_training.results import METRICS, machine, write_json
from tandem_training.resuming import check_same

WHERE = "tandem train"


@dataclass(frozen=True)
class TrainResult:
    """What a finished training left behind."""

    out: Path
    best: Path  # artifact with the best validation
    final: Path  # artifact after the last step
    metrics: dict[str, Any]  # as in metrics.json


def run(
    config: Any, started: float | None = None, again: str | None = None, overrides: Sequence[str] | None = None
) -> TrainResult:
    """Trains what ``compose("train", [...])`` describes, and shows its progress.

    Args:
        config: the composed configuration.
        started: ``time.time()`` from which the first step is timed; now, if None.
        again: the command that goes on after a Ctrl-C, but for ``out=...``; None: there is none to tell.
        overrides: what ``config`` was composed from, for ``init``: see :func:`tandem_training.initial.adopted`.

    Raises:
        TandemError: bad configuration or data, an output folder in use or not empty, or a loss that is not finite.
        KeyboardInterrupt: Ctrl-C (SystemExit: SIGTERM); ``last`` is written, and ``resume=true`` goes on from there.
    """
    from omegaconf import OmegaConf

    started = time.time() if started is None else started
    settings = TrainerSettings.from_mapping(OmegaConf.to_container(config.trainer))  # type: ignore[arg-type]
    if not isinstance(config.seed, int) or isinstance(config.seed, bool) or not 0 <= config.seed < 2**63:
        raise TandemError(f"{WHERE}: seed is {config.seed!r} (allowed: a whole number, at least 0)")
    config = adopted(config, overrides)
    out = _out(config)
    first = os.environ.get("RANK", "0") == "0"  # of several processes one owns the folder
    if first and holds_something(out) and not config.resume:
        raise TandemError(f"{WHERE}: out={out} is not empty (allowed: a new or empty folder, or resume=true)")

    from tandem_training.engine.hardware import cpu_threads, make_accelerator

    accelerator = make_accelerator(str(config.device), settings.precision, WHERE)
    with ExitStack() as stack:
        if first:
            stack.enter_context(locked(out, WHERE))
            stack.callback(drop_if_empty, out)
        threads = stack.enter_context(cpu_threads(settings.threads))
        try:
            return _train(config, settings, accelerator, out, threads, started, f"{again} out={out}" if again else "")
        except OSError as error:  # the disk is full, a folder was taken away, a store may not be read
            raise TandemError(f"{WHERE}: {_named(error)}") from error


def _train(
    config: Any, settings: TrainerSettings, accelerator: Any, out: Path, threads: int, started: float, again: str
) -> TrainResult:
    from tandem_training.engine.loop import BEST, FINAL, Engine
    from tandem_training.stages import build_stage

    if config.resume:
        check_same(config, out, accelerator.is_main_process)
    stage = build_stage(config, settings)
    engine = Engine(stage, settings, accelerator, out, config.seed, started)
    tracker = None
    if accelerator.is_main_process:
        facts = engine.facts()
        print(f"{_size(facts)} on {facts['device']} ({facts['precision']}); out={out}")
        print("\n".join(stage.notes))
        tracker = _begin(config, settings, out)
        if facts["steps"] < settings.max_steps:
            (out / METRICS).unlink(missing_ok=True)  # of a shorter run: this one is not finished
    engine.fit(tracker, f"{again} goes on from there" if again else "")
    metrics = {"stage": stage.name, "policy": config.policy.type, "seed": config.seed, **engine.facts()}
    metrics |= {"threads": threads, **stage.facts, "machine": machine()}
    if accelerator.is_main_process:
        write_json(out / METRICS, metrics)
        print(_summary(metrics, out / BEST))
    return TrainResult(out, out / BEST, out / FINAL, metrics)


def _begin(config: Any, settings: TrainerSettings, out: Path) -> Any:
    """Writes the configuration and opens the tracker; if that fails, a new folder is left as it was found."""
    from omegaconf import OmegaConf

    from tandem_training.engine.tracking import open_wandb

    new = not (out / CONFIG).exists()
    replace_config(out, OmegaConf.to_yaml(config, resolve=True))
    try:
        opened = open_wandb(settings, out, OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    except TandemError:
        if new:
            (out / CONFIG).unlink()
            shutil.rmtree(out / "wandb", ignore_errors=True)
        raise
    if opened is None:
        return None
    tracker, line = opened
    print(line)
    return tracker


def _size(facts: dict[str, Any]) -> str:
    count, trained = facts["parameters"], facts["parameters_trained"]
    return f"{count:,} parameters" if trained == count else f"{count:,} parameters ({trained:,} trained)"


def _summary(metrics: dict[str, Any], best: Path) -> str:
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics["best"]["val"].items())
    spent = f"{metrics['steps']} steps in {metrics['seconds']:.1f} s on {metrics['device']}"
    waited = f"input {metrics['wait_fraction']:.1%} of a step"
    return f"{spent} ({waited}); best at step {metrics['best']['step']}: {shown}\npolicy: {best}"


def _out(config: Any) -> Path:
    if config.out:
        return Path(str(config.out))
    if config.resume:
        raise TandemError(f"{WHERE}: resume=true needs the folder to go on in: out=... (--resume takes the newest)")
    return Path("outputs/train") / f"{config.policy.type}-{datetime.now():%Y%m%d-%H%M%S}"


def _named(error: OSError) -> str:
    named = f"{error.filename}: " if error.filename is not None else ""
    return " ".join(f"{named}{error.strerror or error}".split())
