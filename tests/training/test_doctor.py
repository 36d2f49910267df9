import json
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path

import pytest

from tandem_datasets.health import Health
from tandem_ros import doctor as ros
from tandem_training import cli
from tandem_training.doctor import hardware, screen, software, training_time


def test_the_whole_examination_from_the_command_line(tmp_path):
    """A short training, a round trip between two processes and everything else, for real."""
    command = [sys.executable, "-m", "tandem_training.cli", "doctor", "json=true", f"out={tmp_path}/new"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    facts = json.loads(done.stdout)
    found = {finding["subject"]: finding for finding in facts["findings"]}
    assert {"Python", "packages", "processor", "memory", "disk", "ROS 2", "GPU", "training", "outputs/"} <= set(found)
    assert found["ROS 2"]["values"]["p50_ms"] > 0
    assert found["training"]["values"]["estimate_s"] > 1
    assert facts["ready"] is True
    assert done.returncode == 0
    assert all(finding["advice"] for finding in found.values() if finding["health"] != "fine")
    assert json.loads((tmp_path / "new/metrics.json").read_text()) == facts


def test_the_table_ends_with_the_verdict_and_the_status_follows_it(capsys, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    assert cli.main(["doctor", "skip=[ros,training]"]) == 0
    assert "The loop can run here" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 1 << 40, 1 << 20))
    assert cli.main(["doctor", "skip=[ros,training]"]) == 1
    assert "The loop cannot run here: mend disk." in capsys.readouterr().out


def test_closed_streams_are_no_terminal(monkeypatch):
    """Python has None for a stream that the shell closed (`<&-`)."""
    monkeypatch.setattr("sys.stdin", None)
    [finding] = [finding for finding in screen.check() if finding.subject == "tandem play"]
    assert finding.values["terminal"] is False


def test_only_checks_can_be_skipped(capsys):
    assert cli.main(["doctor", "skip=[trainings]"]) == 2
    assert "did you mean 'training'?" in capsys.readouterr().err


def test_versions_that_differ_from_the_lock_file_are_named(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# pinned\nnumpy==0.1\nno-such-package==1.0 ; sys_platform == 'linux'\nelsewhere==1 ; sys_platform == 'os2'\n"
    )
    finding = software._packages(lock)
    assert finding.health is Health.LIMITED
    assert finding.values["differing"] == {"numpy": version("numpy"), "no-such-package": None}
    assert f"numpy {version('numpy')} (pinned 0.1)" in finding.found


def test_without_a_lock_file_versions_are_not_judged(tmp_path):
    assert software._packages(tmp_path / "none").health is Health.FINE


def test_a_missing_package_stops_the_loop(monkeypatch):
    monkeypatch.setattr(software, "_needed", lambda: iter(["numpy", "no-such-package"]))
    finding = software._packages(Path("none"))
    assert (finding.health, finding.values) == (Health.BROKEN, {"missing": ["no-such-package"]})


def test_an_unwritable_place_is_told():
    finding = software._output(Path("/proc/outputs"))
    assert finding.health is Health.BROKEN
    assert "/proc" in finding.found


@pytest.mark.parametrize(("free_gb", "health"), [(50, Health.FINE), (2, Health.LIMITED), (0.5, Health.BROKEN)])
def test_disk(monkeypatch, free_gb, health):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, int(free_gb * 2**30)))
    assert hardware._disk().health is health


def test_without_ros_wheels_it_says_so(monkeypatch):
    monkeypatch.setattr(ros, "find_spec", lambda name: None)
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    [finding] = ros.check()
    assert (finding.health, finding.found) == (Health.BROKEN, "rclpy is not installed")


def test_a_node_that_cannot_start_is_explained(monkeypatch):
    monkeypatch.setattr(ros, "_MODULE", "tandem_ros.no_such_module")
    [finding] = [found for found in ros.check() if found.subject == "ROS 2"]
    assert finding.health is Health.BROKEN
    assert "no_such_module" in finding.found


def test_a_failing_training_is_reported_by_its_last_line():
    finding = training_time._failed("Traceback ...\n\nTandemError: no room\n")
    assert finding.health is Health.BROKEN
    assert finding.found.endswith("TandemError: no room")


def test_a_gpu_that_torch_cannot_use_is_told_apart_from_none(monkeypatch):
    facts = {"name": "", "torch": "2.11", "cuda": "13.0"}
    monkeypatch.setattr(training_time.Path, "exists", lambda path: True)
    assert training_time._gpu(facts).health is Health.LIMITED
    monkeypatch.setattr(training_time.Path, "exists", lambda path: False)
    assert training_time._gpu(facts).health is Health.FINE
