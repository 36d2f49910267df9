"""Processor, memory, disk and shared memory."""

import os
import shutil
from pathlib import Path

from tandem_datasets.health import Finding, Health
from tandem_training.results import machine

_GB = 1 << 30
_SHARED_MEMORY = Path("/dev/shm")


def check() -> list[Finding]:
    return [_processor(), _memory(), _disk(), *_shared_memory()]


def _processor() -> Finding:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = psutil.getloadavg()[0]
    found = f"{machine()['cpu']}, {cores} cores, load {load:.1f}"
    values = {"cores": cores, "load": round(load, 2)}
    if cores >= 2 and load <= 0.5 * cores:
        return Finding("processor", Health.FINE, found, values=values)
    if cores < 2:
        advice = "simulation and policy run side by side: real-time rates want two cores, lock-step works on one"
    else:
        advice = "others are at work here: latencies and training times measured now are too long"
    return Finding("processor", Health.LIMITED, found, advice, values)


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / _GB:.1f} of {memory.total / _GB:.1f} GB available"
    values = {"available_bytes": memory.available, "total_bytes": memory.total}
    if memory.available >= 3 * _GB:
        return Finding("memory", Health.FINE, found, values=values)
    return Finding(
        "memory", Health.LIMITED, found, "close other programs: training beside a ROS graph takes 3 GB", values
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / _GB:.1f} GB free in {Path.cwd()}"
    values = {"free_bytes": free}
    if free >= 5 * _GB:
        return Finding("disk", Health.FINE, found, values=values)
    health = Health.LIMITED if free >= _GB else Health.BROKEN
    return Finding("disk", health, found, "make room: outputs/ holds films, checkpoints and recorded stores", values)


def _shared_memory() -> list[Finding]:
    """Linux only: Fast DDS moves messages through it."""
    if not _SHARED_MEMORY.is_dir():
        return []
    usage = shutil.disk_usage(_SHARED_MEMORY)
    found = f"{usage.free / _GB:.2f} of {usage.total / _GB:.2f} GB free in {_SHARED_MEMORY}"
    values = {"free_bytes": usage.free, "total_bytes": usage.total}
    if not os.access(_SHARED_MEMORY, os.W_OK):
        advice = f"sudo chmod 1777 {_SHARED_MEMORY}; until then ROS messages take the slower UDP"
        return [Finding("shared memory", Health.LIMITED, f"{_SHARED_MEMORY} cannot be written to", advice, values)]
    if usage.free < _GB // 4:
        advice = "docker run --shm-size 1g, or remove what dead programs left there; large images get lost otherwise"
        return [Finding("shared memory", Health.LIMITED, found, advice, values)]
    return [Finding("shared memory", Health.FINE, found, values=values)]
