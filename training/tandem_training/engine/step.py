"""One optimizer step: micro-batches, precision, clipping, rates and the moving average."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tandem_datasets.errors import TandemError
from tandem_training.engine.optim import AdamW, Ema
from tandem_training.engine.parameters import select
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages.base import Batch, Stage

_SMALLEST_SCALE = 2.0**-14  # of fp16's gradients; a healthy training never comes near it


class _Objective(nn.Module):
    """The stage's loss as a forward pass, which is what accelerate (DDP, autocast) and torch.compile wrap."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self._loss = stage.loss

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch)


class Optimization:
    """The optimizer of a stage's module, and all that a step does to it.

    Args:
        stage: its module is moved to the device; parameters that the settings freeze lose their gradients.
        settings: the trainer's.
        accelerator: device, precision and processes.

    Raises:
        TandemError: a pattern matches nothing, or the module or the machine cannot do what the settings ask for.
    """

    def __init__(self, stage: Stage, settings: TrainerSettings, accelerator: Accelerator) -> None:
        self._stage, self._settings, self._accelerator = stage, settings, accelerator
        if settings.gradient_checkpointing:
            _enable_checkpointing(stage)
        if settings.compile:
            _require_compiler(accelerator.device)
        trained = select(stage.module, settings)
        self._frozen, self._peaks, self._parameters = trained.frozen, trained.peaks, trained.parameters
        objective = _Objective(stage).to(accelerator.device)
        fused = accelerator.device.type in ("cpu", "cuda")
        self._optimizer: Any = AdamW(trained.groups, lr=settings.lr, fused=fused or None)
        # The module is where it belongs; asking accelerate to see to it would import sharded tensors, 2 s.
        # Its optimizer searches the disk for a package at every step, so that ours stays bare.
        objective = accelerator.prepare(objective, device_placement=[False])
        if settings.compile:
            objective.compile()  # in place: the module's names stay as they are
        self._objective = objective
        self._scaler = accelerator.scaler
        self._ema = Ema(self._parameters, settings.ema) if settings.ema else None
        counted = settings.accumulate > 1 or accelerator.num_processes > 1
        self._weighs = counted and type(stage).weight is not Stage.weight

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        return sum(value.numel() for value in self._parameters)

    def train_mode(self) -> None:
        """Training mode, except for what is frozen."""
        self._objective.train()
        for module in self._frozen:
            module.eval()

    def step(self, step: int, take: Callable[[int], Batch]) -> dict[str, Tensor]:
        """Optimizer step ``step`` (from 0) on the micro-batches that ``take`` gives by index.

        Returns:
            Detached scalars: ``loss``, what the stage logs, and ``grad_norm`` before clipping; where fp16's gradients
            overflowed that is not finite, and the weights stayed as they were.
        """
        factor, count = self._settings.rate_factor(step), self._settings.accumulate
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        scalars: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for micro in range(count):
            batch = take(step * count + micro)
            synced = micro == count - 1
            with nullcontext() if synced else self._accelerator.no_sync(self._objective):
                loss, logged = self._objective(batch)
                share = self._stage.weight(batch) / count if self._weighs else 1 / count
                self._backward(loss * share if count > 1 or self._weighs else loss)
            for name, value in {"loss": loss.detach(), **logged}.items():
                part = value.detach().float() * share
                scalars[name] = scalars[name] + part if name in scalars else part
            total = total + share
        if self._weighs:
            whole = self._whole(total)
            torch._foreach_div_([value.grad for value in self._parameters if value.grad is not None], whole)
            scalars = {name: value / whole for name, value in scalars.items()}
        scalars["grad_norm"] = self._update().float()
        if self._ema:
            self._ema.update(step)
        return scalars

    def check_scale(self) -> None:
        """Raises TandemError if fp16's gradients have overflowed for so long that it will not end."""
        if self._scaler is not None and self._scaler.get_scale() < _SMALLEST_SCALE:
            raise TandemError(
                "train: fp16: every gradient overflows, however small it is scaled (allowed: trainer.precision=bf16 or "
                f"fp32, or a smaller trainer.lr than {self._settings.lr:g})"
            )

    @property
    def may_skip(self) -> bool:
        """Whether a gradient that is not finite only means that the step was left out."""
        return self._scaler is not None

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module carries the averaged weights inside the block, where there are any."""
        with self._ema.applied() if self._ema else nullcontext():
            yield

    def state(self) -> dict[str, Any]:
        """What the next step depends on besides the module's own weights."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "ema": self._ema.average if self._ema else None,
            "scaler": self._scaler.state_dict() if self._scaler else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes :meth:`state` back; RuntimeError, ValueError, KeyError or TypeError if it is another's."""
        self._optimizer.load_state_dict(state["optimizer"])
        if self._ema:
            self._ema.load(state["ema"])
        if self._scaler:
            self._scaler.load_state_dict(state["scaler"])

    def eval_mode(self) -> None:
        self._objective.eval()

    def _backward(self, loss: Tensor) -> None:
        if self._scaler:
            self._scaler.scale(loss).backward()
        else:
            loss.backward()

    def _whole(self, total: Tensor | float) -> Tensor:
        """What all micro-batches of a process weigh together, on average over the processes, as DDP averages."""
        weight = torch.as_tensor(total, device=self._accelerator.device).clamp(min=1e-12)
        return self._accelerator.reduce(weight, "mean") if self._accelerator.num_processes > 1 else weight

    def _update(self) -> Tensor:
        """Clips, steps and clears; the gradient's norm, of which at most ``clip_norm`` was left."""
        limit = self._settings.clip_norm or float("inf")
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm


def _enable_checkpointing(stage: Stage) -> None:
    enable = getattr(stage.module, "gradient_checkpointing_enable", None)
    if enable is None:
        name = type(stage.module).__name__
        raise TandemError(f"trainer.gradient_checkpointing is true, but {name} cannot do it (allowed: false)")
    enable()


def _require_compiler(device: torch.device) -> None:
    """torch.compile makes C++ for a CPU (and the host's side of a GPU's kernels)."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if not shutil.which(name):
        raise TandemError(f"trainer.compile: no C++ compiler: {name} (allowed: install one, set CXX, or compile=false)")
