"""The whole loop on an H1 task: demonstrations, training, rollouts in process and over ROS in lock-step, recorded."""

import json

import numpy as np
import pytest

from tandem_datasets.compare import episodes_equal
from tandem_datasets.store import Store
from tandem_training.cli import main

STATE = ["env=h1_reach", "env.options.cameras=[]", "env.options.privileged=true"]
PIXELS = ["env=h1_reach", "env.options.cameras=[head]", "env.options.image_size=32"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("env", [STATE, PIXELS], ids=["state", "pixels"])
def test_from_demonstrations_to_equal_rollouts_in_process_and_over_ros(env, tmp_path):
    demos = tmp_path / "demos.zarr"
    assert main(["collect", *env, "episodes=6", f"out={demos}"]) == 0
    store = Store(demos)
    assert store.n_episodes == 6
    assert all(store.info(index).success for index in range(6))
    assert main(["data", "info", str(demos)]) == 0
    training = ["policy=tinyvla/flow", "preset=debug", "device=cpu", "trainer.threads=1"]
    assert main(["train", *training, f"data={demos}", f"out={tmp_path / 'policy'}"]) == 0
    stores = {}
    for backend in ("inprocess", "ros2"):
        out = tmp_path / backend
        rollout = [
            f"policy={tmp_path / 'policy' / 'best'}",
            *env,
            "env.options.horizon=40",
            "episodes=2",
            "record=true",
        ]
        assert main(["eval", *rollout, f"backend={backend}", f"out={out}", "films=1", "device=cpu"]) == 0
        metrics = json.loads((out / "metrics.json").read_text())
        assert (metrics["episodes"], metrics["backend"]) == (2, backend)
        stores[backend] = Store(out / "episodes.zarr")
    own, ros = stores["inprocess"], stores["ros2"]
    assert {index: differ for index in range(2) if (differ := episodes_equal(own, index, ros, index))} == {}
    moved = np.abs(own.load("action")[:, [0, 1, 2, 5, 6, 7]]).max(0)
    assert (moved > 0).all(), "a policy that does nothing would be equal anywhere"
