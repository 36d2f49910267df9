"""What the engine costs beside the training itself, and how long its steps wait for their batches."""

import copy
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tandem_training.benches._measuring import median_row
from tandem_training.config import compose, quoted
from tandem_training.engine.hardware import cpu_threads, make_accelerator
from tandem_training.engine.loop import Engine
from tandem_training.engine.settings import TrainerSettings
from tandem_training.results import Row
from tandem_training.stages import build_stage
from tandem_training.stages.base import Batch, Best, Shard, Stage

STATIC = ("data=blockfind_static", "preset=static")
_BATCHES = 32  # made before anything is timed, and used again and again
_TURN, _TURNS = 5, 6  # steps on either side before the other's turn; turns of one repeat
_WAIT_STEPS = 60


def train_overhead(repeats: int, overrides: Sequence[str] = STATIC) -> Row:
    """The time of an engine's steps over that of a bare torch loop with the same network and batches.

    Both take turns of a few steps within one process. The engine's side holds all that it does between two
    validations: seeds, schedule, curves, progress. The bare side is zero_grad, loss, backward, clipping, AdamW.

    Args:
        repeats: ratios to take the median of.
        overrides: of `tandem train`: data, policy and trainer.
    """
    config, settings, stage = _built(overrides)
    batches = [stage.batch(index, Shard()) for index in range(_BATCHES)]
    warm = 2 * max(settings.log_every, _TURN)  # the first point of the curves imports TensorBoard
    steps = warm + repeats * _TURNS * _TURN + 1
    accelerator = make_accelerator(str(config.device), settings.precision, "train_overhead")
    # Without a thread that makes batches ahead: the turns change when a batch is asked for.
    once = {"max_steps": steps, "val_every": steps, "checkpoint_every": steps, "accumulate": 1, "prefetch": 0}
    settings = TrainerSettings(**{**vars(settings), **once})
    bare = _Bare(copy.deepcopy(stage.module), settings, [_moved(batch, accelerator.device) for batch in batches])
    turns = _Turns(
        name="turns", module=stage.module, best=Best("loss"), inner=stage, batches=batches, bare=bare, warm=warm
    )
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, cpu_threads(settings.threads) as threads:
        engine = Engine(turns, settings, accelerator, Path(folder), seed=0, started=time.time())
        with redirect_stdout(io.StringIO()):
            engine.fit()
    sums = [[sum(one[at : at + _TURNS]) for at in range(0, repeats * _TURNS, _TURNS)] for one in turns.seconds]
    ratios = [engine_s / bare_s for engine_s, bare_s in zip(*sums, strict=True)]
    mine, reference = (1e3 * statistics.median(one) / (_TURN * _TURNS) for one in sums)
    where = f"{accelerator.device.type}, {threads} threads" if accelerator.device.type == "cpu" else "a GPU"
    row = median_row(ratios, f"{mine:.2f} ms a step, bare {reference:.2f} ms ({where}, {settings.precision})")
    return Row("", row.value, reference=1.0, ratio=row.value, repeats=row.repeats, note=row.note)


def wait_fraction(repeats: int, overrides: Sequence[str] = STATIC) -> Row:
    """The share of the steps' time that goes into waiting for batches, of short trainings with the default trainer."""
    from tandem_training.train import run

    found, per_step = [], []
    brief = [f"trainer.{name}={_WAIT_STEPS}" for name in ("max_steps", "val_every", "checkpoint_every")]
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, redirect_stdout(io.StringIO()):
            metrics = run(compose("train", [*overrides, *brief, f"out={quoted(Path(folder) / 'out')}"])).metrics
        found.append(metrics["wait_fraction"])
        per_step.append(metrics["input_s"])
    return median_row(found, f"{1e3 * statistics.median(per_step):.2f} ms of input a step, {_WAIT_STEPS} steps each")


def _built(overrides: Sequence[str]) -> tuple[Any, TrainerSettings, Stage]:
    from omegaconf import OmegaConf

    config = compose("train", overrides)
    settings = TrainerSettings.from_mapping(OmegaConf.to_container(config.trainer))  # type: ignore[arg-type]
    return config, settings, build_stage(config, settings)


def _moved(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


class _Bare:
    """The reference: what a training loop of torch cannot do without."""

    def __init__(self, module: Any, settings: TrainerSettings, batches: Sequence[Batch]) -> None:
        self._module = module.to(batches[0]["action"].device).train()
        self._batches, self._limit, self._step = batches, settings.clip_norm, 0
        self._parameters = [value for value in self._module.parameters() if value.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            batch = self._batches[self._step % len(self._batches)]
            self._optimizer.zero_grad()
            self._module.loss(batch)[0].backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._limit)
            self._optimizer.step()
            self._step += 1


@dataclass(kw_only=True)
class _Turns(Stage):
    """A stage with batches made ahead, which lets the bare loop run whenever it is that one's turn."""

    inner: Stage
    batches: Sequence[Batch]
    bare: _Bare
    warm: int  # steps before the first turn that counts
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))  # of the engine's, of the bare
    _since: float = 0.0

    def batch(self, index: int, shard: Shard) -> Batch:
        if index % _TURN == 0:
            self._pass_on(index)
        return self.batches[index % len(self.batches)]

    def _pass_on(self, index: int) -> None:
        mine, other = self.seconds
        if index > self.warm:
            mine.append(_now() - self._since)
        begun = _now()
        self.bare.run(_TURN)
        self._since = _now()
        if index >= self.warm:
            other.append(self._since - begun)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inner.loss(batch)

    def validate(self) -> dict[str, float]:
        return {"loss": 0.0}

    def save(self, folder: Path) -> None:
        """Nothing is kept."""


def _now() -> float:
    """The clock, when a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
