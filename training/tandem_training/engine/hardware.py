"""The accelerator: device, precision and processes, by Hugging Face accelerate."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tandem_datasets.errors import TandemError, unknown

_SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  # accelerate's, each with a variable ACCELERATE_USE_...
_MOST_THREADS = 8  # unless asked for: what small networks still gain from
DEVICES = ("auto", "cpu", "cuda", "mps")


def make_accelerator(device: str, precision: str, where: str) -> Accelerator:
    """An accelerator on ``device``; under ``accelerate launch`` one of several.

    Raises:
        TandemError: no such device, not on this machine, one that cannot compute in this precision, or
            accelerate is set up to split the weights over processes.
    """
    if device not in DEVICES:
        raise unknown(f"{where}: device", device, DEVICES)
    _refuse_sharding(where)
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device, True):
        there = ", ".join(["auto", "cpu", *(name for name, fine in present.items() if fine)])
        raise TandemError(f"{where}: device={device} is not on this machine (allowed here: {there})")
    if "WORLD_SIZE" not in os.environ:  # a second training in this process may want another device or precision
        AcceleratorState._reset_state(reset_partial_state=True)
    if precision == "fp16" and (device == "cpu" or not any(present.values())):
        raise TandemError(f"{where}: trainer.precision=fp16 needs a GPU (allowed on a cpu: fp32, bf16)")
    mixed = "no" if precision == "fp32" else precision
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed)
    if device not in ("auto", accelerator.device.type):
        raise TandemError(f"{where}: device={device}, but accelerate chose {accelerator.device.type} (allowed: auto)")
    return accelerator


def _refuse_sharding(where: str) -> None:
    """Checkpoints and policies are written by one process, which must have all weights."""
    for name in _SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true", "yes", "y", "on", "t"):
            raise TandemError(f"{where}: accelerate is set up for {name} (allowed: one process, or several by DDP)")


@contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """torch's CPU threads inside the block: ``count``, or one per core that this process may use, up to 8.

    Set explicitly, because a policy that was opened before in this process may have left another number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or _cores())
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)
