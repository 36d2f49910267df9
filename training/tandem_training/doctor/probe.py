"""Prints facts about the GPU and about a short training as lines of JSON: ``python -m tandem_training.doctor.probe``.

The training is a real one (recorded episodes, the engine, a checkpoint), in a temporary folder.
"""

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tandem_training import cli

POLICY = "tinyvla/nano"
_WARM_UP, _MOST = 3, 60  # steps
_BUDGET_S = 2.5  # for the timed steps, as far as the slow first ones can tell


def gpu() -> dict[str, Any]:
    """What torch can compute on besides the CPU."""
    import torch

    facts: dict[str, Any] = {"name": "", "device": "cpu", "torch": torch.__version__, "cuda": torch.version.cuda}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts |= {"name": card.name, "device": "cuda", "memory_bytes": card.total_memory, "driver": _driver()}
        facts["count"] = torch.cuda.device_count()
    elif torch.backends.mps.is_available():
        facts |= {"name": "Apple GPU", "device": "mps"}
    return facts


def _driver() -> str:
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def training() -> dict[str, Any]:
    """Seconds of one step, and of all steps of ``preset=full``."""
    from tandem_training.config import compose, quoted
    from tandem_training.train import run

    full = [f"policy={POLICY}", "preset=full"]
    planned = compose("train", full).trainer
    with tempfile.TemporaryDirectory(prefix="tandem-doctor-") as folder:
        demos = f"{folder}/demos.zarr"
        with redirect_stdout(io.StringIO()):
            status = cli.main(["collect", "env=blockfind", "episodes=16", f"out={quoted(demos)}"])
        if status:
            raise SystemExit(status)
        full.append(f"data={quoted(demos)}")
        warm = _train(run, [*full, f"out={quoted(f'{folder}/warm')}"], _WARM_UP)
        steps = max(_WARM_UP, min(_MOST, round(_BUDGET_S * _WARM_UP / warm["seconds"])))
        metrics = _train(run, [*full, f"out={quoted(f'{folder}/timed')}"], steps)
    step_s = metrics["seconds"] / steps
    return {
        "policy": POLICY,
        "max_steps": planned.max_steps,
        "batch_size": planned.batch_size,
        "device": metrics["device"],
        "step_ms": 1e3 * step_s,
        "estimate_s": step_s * planned.max_steps,
    }


def _train(run: Callable, overrides: list[str], steps: int) -> dict[str, Any]:
    """The metrics of a training of ``steps`` that does nothing else before its end."""
    from tandem_training.config import compose

    once = [f"trainer.{name}={steps}" for name in ("max_steps", "log_every", "val_every", "checkpoint_every")]
    with redirect_stdout(io.StringIO()):
        return run(compose("train", [*overrides, *once])).metrics


if __name__ == "__main__":
    print(json.dumps({"gpu": gpu()}), flush=True)
    print(json.dumps({"training": training()}), flush=True)
