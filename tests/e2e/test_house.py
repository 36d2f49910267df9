"""The rules of the house: imports point down, folders stay plain, the lock file is clean, help is quick."""

import ast
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tandem_training import cli

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "tandem_datasets": ROOT / "datasets/tandem_datasets",
    "tandem_sim": ROOT / "sim/tandem_sim",
    "tandem_policies": ROOT / "policies/tandem_policies",
    "tandem_training": ROOT / "training/tandem_training",
    "tandem_ros": ROOT / "ros2_ws/src/tandem_ros/tandem_ros",
}
ALLOWED = {
    "tandem_datasets": set(),
    "tandem_sim": {"tandem_datasets"},
    "tandem_policies": {"tandem_datasets"},
    "tandem_training": {"tandem_datasets", "tandem_sim", "tandem_policies"},
    "tandem_ros": {"tandem_datasets", "tandem_sim", "tandem_policies"},
}
FOREIGN = {  # what a floor must not know of
    "tandem_datasets": {"torch", "gymnasium", "rclpy", "cv2", "hydra", "omegaconf"},
    "tandem_sim": {"torch", "rclpy", "hydra", "omegaconf"},
    "tandem_policies": {"gymnasium", "rclpy", "hydra", "omegaconf"},
    "tandem_training": {"rclpy"},
    "tandem_ros": {"hydra", "omegaconf"},
}
SLOW_TO_IMPORT = {"lerobot", "torchvision", "transformers", "lightning"}  # 2 to 16 s each: inside functions only
# What stands there for LeRobot's sake, and is imported by it or by a worker process.
FOR_LEROBOT = re.compile(r"tandem_policies/(adapters|lerobot)/|/(configuration|modeling|processor)_\w+\.py$")
COMMANDS = sorted(entry.name for entry in entry_points(group="tandem.commands"))


def imported(path: Path, lazily: bool = True) -> Iterator[str]:
    """Top-level names of everything that a file imports, anywhere in it or only when it is imported itself."""
    tree = ast.parse(path.read_text(), str(path))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = set() if lazily else {inner for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if node in late:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which floor they reach"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_point_down(package):
    others = {*FOLDERS} - ALLOWED[package] - {package}
    forbidden = others | FOREIGN[package]
    files = sorted(FOLDERS[package].rglob("*.py"))
    assert files
    upwards = {str(path.relative_to(ROOT)): bad for path in files if (bad := forbidden & set(imported(path)))}
    assert not upwards
    ours = [path for path in files if not FOR_LEROBOT.search(path.as_posix())]
    slow = {str(path.relative_to(ROOT)): bad for path in ours if (bad := SLOW_TO_IMPORT & set(imported(path, False)))}
    assert not slow


def test_top_level_folders_are_no_packages():
    """A top-level package `datasets` or `launch` hides the installed one: LeRobot and transformers then break."""
    plain = [ROOT / "ros2_ws/src", *(path for path in ROOT.iterdir() if path.is_dir() and path.name != ".venv")]
    assert not [path for path in plain if (path / "__init__.py").exists()]


def test_the_installed_datasets_package_wins():
    """From the root, as in a notebook or with `python -m`; its own folder `datasets/` has no origin."""
    code = "from importlib.util import find_spec; print(find_spec('datasets').origin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout


def test_every_package_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS.values()
        for path in folder.rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_sources_stay_readable():
    lengths = {path: len(path.read_text().splitlines()) for folder in FOLDERS.values() for path in folder.rglob("*.py")}
    assert not {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > 400}


def test_lock_file_pins_everything_without_addresses():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    assert not [line for line in lines if re.search(r"://|^-|@ ", line)]
    pins = {wanted.name: wanted for wanted in map(Requirement, lines)}
    assert all(len(wanted.specifier) == 1 and str(wanted.specifier).startswith("==") for wanted in pins.values())

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    for wanted in map(Requirement, [*project["dependencies"], *extras]):
        assert wanted.name in pins, f"{wanted.name}: run make lock"
        version = str(pins[wanted.name].specifier).removeprefix("==")
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted}: {version} is pinned, run make lock"


def test_help_is_quick_and_light():
    """CPU time, which other processes disturb less than wall time; the target of 0.5 s is wall on quiet cores."""
    heavy = ("torch", "zarr", "rclpy", "cv2", "hydra", "gymnasium", "matplotlib", "numpy")
    code = (
        "import json, sys; from tandem_training.cli import main; status = main(['--help'])\n"
        f"print(json.dumps([status, [name for name in {heavy} if name in sys.modules]]))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 0.5
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert sorted(listed) == COMMANDS
    assert all(len(summary) > 10 and "cannot be imported" not in summary for summary in listed.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert f"tandem {command}" in capsys.readouterr().out


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "'train'" in error


def test_make_lists_its_targets():
    """Without a terminal, from another folder, and without setting anything up."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-C", str(ROOT)]
    done = subprocess.run(
        command, cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    wanted = {"setup", "demo", "test", "test-slow", "check", "format", "coverage", "bench", "clean", "lock", "help"}
    assert set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE)) == wanted
