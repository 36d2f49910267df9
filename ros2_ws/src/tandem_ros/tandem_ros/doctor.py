"""The middleware's part of ``tandem doctor``: is rclpy there, and do two processes really hear each other?"""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.health import Finding, Health
from tandem_ros.domain import claim
from tandem_ros.environment import child_environment

SUBJECT = "ROS 2"
_TIMEOUT_S = 10.0
_MODULE = "tandem_ros.echo"


def check() -> list[Finding]:
    return [_sourced(), _round_trip()] if os.environ.get("ROS_DISTRO") else [_round_trip()]


def _sourced() -> Finding:
    """An installed ROS 2 that was sourced puts its Python packages before those of the wheels."""
    distribution = os.environ["ROS_DISTRO"]
    if "/opt/ros" not in os.environ.get("PYTHONPATH", ""):
        return Finding("sourced ROS", Health.FINE, f"{distribution}, not on PYTHONPATH")
    advice = "if nodes fail to start: a fresh shell without its setup.bash (the wheels in .venv need none)"
    return Finding("sourced ROS", Health.LIMITED, f"{distribution} comes before the wheels", advice)


def _round_trip() -> Finding:
    if find_spec("rclpy") is None:
        return Finding(SUBJECT, Health.BROKEN, "rclpy is not installed", _without_rclpy())
    try:
        with claim() as domain_id:
            return _measure(domain_id)
    except TandemError as error:
        return Finding(SUBJECT, Health.BROKEN, str(error), "end other ROS graphs of yours")


def _measure(domain_id: int) -> Finding:
    environment = child_environment(domain_id)
    begin = time.monotonic()
    children = [_start("serve", environment), _start("ask", environment)]
    try:
        answer, complaint = children[1].communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        advice = "is the loopback interface up, and does a firewall let local UDP through?"
        return Finding(SUBJECT, Health.BROKEN, f"two processes did not hear each other in {_TIMEOUT_S:g} s", advice)
    finally:
        for child in children:
            child.kill()
            child.wait()
    if children[1].returncode:
        lines = complaint.strip().splitlines() or ["no message"]
        return Finding(SUBJECT, Health.BROKEN, f"a node does not start: {lines[-1]}", _start_advice(complaint))
    values: dict[str, Any] = json.loads(answer.strip().splitlines()[-1]) | {"seconds": time.monotonic() - begin}
    found = (
        f"{values['middleware']}: two processes answer each other in "
        f"{values['p50_ms']:.1f} ms (p99 {values['p99_ms']:.1f}), found after {values['discovery_ms']:.0f} ms"
    )
    return Finding(SUBJECT, Health.FINE, found, values=values)


def _start(role: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE, role],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _start_advice(complaint: str) -> str:
    if "PYTHONPATH" in os.environ or "/opt/ros" in os.environ.get("LD_LIBRARY_PATH", ""):
        return "another ROS 2 may be in the way: try a shell with PYTHONPATH and LD_LIBRARY_PATH unset"
    if "cannot open shared object file" in complaint:
        return "a library of the system is missing; apt-file search <its name> tells the package"
    return f"{sys.executable} -m {_MODULE} ask shows all of it; else rm -rf .venv and make setup"


def _without_rclpy() -> str:
    if sys.platform == "linux":
        return "make setup"
    return "there are wheels for Linux only; tandem train, and eval with backend=inprocess, work without"
