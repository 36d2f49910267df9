"""Whole graphs of real processes: their episodes are those of a rollout in one process, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from tandem_datasets.compare import episodes_equal
from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_ros import backend
from tandem_sim import rollout

ENV = EnvSpec("tandem/BlockFind-v0", {"wordings": "varied", "horizon": 12})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A small TinyVLA with random weights that plays two actions of each chunk."""
    import torch

    from tandem_policies.files import save
    from tandem_policies.registry import create
    from tandem_sim.blockfind.task import EMBODIMENT

    torch.manual_seed(0)
    network = create("tinyvla", EMBODIMENT, dim=32, head_dim=32, n_action_steps=2)
    return save(network, tmp_path_factory.mktemp("policy") / "tiny")


def both(policy: str, folder: Path, episodes: int) -> tuple[Store, Store]:
    """The same episodes in one process and over ROS, recorded with labels."""
    load = None
    if policy != EXPERT:
        from tandem_policies import load as load_policy

        load = partial(load_policy, policy, "cpu", 1)
    stores = []
    for name, run in (("own", rollout.run), ("ros", backend.run)):
        request = RolloutRequest(ENV, policy, episodes, 40, load, record=folder / name, label=True)
        told: list[int] = []
        results = run(request, lambda result, told=told: told.append(result.index))
        assert [result.index for result in results] == told == list(range(episodes))
        stores.append(Store(folder / name))
    return stores[0], stores[1]


def require_equal(own: Store, ros: Store, episodes: int) -> None:
    assert own.n_episodes == ros.n_episodes == episodes
    assert {i: differ for i in range(episodes) if (differ := episodes_equal(own, i, ros, i))} == {}
    for key in own.keys:
        if key != "instruction":  # its codes are each store's own
            assert own.load(key).tobytes() == ros.load(key).tobytes(), key


def test_the_experts_episodes_are_the_same_over_ros(tmp_path):
    require_equal(*both(EXPERT, tmp_path, 5), 5)


def test_a_policys_episodes_are_the_same_over_ros_and_go_on_in_the_same_store(tiny, tmp_path):
    own, ros = both(str(tiny), tmp_path, 3)
    require_equal(own, ros, 3)
    assert ros.load("has_requested").all()
    assert ros.load("has_label").all()
    assert ros.info(0).provenance["identity"] == own.info(0).provenance["identity"]
    end = ros.info(2).end_ns
    backend.run(RolloutRequest(ENV, EXPERT, 1, 0, record=tmp_path / "ros"), lambda result: None)
    ros.refresh()
    assert ros.n_episodes == 4
    assert ros.info(3).begin_ns > end, "time never runs backwards"


def test_real_time_keeps_its_beat(tiny, tmp_path):
    request = RolloutRequest(
        ENV, str(tiny), 4, 0, record=tmp_path / "store", label=True, options={"mode": "realtime", "domain_id": None}
    )
    results = backend.run(request, lambda result: None)
    store = Store(tmp_path / "store")
    assert [result.periods for result in results] == [result.steps for result in results]
    assert sum(result.on_time for result in results) > 0
    latencies = [value for result in results for value in result.latency_ms]
    assert latencies
    assert min(latencies) > 0
    for episode in range(4):
        rows = store.episode_slice(episode)
        stamps = store.load("stamp", rows.start, rows.stop)
        assert len(stamps) == results[episode].steps
        assert (np.diff(stamps) == store.embodiment.period_ns).all()
        assert not store.info(episode).provenance.get("missing_frames")
    begins = [store.info(episode).begin_ns for episode in range(4)]
    assert begins == sorted(begins)
    assert abs(begins[0] / 1e9 - time.time()) < 120, "real time is the clock on the wall"


RUNNER = """
import sys
from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EnvSpec, RolloutRequest
from tandem_ros.backend import run

try:
    request = RolloutRequest(EnvSpec("tandem/BlockFind-v0"), sys.argv[1], 100000, 0)
    run(request, lambda result: print("episode", result.index, flush=True))
except TandemError as error:
    print("error:", error, flush=True)
    sys.exit(2)
"""


@contextmanager
def running(policy: str):
    """A rollout in a process of its own that has finished its first episode."""
    process = subprocess.Popen([sys.executable, "-c", RUNNER, policy], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "episode 0\n"
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(5)
        process.stdout.close()


def nodes_of(process: subprocess.Popen) -> dict[str, psutil.Process]:
    nodes = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        line = " ".join(child.cmdline())
        if "tandem_ros.nodes." in line:
            nodes[line.split("tandem_ros.nodes.")[1].split()[0]] = child
    return nodes


def test_a_killed_policy_is_one_clear_error_and_leaves_nothing(tiny):
    with running(str(tiny)) as process:
        nodes = nodes_of(process)
        assert set(nodes) == {"simulation", "policy", "episodes"}
        nodes["policy"].send_signal(signal.SIGKILL)
        said = process.stdout.read().splitlines()
        assert process.wait(10) == 2
        assert [line for line in said if not line.startswith("episode")] == [
            "error: node 'policy' was killed by SIGKILL"
        ]
        assert psutil.wait_procs(list(nodes.values()), timeout=5)[1] == []


def test_nodes_end_with_a_rollout_that_was_killed():
    with running(EXPERT) as process:
        nodes = list(nodes_of(process).values())
        process.send_signal(signal.SIGKILL)
        assert psutil.wait_procs(nodes, timeout=5)[1] == []


OCCUPANT = """
import rclpy, sys
from trajectory_msgs.msg import JointTrajectory
rclpy.init(domain_id=int(sys.argv[1]))
node = rclpy.create_node("stranger")
publisher = node.create_publisher(JointTrajectory, "action", 1)
print("there", flush=True)
sys.stdin.read()
"""


def test_a_domain_in_which_somebody_moves_a_robot_is_refused():
    domain = 60 + os.getpid() % 40
    stranger = subprocess.Popen(
        [sys.executable, "-c", OCCUPANT, str(domain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert stranger.stdout.readline() == "there\n"
        request = RolloutRequest(ENV, EXPERT, 1, 0, options={"domain_id": domain})
        told = rf"ROS domain {domain} is occupied: (node 'stranger'|another node) already publishes /action"
        with pytest.raises(TandemError, match=told):
            backend.run(request, lambda result: pytest.fail("an episode ran"))
    finally:
        stranger.communicate("", timeout=5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"options": {"mode": "lockstp"}}, "did you mean 'lockstep'"),
        ({"options": {"domain": 3}}, "did you mean 'domain_id'"),
        ({"options": {"threads": "many"}}, "threads is 'many'"),
        ({"options": {"domain_id": 400}}, "400"),
        ({"episodes": 0}, "episodes is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_requests_are_refused_before_anything_starts(changes, told):
    request = RolloutRequest(ENV, **{"policy": EXPERT, "episodes": 1, "seed": 0, **changes})
    with pytest.raises(TandemError, match=told):
        backend.run(request, lambda result: None)


def test_a_policy_for_another_robot_is_refused_by_feature(tiny, tmp_path):
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    config = json.loads((other / "config.json").read_text())
    config["embodiment"]["action"][0]["unit"] = "m"
    (other / "config.json").write_text(json.dumps(config))
    request = RolloutRequest(ENV, str(other), 1, 0, record=tmp_path / "store")
    with pytest.raises(TandemError, match="action 'agent/dx': unit m, not cell"):
        backend.run(request, lambda result: None)


def test_without_ros_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(TandemError, match=r"rclpy cannot be imported: .*pip install tandem-robotics\[ros\]"):
        backend.run(RolloutRequest(ENV, EXPERT, 1, 0), lambda result: None)
