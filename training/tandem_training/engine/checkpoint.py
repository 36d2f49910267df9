"""The resume folder ``last``: everything that the next step depends on, and what it must be resumed with."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tandem_datasets.errors import TandemError
from tandem_policies.replacing import replacing_directory
from tandem_training.engine.folder import LAST, recover

_TENSORS = "resume.pt"
_PROGRESS = "progress.json"


@dataclass
class Progress:
    """How far a training is. All randomness derives from the seed and the step, so there is none to keep."""

    step: int = 0  # optimizer steps done
    seconds: float = 0.0  # wall time spent on them, over all resumed runs
    first_step_s: float = 0.0  # command to first step, of the first run
    val: dict[str, float] = field(default_factory=dict)  # the newest validation
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)  # the best validation
    stale: int = 0  # validations since the best one
    input_s: float = 0.0  # of the steps' time, spent waiting for batches
    step_s: float = 0.0  # the time in steps alone, without validations and checkpoints
    timed_steps: int = 0  # steps that these two are the sums of; the first one of a run is left out


def write_checkpoint(
    out: Path, progress: Progress, tensors: Mapping[str, Any], assets: Mapping[str, str] | None = None
) -> None:
    """Replaces ``<out>/last``, with the texts ``assets`` by file name; a kill at any moment leaves the previous one."""
    try:
        with replacing_directory(out / LAST) as folder:
            torch.save(dict(tensors), folder / _TENSORS)
            (folder / _PROGRESS).write_text(json.dumps(asdict(progress), indent=2))
            for name, text in (assets or {}).items():
                (folder / name).write_text(text, "utf-8")
    except (OSError, RuntimeError) as error:  # torch's writer knows only RuntimeError
        reason = str(error).split("\n", 1)[0][:120]
        raise TandemError(f"{out / LAST}: cannot be written ({reason}); the previous one is kept") from error


def read_checkpoint(out: Path) -> tuple[Progress, dict[str, Any]] | None:
    """What ``<out>/last`` holds, on the CPU, or None if there is none yet.

    Raises:
        TandemError: it is damaged.
    """
    folder = out / LAST
    recover(folder)
    if not folder.exists():
        return None
    try:
        progress = Progress(**json.loads((folder / _PROGRESS).read_text()))
        tensors = torch.load(folder / _TENSORS, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on damaged files
        reason = str(error).split("\n", 1)[0][:120]
        raise TandemError(f"{folder}: damaged checkpoint ({reason}); remove the folder to begin anew") from error
    return progress, tensors
