"""A directory at work as a Policy: repeatable, its instruction cache invisible, light to import."""

import hashlib
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import tandem_policies
from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_policies.runtime import choose_device


@pytest.fixture
def directory(body, statistics_of, tmp_path):
    network = create("tinyvla", body(), chunk_size=5, n_action_steps=3)
    network.set_statistics(statistics_of(network.embodiment))
    return save(network, tmp_path / "policy")


@pytest.fixture
def policy(directory):
    return tandem_policies.load(directory, "cpu")


def test_it_says_what_it_is(policy, directory, body):
    assert policy.embodiment == body()
    assert (policy.chunk_size, policy.n_action_steps) == (5, 3)
    assert policy.identity == hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()[:16]


def test_equal_observations_give_bit_equal_chunks(policy, directory, observation):
    one = observation(policy.embodiment)
    first = policy.infer([[one]], [(0, 0)])
    assert (first.shape, first.dtype) == ((1, 5, 2), np.float32)
    policy.infer([[observation(policy.embodiment, 8, "another thing")]], [(0, 1)])
    for again in (policy, tandem_policies.load(directory, "cpu")):
        assert np.array_equal(again.infer([[one]], [(7, 3)]), first)


def test_noise_comes_from_the_key_of_each_row(body, observation, tmp_path):
    policy = tandem_policies.load(save(create("tinyvla", body(), head="flow"), tmp_path / "flow"), "cpu")
    one = [observation(policy.embodiment)]
    chunks = policy.infer([one] * 3, [(7, 0), (7, 1), (8, 0)])
    assert np.abs(chunks[:, None] - chunks[None]).max((2, 3))[~np.eye(3, dtype=bool)].min() > 1e-3
    np.testing.assert_allclose(policy.infer([one], [(7, 1)])[0], chunks[1], rtol=0, atol=1e-5)


def test_a_remembered_instruction_answers_like_a_new_one(policy, observation):
    texts = ["find the red block", "go to the blue one", ""]
    for text in texts:
        one = observation(policy.embodiment, 1, text)
        batch = {"images.top": torch.from_numpy(one.images["top"][None]), "state": torch.from_numpy(one.state[None])}
        plain = policy.network.predict(batch | policy.network.tokenize([text])).numpy()
        assert np.array_equal(policy.infer([[one]], [(0, 0)]), plain)
        assert np.array_equal(policy.infer([[one]], [(0, 0)]), plain)


def test_a_batch_answers_like_each_alone(policy, observation):
    many = [observation(policy.embodiment, seed, f"find number {seed % 3}") for seed in range(5)]
    together = policy.infer([[one] for one in many], [(0, 0)] * 5)
    alone = np.concatenate([policy.infer([[one]], [(0, 0)]) for one in many])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 1e-4


def test_thousands_of_instructions_are_not_all_remembered(policy, observation):
    for number in range(1100):
        policy._instructions([f"find block {number}"])
    assert len(policy._encoded) <= 1024
    many = [observation(policy.embodiment, 1, f"find block {number}") for number in range(1030)]
    chunks = policy.infer([[one] for one in many], [(0, 0)] * len(many))
    np.testing.assert_allclose(policy.infer([many[:1]], [(0, 0)])[0], chunks[0], rtol=0, atol=1e-5)


def test_read_only_images_are_fine(policy, observation):
    one = observation(policy.embodiment)
    one.images["top"].setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.infer([[one]], [(0, 0)])


def test_attention_and_warm_up(policy, observation):
    policy.warm_up()
    look = policy.attention([[observation(policy.embodiment)]])
    assert look.shape == (1, 4, 4)
    assert look.sum() == pytest.approx(1.0, abs=1e-5)


def test_an_observation_that_does_not_fit_is_refused(policy, observation, body):
    with pytest.raises(TandemError, match=r"state is float32 \(3,\)"):
        policy.infer([[observation(body(states=3))]], [(0, 0)])
    broken = observation(policy.embodiment)
    broken.state[0] = np.nan
    with pytest.raises(TandemError, match="not finite"):
        policy.infer([[broken]], [(0, 0)])


def test_cameras_that_it_does_not_look_at_change_nothing(policy, observation, body):
    """Regression: it fitted a robot with more cameras, and then refused every observation of it."""
    robot = body(cameras=(Camera("wrist", 16, 16), *policy.embodiment.cameras))
    policy.embodiment.require_fit(robot, "policy")
    seen = observation(robot)
    own = replace(seen, images={"top": seen.images["top"]})
    assert np.array_equal(policy.infer([[seen]], [(0, 0)]), policy.infer([[own]], [(0, 0)]))
    with pytest.raises(TandemError, match=r"cameras \['wrist'\] \(allowed: \['top'\]\)"):
        policy.infer([[replace(seen, images={"wrist": seen.images["wrist"]})]], [(0, 0)])


def test_a_device_that_is_not_there_is_refused(directory):
    with pytest.raises(TandemError, match="unknown name 'cpuu'; did you mean 'cpu'"):
        tandem_policies.load(directory, "cpuu")
    with pytest.raises(TandemError, match="threads is 0"):
        tandem_policies.load(directory, "cpu", threads=0)


def test_a_known_device_that_this_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(TandemError, match=r"'cuda' is not on this machine \(allowed: auto, cpu\)"):
        choose_device("cuda")


def test_importing_and_serving_stay_light(body, tmp_path):
    """Regression: outlining a network on the device ``meta`` imported torch._dynamo and sympy, 3.6 s of every start."""
    cameras = (Camera("top", 32, 32), Camera("wrist", 16, 16))
    directory = save(create("tinyvla", body(cameras=cameras)), tmp_path / "policy")
    heavy = [
        "torch._dynamo",
        "sympy",
        "lerobot",
        "torchvision",
        "transformers",
        "rclpy",
        "gymnasium",
        "hydra",
        "accelerate",
    ]
    code = (
        "import sys, tandem_policies, tandem_policies.registry as registry\n"
        "assert registry.policy_types() and 'torch' not in sys.modules\n"
        f"policy = tandem_policies.load({str(directory)!r}, 'cpu')\n"
        "policy.warm_up()\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
