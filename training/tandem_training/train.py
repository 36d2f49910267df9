"""`tandem train` as a function: one training into one folder, begun or resumed."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_training.engine.folder import drop_if_empty, holds_something, locked
from tandem_training.engine.settings import TrainerSettings
from tandem_training.results import METRICS, machine, write_json

CONFIG = "config.yaml"
WHERE = "tandem train"
# A resumed run may differ in these: none of them changes what is learned. The data is compared by content.
_FREE = ("out", "resume", "data", "device", "trainer.log_every", "trainer.checkpoint_every", "trainer.threads")


@dataclass(frozen=True)
class TrainResult:
    """What a finished training left behind."""

    out: Path
    best: Path  # artifact with the best validation
    final: Path  # artifact after the last step
    metrics: dict[str, Any]  # as in metrics.json


def run(config: Any, started: float | None = None) -> TrainResult:
    """Trains what ``compose("train", [...])`` describes, and shows its progress.

    Args:
        config: the composed configuration.
        started: ``time.time()`` from which the first step is timed; now, if None.

    Raises:
        TandemError: bad configuration or data, an output folder in use or not empty, or a loss that is not finite.
        KeyboardInterrupt: Ctrl-C (SystemExit: SIGTERM); ``last`` is written, and ``resume=true`` goes on from there.
    """
    from omegaconf import OmegaConf

    started = time.time() if started is None else started
    settings = TrainerSettings.from_mapping(OmegaConf.to_container(config.trainer))  # type: ignore[arg-type]
    if not isinstance(config.seed, int) or isinstance(config.seed, bool) or not 0 <= config.seed < 2**63:
        raise TandemError(f"{WHERE}: seed is {config.seed!r} (allowed: a whole number, at least 0)")
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
            return _train(config, settings, accelerator, out, threads, started)
        except OSError as error:  # the disk is full, or the folder was taken away
            raise TandemError(f"{WHERE}: out={out}: {error.strerror or error}") from error


def _train(
    config: Any, settings: TrainerSettings, accelerator: Any, out: Path, threads: int, started: float
) -> TrainResult:
    from omegaconf import OmegaConf

    from tandem_training.engine.loop import BEST, FINAL, Engine
    from tandem_training.stages import build_stage

    if config.resume:
        _check_same(config, out, accelerator.is_main_process)
    stage = build_stage(config, settings)
    engine = Engine(stage, settings, accelerator, out, config.seed, started)
    if accelerator.is_main_process:
        facts = engine.facts()
        print(f"{facts['parameters']:,} parameters on {facts['device']} ({facts['precision']}); out={out}")
        print("\n".join(stage.notes))
        beside = out / f".{CONFIG}.new"
        OmegaConf.save(config, beside, resolve=True)
        beside.rename(out / CONFIG)
    engine.fit()
    metrics = {"stage": stage.name, "policy": config.policy.type, "seed": config.seed, **engine.facts()}
    metrics |= {"threads": threads, **stage.facts, "machine": machine()}
    if accelerator.is_main_process:
        write_json(out / METRICS, metrics)
        print(_summary(metrics, out / BEST))
    return TrainResult(out, out / BEST, out / FINAL, metrics)


def _summary(metrics: dict[str, Any], best: Path) -> str:
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics["best"]["val"].items())
    spent = f"{metrics['steps']} steps in {metrics['seconds']:.1f} s on {metrics['device']}"
    return f"{spent}; best at step {metrics['best']['step']}: {shown}\npolicy: {best}"


def _out(config: Any) -> Path:
    if config.out:
        return Path(str(config.out))
    if config.resume:
        raise TandemError(f"{WHERE}: resume=true needs the folder to go on in: out=...")
    return Path("outputs/train") / f"{config.policy.type}-{datetime.now():%Y%m%d-%H%M%S}"


def _check_same(config: Any, out: Path, speaks: bool) -> None:
    """Raises TandemError naming the first key in which a resumed run differs from its beginning."""
    from omegaconf import OmegaConf

    path = out / CONFIG
    if not holds_something(out):
        if speaks:
            print(f"nothing to resume in {out}: begins at step 0")
        return
    try:
        before = dict(_leaves(OmegaConf.to_container(OmegaConf.load(path))))
    except FileNotFoundError as error:
        raise TandemError(f"{WHERE}: out={out} is no training to resume (it has no {CONFIG})") from error
    except Exception as error:  # yaml and omegaconf raise families of their own
        raise TandemError(f"{path}: unreadable ({' '.join(str(error).split())[:120]})") from error
    now = dict(_leaves(OmegaConf.to_container(config, resolve=True)))
    for key in sorted(before.keys() | now.keys()):
        if key not in _FREE and not key.startswith("data") and before.get(key) != now.get(key):
            raise TandemError(
                f"{WHERE}: resume: {key} is {now.get(key)}, but {out} was begun with {before.get(key)} "
                "(allowed: the same)"
            )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
