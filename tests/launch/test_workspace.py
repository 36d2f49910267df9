"""The colcon workspace: both packages build from a copy, and what a ROS installation looks for is where it looks."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tandem_ros.domain import claim

ROOT = Path(__file__).parents[2]
PACKAGES = ("tandem_ros", "tandem_bringup")
NODES = ("simulation", "policy", "recorder", "episodes")


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``colcon build`` in a copy of the sources; gives its install folder."""
    copy = tmp_path_factory.mktemp("workspace")
    leave = shutil.ignore_patterns("build", "install", "log", "__pycache__", "*.egg-info")
    for name in ("ros2_ws", "launch"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=leave)
    colcon = Path(sys.executable).with_name("colcon")
    environment = os.environ | {"COLCON_HOME": str(copy), "COLCON_LOG_LEVEL": "warning"}
    command = [str(colcon), "build"]
    done = subprocess.run(
        command, cwd=copy / "ros2_ws", env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "ros2_ws" / "install"


def test_the_ament_index_knows_both_packages(install: Path) -> None:
    for name in PACKAGES:
        share = install / name / "share"
        assert (share / "ament_index" / "resource_index" / "packages" / name).is_file()
        assert (share / name / "package.xml").is_file()


def test_the_nodes_are_executables_that_start(install: Path) -> None:
    """With the colcon-installed code first on the path; a simulation of nothing says so and ends."""
    folder = install / "tandem_ros" / "lib" / "tandem_ros"
    assert {path.name for path in folder.iterdir()} == set(NODES)
    assert all(os.access(folder / name, os.X_OK) for name in NODES)
    installed = next((install / "tandem_ros" / "lib").glob("python*/site-packages"))
    assert (installed / "tandem_ros" / "fastdds.xml").is_file()
    for name in NODES:
        assert (installed / "tandem_ros" / "nodes" / f"{name}.py").is_file()
    environment = os.environ | {"PYTHONPATH": str(installed)}
    with claim() as domain_id:
        environment["ROS_DOMAIN_ID"] = str(domain_id)
        done = subprocess.run(
            [folder / "simulation"], env=environment, capture_output=True, text=True, check=False, timeout=30
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: environment: unknown name ''")


def test_the_launch_files_are_installed(install: Path) -> None:
    folder = install / "tandem_bringup" / "share" / "tandem_bringup" / "launch"
    wanted = {path.name: path.read_text() for path in (ROOT / "launch").glob("*.launch.py")}
    assert wanted
    assert {path.name: path.read_text() for path in folder.iterdir()} == wanted


def test_versions_agree_and_every_ros_import_is_declared() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in PACKAGES:
        folder = ROOT / "ros2_ws" / "src" / name
        assert ElementTree.parse(folder / "package.xml").findtext("version") == version
        assert f'version="{version}"' in (folder / "setup.py").read_text()
    manifest = ElementTree.parse(ROOT / "ros2_ws" / "src" / "tandem_ros" / "package.xml")
    declared = {item.text for item in manifest.findall("exec_depend")}
    sources = (ROOT / "ros2_ws" / "src" / "tandem_ros" / "tandem_ros").rglob("*.py")
    pattern = re.compile(
        r"^\s*(?:from|import) (rclpy|launch|launch_ros|ament_index_python|\w+_(?:msgs|srvs|interfaces))\b", re.M
    )
    used = {module for source in sources for module in pattern.findall(source.read_text())}
    assert used - declared == set()
    assert "rclpy" in used
