"""Where data and figures come from: which policy, which weights, which version of the code."""

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT
from tandem_training.baseline_names import BASELINES, is_baseline

PACKAGES = ("tandem_datasets", "tandem_sim", "tandem_policies", "tandem_training", "tandem_ros")


@cache
def code_digest(packages: tuple[str, ...] = PACKAGES) -> str:
    """A short hash over every source and configuration file of Tandem's packages, or of some of them."""
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix in (".py", ".yaml", ".json", ".xml") and path.is_file():
                    digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def policy_provenance(policy: str) -> dict[str, Any]:
    """What is recorded beside episodes of ``policy``: its directory, the hash of its weights, the code.

    Raises:
        TandemError: ``policy`` is neither ``expert`` nor a directory with weights.
    """
    facts: dict[str, Any] = {"policy": policy, "tandem": version("tandem-robotics"), "code": code_digest()}
    if policy == EXPERT or is_baseline(policy):
        return facts
    weights = Path(policy) / "model.safetensors"
    if not weights.is_file():
        raise TandemError(
            f"policy: {policy} holds no model.safetensors (allowed: '{EXPERT}', {BASELINES}, or a directory that "
            "`tandem train` wrote, such as outputs/nano/best)"
        )
    with weights.open("rb") as file:
        facts["weights_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return facts
