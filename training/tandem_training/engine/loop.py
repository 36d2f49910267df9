"""The loop itself: every stage is trained by it."""

import time
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from tandem_datasets.errors import TandemError
from tandem_training.engine.checkpoint import Progress, read_checkpoint, write_checkpoint
from tandem_training.engine.feed import Feed, Spent
from tandem_training.engine.folder import LAST, recover
from tandem_training.engine.interrupts import Interrupts
from tandem_training.engine.report import Report
from tandem_training.engine.settings import TrainerSettings
from tandem_training.engine.step import Optimization
from tandem_training.engine.tracking import Tracker
from tandem_training.stages.base import Shard, Stage

BEST, FINAL = "best", "final"


class _Draw(IntEnum):
    """What randomness is drawn for; keeps the streams of one seed apart."""

    LOSS = 1
    VALIDATION = 2
    PICTURES = 3


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
        TandemError: a checkpoint lies in ``out`` that does not fit or that not all processes see, or the settings do
            not fit the module or the number of processes.
    """

    def __init__(
        self, stage: Stage, settings: TrainerSettings, accelerator: Accelerator, out: Path, seed: int, started: float
    ) -> None:
        self.stage, self.settings, self.out = stage, settings, out
        self._accelerator, self._seed, self._started = accelerator, seed, started
        self._shard = Shard(accelerator.process_index, accelerator.num_processes)
        if settings.batch_size % self._shard.world:
            raise TandemError(
                f"trainer.batch_size is {settings.batch_size} on {self._shard.world} processes "
                f"(allowed: a multiple of {self._shard.world})"
            )
        self._optimization = Optimization(stage, settings, accelerator)
        self._names: list[str] = []  # of the window's columns
        self._window: list[Tensor] = []  # scalars of the steps since the last point of the curves
        self._spent = Spent()
        self._ran_out = False  # of patience: no validation was better for long
        self._fresh = True  # no step was done in this process
        self.progress = Progress()
        self._restore()
        self._check_together()

    def fit(self, tracker: Tracker | None = None, hint: str = "") -> Progress:
        """Trains to the last step, or until nothing improves, and writes ``last``, ``best`` and ``final``.

        Args:
            tracker: gets the curves and pictures too; the main process's alone, and closed here.
            hint: how to go on, said when a signal stops the training.

        Raises:
            TandemError: the loss is not finite.
            KeyboardInterrupt: Ctrl-C (SystemExit: SIGTERM); ``last`` is written, training resumes from there.
        """
        progress, settings = self.progress, self.settings
        main = self._accelerator.is_main_process
        report = Report(self.out if main else None, self.stage.name, progress.step, settings.max_steps, tracker)
        if progress.step:
            report.note(f"resumed from {self.out / LAST} at step {progress.step}/{settings.max_steps}")
        feed = self._feed()
        before, begun, whole = progress.seconds, time.perf_counter(), False
        self._optimization.train_mode()
        try:
            with Interrupts() as interrupts:
                while not self._ended:
                    self._train_step(feed)
                    progress.seconds = before + time.perf_counter() - begun
                    report.advance(progress.step)
                    if not progress.first_step_s:
                        self._note_first_step(report)
                    stop = self._all_agree(bool(interrupts.asked))
                    self._duties(report, stop)
                    if stop and not self._ended:
                        report.note(f"stopped at step {progress.step}{f'; {hint}' if hint else ''}")
                        interrupts.unwind()
                self._publish(FINAL)
                if self._all_agree(bool(interrupts.asked)):  # during the last step's work
                    interrupts.unwind()
            whole = True
        finally:
            feed.close()
            report.close(failed=not whole)
        return progress

    @property
    def _ended(self) -> bool:
        return self.progress.step >= self.settings.max_steps or self._ran_out

    def _feed(self) -> Feed:
        settings, device = self.settings, self._accelerator.device
        end = settings.max_steps * settings.accumulate
        return Feed(lambda index: self.stage.batch(index, self._shard), device, settings.prefetch, end)

    def _train_step(self, feed: Feed) -> None:
        begun, feed.waited = time.perf_counter(), 0.0
        step = self.progress.step
        self._seed_torch(_Draw.LOSS, step)
        scalars = self._optimization.step(step, feed.take)
        self._names = list(scalars)
        self._window.append(torch.stack([value.to(self._accelerator.device) for value in scalars.values()]))
        self.progress.step = step + 1
        if not self._fresh:  # the first one loads libraries, or compiles
            self._spent.add(feed.waited, time.perf_counter() - begun)
        self._fresh = False

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
            self._point(report, means)
        if validate:
            self._validate(report)
        if self._ran_out and not point:
            self._point(report, means)
        if save or self._ran_out:
            self._checkpoint()

    def _point(self, report: Report, means: dict[str, float]) -> None:
        timed = self._spent.flush(self.progress)
        report.point(self.progress.step, {**means, "lr": self.settings.learning_rate(self.progress.step - 1), **timed})
        self._window.clear()

    def _means(self) -> dict[str, float]:
        """The window's means; raises TandemError on the first step whose loss or gradient is not finite.

        Checked here and not at every step, since reading a scalar waits for the device; every checkpoint comes
        after a check.
        """
        begun = time.perf_counter()
        rows = torch.stack(self._window)
        rows = self._accelerator.reduce(rows, "mean") if self._shard.world > 1 else rows
        table = rows.cpu().double()
        self._spent.add(0.0, time.perf_counter() - begun, steps=0)  # where a GPU's steps are waited for
        finite = torch.isfinite(table[:, [self._names.index("loss"), self._names.index("grad_norm")]])
        skips = self._optimization.may_skip
        bad = (~(finite[:, 0] if skips else finite.all(1))).nonzero().flatten().tolist()
        if bad:
            raise self._not_finite(table, bad[0])
        means = dict(zip(self._names, table.mean(0).tolist(), strict=True))
        if skips:
            self._optimization.check_scale()
            norms = table[finite[:, 1], self._names.index("grad_norm")]
            means |= {"grad_norm": float(norms.mean()) if len(norms) else 0.0, "skipped": 1 - len(norms) / len(table)}
        return means

    def _not_finite(self, table: Tensor, row: int) -> TandemError:
        at = self.progress.step - len(table) + row + 1
        loss, norm = (float(table[row, self._names.index(name)]) for name in ("loss", "grad_norm"))
        kept = f"{self.out / LAST} is kept" if (self.out / LAST).is_dir() else "no checkpoint was written yet"
        return TandemError(
            f"train: loss {loss:g}, gradient norm {norm:g} at step {at}; stopped, {kept} "
            f"(a smaller trainer.lr than {self.settings.lr:g} may help)"
        )

    def _validate(self, report: Report) -> None:
        progress = self.progress
        self._optimization.eval_mode()
        with self._optimization.averaged(), torch.no_grad(), self._accelerator.autocast():
            self._seed_torch(_Draw.VALIDATION, 0)
            progress.val = self.stage.validate()
            self._seed_torch(_Draw.PICTURES, 0)
            pictures = self.stage.pictures()
        self._optimization.train_mode()
        if not np.isfinite(list(progress.val.values())).all():
            raise TandemError(f"train: validation at step {progress.step} is not finite: {progress.val}")
        is_best = self.stage.best.better(progress.val, progress.best)
        progress.stale = 0 if is_best else progress.stale + 1
        if is_best:
            progress.best, progress.best_step = dict(progress.val), progress.step
            self._publish(BEST)
        report.validation(progress.step, progress.val, is_best)
        report.pictures(progress.step, pictures)
        self._ran_out = self._all_agree(self._out_of_patience())
        if self._ran_out and progress.step < self.settings.max_steps:
            metric = self.stage.best.metric
            report.note(f"{metric} has not improved in {progress.stale} validations: training ends here")

    def _checkpoint(self) -> None:
        if not self._accelerator.is_main_process:
            return
        tensors = {
            "module": self.stage.module.state_dict(),
            **self._optimization.state(),
            "names": self._names,
            "window": [row.cpu() for row in self._window],
            "fingerprint": dict(self.stage.fingerprint),
        }
        write_checkpoint(self.out, self.progress, tensors, self.stage.assets)

    def _publish(self, name: str) -> None:
        if self._accelerator.is_main_process:
            with self._optimization.averaged():
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
                raise TandemError(
                    f"train: resume: the content of {key} has changed since {self.out} was begun, or its split"
                )
        try:
            self.stage.module.load_state_dict(tensors["module"])
            self._optimization.restore(tensors)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise TandemError(f"{self.out / LAST}: does not fit this training ({reason})") from error
        self._names = tensors["names"]
        self._window = [row.to(self._accelerator.device) for row in tensors["window"]]
        self.progress = progress
        self._ran_out = self._out_of_patience()

    def _check_together(self) -> None:
        """Raises TandemError unless all processes found the same checkpoint: machines must share ``out``."""
        if self._shard.world == 1:
            return
        step = torch.tensor([self.progress.step], device=self._accelerator.device)
        steps = self._accelerator.gather(step).tolist()
        if len(set(steps)) > 1:
            found = ", ".join(map(str, sorted(set(steps))))
            raise TandemError(
                f"train: resume: the processes would go on from different steps ({found}) of {self.out} "
                "(allowed: one folder that all machines share)"
            )

    def _out_of_patience(self) -> bool:
        most = self.settings.early_stop_after
        return most is not None and self.progress.stale >= most

    def _seed_torch(self, draw: _Draw, step: int) -> None:
        """Fixes everything random in what follows by seed, purpose, step and process."""
        words = [self._seed, int(draw), step, self._shard.rank]
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        device = self._accelerator.device.type  # torch.manual_seed would also prepare what is not there, 0.3 ms a step
        if device != "cpu":
            getattr(torch, device).manual_seed(seed)

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
        """The figures of ``metrics.json`` that the engine knows; ``input_s`` and ``step_s`` are means per step."""
        progress, accelerator = self.progress, self._accelerator
        timed = max(1, progress.timed_steps)
        return {
            "steps": progress.step,
            "stopped_early": progress.step < self.settings.max_steps,
            "seconds": round(progress.seconds, 3),
            "first_step_s": progress.first_step_s,
            "input_s": progress.input_s / timed,
            "step_s": progress.step_s / timed,
            "wait_fraction": progress.input_s / progress.step_s if progress.step_s else 0.0,
            "device": accelerator.device.type,
            "precision": self.settings.precision,
            "processes": accelerator.num_processes,
            "parameters": sum(value.numel() for value in self.stage.module.parameters()),
            "parameters_trained": self._optimization.trained,
            "val": progress.val,
            "best": {"step": progress.best_step, "val": progress.best, **vars(self.stage.best)},
        }
