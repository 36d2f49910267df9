"""The README's commands, run as they stand there but with small numbers: real processes, one after the other."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SMALLER = {"episodes=200": "episodes=6", "episodes:=3": "episodes:=1", "preset=full": "preset=debug"}


def blocks_to_run() -> list[str]:
    return re.findall(r"<!-- tested -->\n```bash\n(.*?)```", README, re.DOTALL)


def shrink(block: str) -> str:
    for large, small in SMALLER.items():
        block = block.replace(large, small)
    return block


@pytest.mark.timeout(300)
def test_the_commands_run(tmp_path):
    blocks = blocks_to_run()
    assert len(blocks) == 2
    for large in SMALLER:
        assert large in "".join(blocks), f"the README has no {large} to make smaller"
    script = "set -euo pipefail\n" + shrink("\n".join(blocks))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("outputs/*/*")}
    wanted = {"eval/metrics.json", "rollouts/metrics.json", "rollouts/episodes.zarr", "nano/best", "nano-2/best"}
    assert {f"outputs/{name}" for name in wanted} <= made


def test_the_table_names_every_command():
    listed = re.findall(r"^\| `tandem (\w+)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(entry.name for entry in entry_points(group="tandem.commands"))


def test_the_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets


def test_links_and_tree_point_at_something():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    tree = [word for word in re.findall(r"^([\w/.]+/)\s", README, re.MULTILINE)]
    assert len(links) >= 4
    assert len(tree) >= 8
    missing = [path for path in (*links, *tree) if not (ROOT / path).exists()]
    assert not missing
