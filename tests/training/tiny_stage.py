"""A stage of a few hundred parameters for the engine's tests; as a script it trains in a process of its own.

python tiny_stage.py OUT STEPS [kill|interrupt|nan STEP]
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tandem_policies.replacing import replacing_directory
from tandem_training.data import Order
from tandem_training.engine.hardware import cpu_threads, make_accelerator
from tandem_training.engine.loop import Engine
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages.base import Batch, Best, Shard, Stage

SETTINGS = {
    "max_steps": 24,
    "batch_size": 16,
    "accumulate": 2,
    "lr": 0.01,
    "schedule": "cosine",
    "warmup_steps": 3,
    "final_lr": 0.1,
    "weight_decay": 0.01,
    "decay_vectors": True,
    "groups": [],
    "freeze": [],
    "clip_norm": 1.0,
    "ema": 0.9,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "compile": False,
    "early_stop_after": None,
    "log_every": 3,
    "val_every": 6,
    "checkpoint_every": 5,
    "wandb": "off",
    "wandb_project": "tandem",
    "wandb_name": None,
    "prefetch": None,
    "threads": 1,
}

SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}


@dataclass(kw_only=True)
class TinyStage(Stage):
    """Regression with dropout; at optimizer step ``at`` it may kill its process, interrupt it, or break."""

    x: Tensor
    y: Tensor
    order: Order
    trouble: str = ""
    at: int = -1

    def batch(self, index: int, shard: Shard) -> Batch:
        if index == self.at * SETTINGS["accumulate"] and self.trouble in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.trouble])
        rows = torch.from_numpy(self.order(index))
        scale = float("nan") if self.trouble == "nan" and index == self.at * SETTINGS["accumulate"] else 1.0
        return {"x": self.x[rows] * scale, "y": self.y[rows]}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = nn.functional.mse_loss(self.module(batch["x"]), batch["y"])
        return loss, {"noise": torch.rand(())}

    def validate(self) -> dict[str, float]:
        return {"loss": float(nn.functional.mse_loss(self.module(self.x), self.y))}

    def save(self, folder: Path) -> None:
        with replacing_directory(folder) as fresh:
            save_file(self.module.state_dict(), fresh / "model.safetensors")


def make_stage(trouble: str = "", at: int = -1) -> TinyStage:
    torch.manual_seed(3)
    x = torch.randn(50, 8)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    order = Order(np.arange(50), SETTINGS["batch_size"], seed=3)
    return TinyStage(
        name="tiny", module=module, best=Best("loss"), x=x, y=x[:, :2].sin(), order=order, trouble=trouble, at=at
    )


def settings(**changes: object) -> TrainerSettings:
    return TrainerSettings.from_mapping({**SETTINGS, **changes})


def make_engine(out: Path, stage: TinyStage | None = None, seed: int = 3, **changes: object) -> Engine:
    out.mkdir(parents=True, exist_ok=True)
    made = settings(**changes)
    accelerator = make_accelerator("cpu", made.precision, "test")
    return Engine(stage or make_stage(), made, accelerator, out, seed=seed, started=time.time())


def train(out: Path, stage: TinyStage | None = None, seed: int = 3, **changes: object) -> dict[str, Tensor]:
    """The final weights of a training on one thread."""
    with cpu_threads(1):
        make_engine(out, stage, seed, **changes).fit()
    return load_file(out / "final" / "model.safetensors")


if __name__ == "__main__":
    train(Path(sys.argv[1]), make_stage(sys.argv[3], int(sys.argv[4])), max_steps=int(sys.argv[2]))
