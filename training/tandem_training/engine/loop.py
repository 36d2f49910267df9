"""The loop itself: every stage is trained by it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn

from tandem_datasets.errors import TandemError
from tandem_training.engine.checkpoint import LAST, Progress, read_checkpoint, write_checkpoint
from tandem_training.engine.folder import recover
from tandem_training.engine.interrupts import Interrupts
from tandem_training.engine.optim import AdamW, Ema
from tandem_training.engine.report import Report
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages.base import Batch, Shard, Stage

BEST, FINAL = "best", "final"
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class _Draw(IntEnum):
    """What randomness is drawn for; keeps the streams of one seed apart."""

    LOSS = 1
    VALIDATION = 2


class _Objective(nn.Module):
    """The stage's loss as a forward pass, which is what accelerate (DDP, autocast) wraps."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self._loss = stage.loss

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch)


class Engine:
    """Trains one stage into one folder, from its last checkpoint if there is one.

    Args:
        stage: what to train; its module is moved to the device.
        settings: the trainer's.
        accelerator: device, precision and processes.
        out: a locked folder.
        seed: of everything random.
        started: ``time.time()`` of the command's start, for the time to the first step.

    Raises:
        TandemError: a checkpoint lies in ``out`` that does not fit.
    """

    def __init__(
        self, stage: Stage, settings: TrainerSettings, accelerator: Accelerator, out: Path, seed: int, started: float
    ) -> None:
        self.stage, self.settings, self.out = stage, settings, out
        self._accelerator, self._seed, self._started = accelerator, seed, started
        self._shard = Shard(accelerator.process_index, accelerator.num_processes)
        objective = _Objective(stage).to(accelerator.device)
        fused = accelerator.device.type in ("cpu", "cuda")
        rows = [value for value in stage.module.parameters() if value.requires_grad]
        optimizer = AdamW(rows, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused or None)
        # the module is where it belongs; asking accelerate to see to it would import sharded tensors and sympy, 2 s
        placed = [False, False] if accelerator.distributed_type not in _SHARDED else None
        self._objective, self._optimizer = accelerator.prepare(objective, optimizer, device_placement=placed)
        self._ema = Ema(rows, settings.ema) if settings.ema else None
        self._parameters = rows
        self._names: list[str] = []  # of the window's columns
        self._window: list[Tensor] = []  # scalars of the steps since the last point of the curves
        self.progress = Progress()
        self._restore()

    def fit(self) -> Progress:
        """Trains to the last step and writes ``last``, ``best`` and ``final``.

        Raises:
            TandemError: the loss is not finite.
            KeyboardInterrupt: Ctrl-C (SystemExit: SIGTERM); ``last`` is written, training resumes from there.
        """
        progress, settings = self.progress, self.settings
        main = self._accelerator.is_main_process
        report = Report(self.out if main else None, self.stage.name, progress.step, settings.max_steps)
        if progress.step:
            report.note(f"resumed from {self.out / LAST} at step {progress.step}/{settings.max_steps}")
        before, begun = progress.seconds, time.perf_counter()
        try:
            with Interrupts() as interrupts:
                while progress.step < settings.max_steps:
                    self._train_step()
                    progress.seconds = before + time.perf_counter() - begun
                    report.advance(progress.step)
                    if not progress.first_step_s:
                        self._note_first_step(report)
                    stop = self._all_agree(bool(interrupts.asked))
                    self._duties(report, stop)
                    if stop and progress.step < settings.max_steps:
                        report.note(f"stopped at step {progress.step}; resume=true out={self.out} goes on from there")
                        interrupts.unwind()
                self._publish(FINAL)
                if self._all_agree(bool(interrupts.asked)):  # during the last step's work
                    interrupts.unwind()
        finally:
            report.close()
        return progress

    def _train_step(self) -> None:
        step, settings = self.progress.step, self.settings
        self._objective.train()
        self._seed_torch(_Draw.LOSS, step)
        rate = settings.learning_rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        scalars: dict[str, Tensor] = {}
        for micro in range(settings.accumulate):
            batch = self._to_device(self.stage.batch(step * settings.accumulate + micro, self._shard))
            last = micro == settings.accumulate - 1
            with nullcontext() if last else self._accelerator.no_sync(self._objective):
                loss, logged = self._objective(batch)
                self._accelerator.backward(loss / settings.accumulate)
            for name, value in {"loss": loss.detach(), **logged}.items():
                scalars[name] = scalars.get(name, 0) + value.detach().float() / settings.accumulate
        scalars["grad_norm"] = self._clip().float()
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._ema:
            self._ema.update(step)
        self._names = list(scalars)
        self._window.append(torch.stack([value.to(self._accelerator.device) for value in scalars.values()]))
        self.progress.step = step + 1

    def _clip(self) -> Tensor:
        """The gradient's norm, of which at most ``clip_norm`` is left."""
        limit = self.settings.clip_norm or float("inf")
        if self._accelerator.distributed_type in _SHARDED:
            return torch.as_tensor(self._accelerator.clip_grad_norm_(self._parameters, limit))
        # the same for whole gradients, and again without that import
        return torch.nn.utils.clip_grad_norm_(self._parameters, limit)

    def _duties(self, report: Report, stop: bool) -> None:
        """What is due after a step: a point of the curves, a validation, a checkpoint."""
        step, settings = self.progress.step, self.settings
        last = step == settings.max_steps
        point = last or step % settings.log_every == 0
        validate = last or step % settings.val_every == 0
        save = last or stop or step % settings.checkpoint_every == 0
        if not (point or validate or save):
            return
        means = self._means()
        if point:
            report.point(step, {**means, "lr": settings.learning_rate(step - 1)})
            self._window.clear()
        if validate:
            self._validate(report)
        if save:
            self._checkpoint()

    def _means(self) -> dict[str, float]:
        """The window's means; raises TandemError on the first step whose loss or gradient is not finite.

        Checked here and not at every step, since reading a scalar waits for the device; every checkpoint comes
        after a check.
        """
        rows = torch.stack(self._window)
        rows = self._accelerator.reduce(rows, "mean") if self._shard.world > 1 else rows
        table = rows.cpu().double()
        columns = [self._names.index("loss"), self._names.index("grad_norm")]
        bad = (~torch.isfinite(table[:, columns])).any(1).nonzero().flatten().tolist()
        if bad:
            at = self.progress.step - len(table) + bad[0] + 1
            loss, norm = table[bad[0], columns].tolist()
            kept = f"{self.out / LAST} is kept" if (self.out / LAST).is_dir() else "no checkpoint was written yet"
            raise TandemError(
                f"train: loss {loss:g}, gradient norm {norm:g} at step {at}; stopped, {kept} "
                f"(a smaller trainer.lr than {self.settings.lr:g} may help)"
            )
        return dict(zip(self._names, table.mean(0).tolist(), strict=True))

    def _validate(self, report: Report) -> None:
        progress = self.progress
        self._seed_torch(_Draw.VALIDATION, 0)
        self._objective.eval()
        with self._averaged(), torch.no_grad(), self._accelerator.autocast():
            progress.val = self.stage.validate()
        if not np.isfinite(list(progress.val.values())).all():
            raise TandemError(f"train: validation at step {progress.step} is not finite: {progress.val}")
        is_best = self.stage.best.better(progress.val, progress.best)
        if is_best:
            progress.best, progress.best_step = dict(progress.val), progress.step
            self._publish(BEST)
        report.validation(progress.step, progress.val, is_best)

    def _checkpoint(self) -> None:
        if not self._accelerator.is_main_process:
            return
        tensors = {
            "module": self.stage.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": self._ema.average if self._ema else None,
            "names": self._names,
            "window": [row.cpu() for row in self._window],
            "fingerprint": dict(self.stage.fingerprint),
        }
        write_checkpoint(self.out, self.progress, tensors)

    def _publish(self, name: str) -> None:
        if self._accelerator.is_main_process:
            with self._averaged():
                self.stage.save(self.out / name)

    def _restore(self) -> None:
        for name in (BEST, FINAL):
            recover(self.out / name)
        found = read_checkpoint(self.out)
        if found is None:
            return
        progress, tensors = found
        for key, content in self.stage.fingerprint.items():
            if tensors["fingerprint"].get(key) != content:
                raise TandemError(f"train: resume: the content of {key} has changed since {self.out} was begun")
        try:
            self.stage.module.load_state_dict(tensors["module"])
            self._optimizer.load_state_dict(tensors["optimizer"])
            if self._ema:
                self._ema.load(tensors["ema"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise TandemError(f"{self.out / LAST}: does not fit this training ({reason})") from error
        self._names = tensors["names"]
        self._window = [row.to(self._accelerator.device) for row in tensors["window"]]
        self.progress = progress

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with self._ema.applied() if self._ema else nullcontext():
            yield

    def _seed_torch(self, draw: _Draw, step: int) -> None:
        """Fixes everything random in what follows by seed, purpose, step and process."""
        words = [self._seed, int(draw), step, self._shard.rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))

    def _to_device(self, batch: Batch) -> dict[str, Tensor]:
        return {name: value.to(self._accelerator.device, non_blocking=True) for name, value in batch.items()}

    def _all_agree(self, wish: bool) -> bool:
        """Whether any process wishes to stop: they must stop after the same step."""
        if self._shard.world == 1:
            return wish
        vote = torch.tensor(float(wish), device=self._accelerator.device)
        return bool(self._accelerator.reduce(vote, "sum").item() > 0)

    def _note_first_step(self, report: Report) -> None:
        if self._accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self.progress.first_step_s = round(time.time() - self._started, 3)
        report.note(f"first step after {self.progress.first_step_s:.1f} s")

    def facts(self) -> dict[str, Any]:
        """The figures of ``metrics.json`` that the engine knows."""
        progress, accelerator = self.progress, self._accelerator
        return {
            "steps": progress.step,
            "seconds": round(progress.seconds, 3),
            "first_step_s": progress.first_step_s,
            "device": accelerator.device.type,
            "precision": self.settings.precision,
            "processes": accelerator.num_processes,
            "parameters": sum(value.numel() for value in self.stage.module.parameters()),
            "val": progress.val,
            "best": {"step": progress.best_step, "val": progress.best},
        }
