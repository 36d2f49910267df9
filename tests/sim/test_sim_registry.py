import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import check_observation
from tandem_datasets.rollout import EnvSpec
from tandem_sim import observations, registry, spaces

DEEP = Embodiment(
    "arm",
    10.0,
    False,
    (Camera("wrist", 4, 6, "depth"), Camera("top", 2, 2)),
    (),
    (ActionScalar("grip", "1", 0.0, 2.0, ActionKind.ABSOLUTE),),
)


@pytest.mark.parametrize("name", ["tandem/BlockFind-v0"])  # the H1's have tests of their own
def test_every_environment_keeps_the_contract_for_one_expert_episode(name):
    env = registry.make(EnvSpec(name))
    embodiment = env.unwrapped.embodiment
    assert env.observation_space == spaces.observation_space(embodiment)
    assert env.action_space == spaces.action_space(embodiment)
    assert env.metadata["render_fps"] == embodiment.rate_hz
    gym_obs, _ = env.reset(seed=0)
    done = False
    while not done:
        assert gym_obs in env.observation_space
        seen = observations.to_observation(embodiment, gym_obs, 5)
        check_observation(embodiment, seen, name)
        assert seen.instruction == env.unwrapped.task_description
        assert seen.stamp_ns == 5
        back = observations.from_observation(embodiment, seen)
        assert back["pixels"]["top"] is gym_obs["pixels"]["top"]
        assert back in env.observation_space
        action = env.unwrapped.expert_action()
        assert action in env.action_space
        gym_obs, _, terminated, truncated, info = env.step(action)
        assert info["executed_action"] in env.action_space
        done = terminated or truncated
    assert info["is_success"]
    assert info["outcome"] == "success"
    env.close()


def test_embodiment_is_known_without_an_episode():
    assert registry.embodiment(EnvSpec("tandem/BlockFind-v0")).name == "blockfind"


def test_many_are_made_alike():
    assert registry.make_vec(EnvSpec("tandem/BlockFind-v0", {"horizon": 3}), 4).unwrapped.options.horizon == 3


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EnvSpec("tandem/BlokFind-v0"), "did you mean 'tandem/BlockFind-v0'"),
        (EnvSpec("BlockFind"), "unknown name 'BlockFind'"),
        (EnvSpec("tandem/BlockFind-v0", {"speed": 3}), "unexpected keyword argument 'speed'"),
        (EnvSpec("tandem/BlockFind-v0", {"horizon": 0}), "horizon is 0"),
        (EnvSpec("CartPole-v1"), "describes no embodiment"),
    ],
)
def test_bad_specifications_are_refused_in_one_line(spec, words):
    with pytest.raises(TandemError, match=words) as caught:
        registry.make(spec)
    assert "\n" not in str(caught.value)


def test_spaces_hold_only_what_the_embodiment_has():
    space = spaces.observation_space(DEEP)
    assert set(space.spaces) == {"pixels"}
    assert space["pixels"]["wrist"].shape == (4, 6, 1)
    assert space["pixels"]["wrist"].dtype == np.uint16
    assert space["pixels"]["wrist"].high.max() == 65535
    assert spaces.action_space(DEEP).high.tolist() == [2.0]
    seen = observations.to_observation(DEEP, space.sample(), 0)
    check_observation(DEEP, seen, "sample")
    assert seen.instruction == ""
    felt = Embodiment("felt", 10.0, True, (), (StateScalar("x", "m", -1, 1, "pose"),), DEEP.action)
    assert set(spaces.observation_space(felt).spaces) == {"agent_pos", "instruction"}
    assert "" in spaces.observation_space(felt)["instruction"]


def test_registering_again_changes_nothing():
    before = dict(gymnasium.registry)
    registry.register()
    assert dict(gymnasium.registry) == before


def test_neither_torch_nor_ros_is_imported():
    code = """
import importlib, pkgutil, sys, tandem_sim
for module in pkgutil.walk_packages(tandem_sim.__path__, "tandem_sim."):
    importlib.import_module(module.name)
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
tandem_sim.rollout.run(RolloutRequest(EnvSpec("tandem/BlockFind-v0"), EXPERT, 2, 0), lambda result: None)
heavy = {"torch", "rclpy", "lerobot", "transformers", "hydra", "tandem_policies", "tandem_training", "tandem_ros"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
