import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tandem_datasets.errors import TandemError
from tandem_ros.domain import claim
from tandem_ros.environment import PROFILE, child_environment, ros_settings, sweep_shared_memory


def test_two_graphs_get_different_free_domains() -> None:
    with claim() as one, claim() as two:
        assert one != two
        assert {one, two} <= set(range(1, 233))


def test_a_taken_domain_is_refused_with_its_owner_and_free_again_afterwards() -> None:
    with claim() as held:
        with pytest.raises(TandemError, match=f"ROS domain {held}: taken .*process {os.getpid()}"), claim(held):
            pass
        with claim(held, "/left"), claim(held, "/right"):  # robots that share a domain on purpose
            pass
        with pytest.raises(TandemError, match="namespace '/left'"), claim(held, "/left"), claim(held, "/left"):
            pass
    with claim(held) as again:
        assert again == held


@pytest.mark.parametrize("number", [-1, 233])
def test_an_impossible_domain_is_refused(number: int) -> None:
    with pytest.raises(TandemError, match=r"allowed: 0\.\.232"), claim(number):
        pass


def test_a_killed_owner_frees_its_domain() -> None:
    script = (
        "import time\nfrom tandem_ros.domain import claim\nwith claim() as d:\n print(d, flush=True)\n time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number = int(process.stdout.readline())
    with pytest.raises(TandemError, match=f"process {process.pid}"), claim(number):
        pass
    process.kill()
    process.wait()
    with claim(number):
        pass


def test_a_free_domain_is_one_where_nobody_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tandem_ros.domain._PREFERRED", (7, 8))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7400 + 250 * 7 + 10))
        for _ in range(4):
            with claim() as found:
                assert found == 8


def test_children_lose_what_the_ros_wheels_added_and_keep_the_users_own() -> None:
    """A leaked mark without the libraries, or with those of another environment, makes rclpy fail to import."""
    wheels = "/v/lib/python3.12/site-packages"
    leaked = {
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "LD_LIBRARY_PATH": f"{wheels}/ros_rcl.libs:/opt/mine/lib:/v/lib:{wheels}/ros_rclpy.libs",
    }
    child = child_environment(9, leaked)
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in child
    assert child["LD_LIBRARY_PATH"] == "/opt/mine/lib"
    assert child["ROS_DOMAIN_ID"] == "9"
    installed = {"LD_LIBRARY_PATH": "/opt/ros/kilted/lib"}  # a ROS installation: no wheels at work
    assert child_environment(9, installed)["LD_LIBRARY_PATH"] == "/opt/ros/kilted/lib"


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem_ros.environment._shared_memory_bytes", lambda: 1 << 30)
    assert ros_settings({}) == {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
    }
    own = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}
    assert ros_settings(own) == {}


def test_little_shared_memory_gets_no_large_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem_ros.environment._shared_memory_bytes", lambda: 64 << 20)
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in ros_settings({})


def test_the_profile_gives_a_participant_32_mb_and_a_killed_ones_segment_is_swept() -> None:
    """Both against the real middleware: the file's size in shared memory, the lock that its owner holds."""
    script = "import rclpy, time\nrclpy.init()\nn = rclpy.create_node('n')\nprint('up', flush=True)\ntime.sleep(60)"
    with claim() as domain_id:
        environment = child_environment(domain_id) | {"FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)}
        process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        locked = [path for path in _opened_by(process.pid) if path.name.endswith("_el") and "port" not in path.name]
        segments = [path.with_name(path.name.removesuffix("_el")) for path in locked]
        assert max(path.stat().st_size for path in segments) > 32 << 20
        for path in locked:
            os.utime(path, (0, 0))
        sweep_shared_memory()
        assert all(path.exists() for path in segments)  # its owner lives
        process.kill()
        process.wait()
        sweep_shared_memory()
        assert not any(path.exists() for path in segments + locked)


def _opened_by(pid: int) -> set[Path]:
    links = list(Path(f"/proc/{pid}/fd").iterdir())
    return {link.readlink() for link in links if str(link.readlink()).startswith("/dev/shm/fastdds_")}
