"""Environments as LeRobot's evaluation steps them; LeRobot itself is not needed."""

import subprocess
import sys

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EnvSpec
from tandem_sim import lerobot_env, registry

SPEC = EnvSpec("tandem/BlockFind-v0")


@pytest.fixture
def env():
    made = lerobot_env.make(SPEC)
    yield made
    made.close()


def test_it_shows_what_lerobot_looks_for(env):
    observation, _ = env.reset(seed=3)
    assert set(observation) == {"pixels", "agent_pos", "episode_seed"}
    assert observation in env.observation_space
    plain = registry.make(SPEC)
    seen = plain.reset(seed=3)[0]
    np.testing.assert_array_equal(observation["pixels"]["top"], seen["pixels"]["top"])
    assert env.task_description == seen["instruction"]
    assert env.get_wrapper_attr("_max_episode_steps") == 32
    assert env.metadata["render_fps"] == 30
    assert env.render().dtype == np.uint8
    assert env.task == SPEC.id
    plain.close()


@pytest.mark.parametrize("seed", [0, 65536, 500123, 2**62 + 7])
def test_a_seed_survives_as_four_small_numbers(env, seed):
    parts = env.reset(seed=seed)[0]["episode_seed"].astype(np.float32)  # as LeRobot hands it on
    assert sum(int(part) << 16 * place for place, part in enumerate(parts)) == seed


def test_actions_are_limited_as_by_the_other_gates(env):
    """Limited to the embodiment's limits and then shortened: (3, 1) goes on as (1, 1), not as (1, 1/3)."""
    env.reset(seed=1)
    executed = env.step(np.array([3.0, 1.0], np.float32))[4]["executed_action"]
    plain = registry.make(SPEC)
    plain.reset(seed=1)
    np.testing.assert_array_equal(executed, plain.step(np.array([1.0, 1.0], np.float32))[4]["executed_action"])
    plain.close()


def test_an_ended_episode_stays_until_the_next_seed(env):
    """Vector environments go on by themselves after an end; LeRobot counts what happens in the step after it."""
    short = EnvSpec(SPEC.id, {"horizon": 2})
    envs = SyncVectorEnv([lambda: lerobot_env.make(short)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=[1, 2], options={"lerobot_new_rollout": True})
    still = np.zeros((2, 2), np.float32)
    envs.step(still)
    observation, _, _, truncated, info = envs.step(still)
    assert truncated.all()
    assert not info["final_info"]["is_success"].any()
    for _ in range(3):
        again, reward, _, truncated, info = envs.step(np.ones((2, 2), np.float32))
        np.testing.assert_array_equal(again["agent_pos"], observation["agent_pos"])
        assert truncated.all()
        assert not info["final_info"]["is_success"].any()
        assert not reward.any()
    fresh, _ = envs.reset(seed=[3, 4], options={"lerobot_new_rollout": True})
    assert not envs.step(still)[3].any()
    np.testing.assert_array_equal(fresh["agent_pos"][0], env.reset(seed=3)[0]["agent_pos"])
    envs.close()


def test_episodes_without_seeds_differ_and_tell_theirs(env):
    env.reset(seed=5)
    drawn = [env.reset(options={})[0]["episode_seed"].tolist() for _ in range(3)]
    assert len({tuple(parts) for parts in drawn}) == 3


def test_workers_import_no_lerobot():
    code = "import sys, tandem_sim.lerobot_env; print([name for name in ('lerobot', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_option_is_named():
    with pytest.raises(TandemError, match="colour"):
        lerobot_env.make(EnvSpec(SPEC.id, {"colour": "red"}))
