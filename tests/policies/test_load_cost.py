"""Regression: outlining a network on the device ``meta`` imported torch._dynamo and sympy, 3.6 s of every start."""

import subprocess
import sys
from pathlib import Path

from tandem_datasets.rollout import EnvSpec
from tandem_policies import registry
from tandem_policies.files import save
from tandem_sim.registry import embodiment


def test_opening_a_policy_imports_neither_torchs_compiler_nor_lerobot(tmp_path: Path) -> None:
    network = registry.create("tinyvla", embodiment(EnvSpec("tandem/BlockFind-v0")))
    folder = save(network, tmp_path / "policy")
    heavy = ["torch._dynamo", "sympy", "lerobot", "torchvision", "transformers"]
    script = (
        "import sys, tandem_policies\n"
        f"tandem_policies.load({str(folder)!r}, 'cpu')\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
