"""The GPU, and how long a full training takes here, from a few steps of a real one in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tandem_datasets.health import Finding, Health

_TIMEOUT_S = 60.0
_SUBJECT = "training"


def check() -> list[Finding]:
    """Takes several seconds: importing torch alone takes three."""
    command = [sys.executable, "-m", "tandem_training.doctor.probe"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        found = f"a training of a few steps did not end in {_TIMEOUT_S:g} s"
        return [Finding(_SUBJECT, Health.LIMITED, found, "is the machine busy? tandem doctor skip='[training]'")]
    facts = dict(_facts(done.stdout))
    findings = [_gpu(facts["gpu"])] if "gpu" in facts else []
    return [*findings, _time(facts["training"]) if "training" in facts else _failed(done.stderr)]


def _facts(output: str) -> list[tuple[str, dict[str, Any]]]:
    """The probe's lines of JSON, among whatever else was printed."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
    return [item for line in lines for item in line.items()]


def _gpu(facts: dict[str, Any]) -> Finding:
    if facts["name"]:
        memory = f", {facts['memory_bytes'] / 2**30:.0f} GB" if facts.get("memory_bytes") else ""
        driver = f", driver {facts['driver']}" if facts.get("driver") else ""
        return Finding("GPU", Health.FINE, f"{facts['name']}{memory}{driver} ({facts['device']})", values=facts)
    if not Path("/proc/driver/nvidia/version").exists():
        return Finding("GPU", Health.FINE, "none; BlockFind trains on the CPU", values=facts)
    found = f"an NVIDIA driver is there, but torch {facts['torch']} (CUDA {facts['cuda']}) cannot use it"
    advice = "compare the driver (nvidia-smi) with that CUDA version, and look at CUDA_VISIBLE_DEVICES"
    return Finding("GPU", Health.LIMITED, found, advice, facts)


def _time(facts: dict[str, Any]) -> Finding:
    minutes = facts["estimate_s"] / 60
    shown = f"{minutes:.1f} min" if minutes >= 1 else f"{facts['estimate_s']:.0f} s"
    found = (
        f"{facts['policy']} with preset=full: about {shown} for {facts['max_steps']} steps of "
        f"{facts['batch_size']} on {facts['device']} ({facts['step_ms']:.0f} ms a step, validations come on top)"
    )
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        found += "; an upper bound, for others are at work here"
    return Finding(_SUBJECT, Health.FINE, found, values=facts)


def _failed(complaint: str) -> Finding:
    lines = complaint.strip().splitlines() or ["no message"]
    advice = f"{sys.executable} -m tandem_training.doctor.probe shows all of it"
    return Finding(_SUBJECT, Health.BROKEN, f"a training of a few steps fails: {lines[-1]}", advice)
