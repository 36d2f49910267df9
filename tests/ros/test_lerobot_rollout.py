"""A LeRobot policy answers over ROS, from its own process, as it does in one process: minutes long."""

from functools import partial

import numpy as np
import pytest
import torch

from tandem_datasets.compare import episodes_equal
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Observation
from tandem_datasets.rollout import EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_policies import load
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_policies.runtime import TorchPolicy
from tandem_ros import backend
from tandem_sim import rollout
from tandem_sim.blockfind.task import EMBODIMENT

ENV = EnvSpec("tandem/BlockFind-v0", {"wordings": "varied", "horizon": 8})
EPISODES = 3
NO_DOWNLOAD = {"pretrained_backbone_weights": None}
SETTINGS = {
    "act": {
        "n_action_steps": 2,
        "options": {**NO_DOWNLOAD, "dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1,
                    "use_vae": False},
    },
    "diffusion": {
        "chunk_size": 3, "n_action_steps": 2,
        "options": {**NO_DOWNLOAD, "n_obs_steps": 2, "down_dims": [8, 16], "use_group_norm": True,
                    "noise_scheduler_type": "DDIM", "num_inference_steps": 2},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SETTINGS)
def test_episodes_over_ros_are_those_in_one_process(name, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = create("lerobot", EMBODIMENT, policy=name, **SETTINGS[name]).eval()
    policy = save(network, tmp_path / "policy")
    remote = load(policy, "cpu", 1)
    with pytest.raises(TandemError, match=r"cameras \[\] .allowed: ..top"):
        remote.infer([[Observation({}, np.zeros(1, np.float32), "", 0)] * remote.n_obs_steps], [(0, 0)])
    rng = np.random.default_rng(0)
    images = {camera.name: rng.integers(0, 256, camera.shape).astype(np.uint8) for camera in EMBODIMENT.cameras}
    seen = [Observation(images, np.full(2, 3, np.float32), "find the red block", 0)] * remote.n_obs_steps
    here = TorchPolicy(network, remote.identity)
    for key in ((0, 0), (5, 2)):
        assert np.array_equal(remote.infer([seen], [key]), here.infer([seen], [key]))

    stores = []
    for place, run, opened in (("own", rollout.run, lambda: remote), ("ros", backend.run, partial(load, policy))):
        request = RolloutRequest(ENV, str(policy), EPISODES, 40, opened, record=tmp_path / place, label=True)
        assert len(run(request, lambda result: None)) == EPISODES
        stores.append(Store(tmp_path / place))
    own, ros = stores
    assert {i: differ for i in range(EPISODES) if (differ := episodes_equal(own, i, ros, i))} == {}
    remote.close()
