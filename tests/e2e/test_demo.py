"""The demo with few, untrained steps: every link is real, only the learning is cut short."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

TANDEM = [sys.executable, "-m", "tandem_training.cli"]
SMALL = ["demonstrations=8", "dagger_episodes=4", "episodes=6", "realtime_episodes=3", 'train=["preset=debug"]']

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def demo(out: Path, *more: str) -> list[str]:
    return [*TANDEM, "demo", *SMALL, f"out={out}", *more]


def descendants_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=6)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A demo that was killed in the middle of a ROS 2 rollout, and then run to its end."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with subprocess.Popen(demo(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        family: list[psutil.Process] = []
        while time.monotonic() < deadline and process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            if any("tandem_ros.nodes" in " ".join(child.cmdline()) for child in family):
                break
            time.sleep(0.2)
        assert process.poll() is None, "the demo ended before its first rollout over ROS 2"
        process.kill()
    assert descendants_gone(family)
    done = subprocess.run(demo(out), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, done.stdout


def test_a_killed_demo_goes_on_where_it_was(finished):
    _, said = finished
    assert "done before" in said  # the demonstrations and the first training
    assert said.count("✓") == 10


def test_the_report_is_whole_and_needs_nothing_else(finished):
    out, said = finished
    assert f"report: {out / 'report.html'}" in said
    page = (out / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "<script" not in page
    assert page.count("data:image/gif;base64,") >= 8
    assert page.count("data:image/png;base64,") >= 4
    for heading in ("The loop", "Before and after", "Learning curves", "Where the policy looks", "What still fails"):
        assert f"<h2>{heading}</h2>" in page


def test_its_rows_and_its_last_policy_are_there(finished):
    out, _ = finished
    rows = {row["name"]: row for row in json.loads((out / "metrics.json").read_text())["rows"]}
    assert {"before_success", "after_success", "control_success", "gain", "demo_s"} <= set(rows)
    assert rows["demo_s"]["value"] > 0
    assert (out / "policy" / "best" / "model.safetensors").is_file()


def test_running_it_again_is_quick(finished):
    out, _ = finished
    done = subprocess.run(demo(out), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.count("(done before)") == 10


def test_interrupted_it_leaves_no_process(tmp_path):
    with subprocess.Popen(
        demo(tmp_path / "out", 'train=["preset=demo"]'),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time.sleep(12)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert error.strip().splitlines()[-1] == "tandem demo: interrupted"
    assert descendants_gone(family)
