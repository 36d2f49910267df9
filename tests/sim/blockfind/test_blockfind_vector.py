import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import tandem_sim  # noqa: F401 (registers)
from tandem_datasets.errors import TandemError

ENV_ID = "tandem/BlockFind-v0"
N = 9


def same(a, b):
    """Equal to the last bit, through dicts, tuples and arrays."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and a.dtype == object:
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_bit_identical_to_gymnasiums_vector_of_single_ones(mode):
    options = {"wordings": "varied", "horizon": 7}
    fast = gymnasium.make_vec(ENV_ID, num_envs=N, autoreset_mode=mode, **options)
    slow = gymnasium.make_vec(
        ENV_ID, num_envs=N, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **options
    )
    assert fast.metadata["autoreset_mode"] is mode
    assert fast.observation_space == slow.observation_space
    assert fast.action_space == slow.action_space
    assert same(fast.reset(seed=11)[0], slow.reset(seed=11)[0])
    rng = np.random.default_rng(0)
    ended = 0
    for step in range(40):
        expert = fast.unwrapped.expert_action()
        assert same(expert, np.stack([env.unwrapped.expert_action() for env in slow.envs]))
        actions = expert if step % 3 else rng.uniform(-1, 1, (N, 2)).astype(np.float32)
        ours, theirs = fast.step(actions), slow.step(actions)
        for mine, reference in zip(ours[:4], theirs[:4], strict=True):
            assert same(mine, reference)
        assert ours[0]["pixels"]["top"] in fast.observation_space["pixels"]["top"]
        running = theirs[4].get("_is_success", np.zeros(N, bool))
        for key in ("executed_action", "is_success", "outcome"):
            assert same(ours[4].get(f"_{key}", np.zeros(N, bool)), theirs[4].get(f"_{key}", np.zeros(N, bool)))
            if key in theirs[4]:
                assert same(ours[4][key][running], theirs[4][key][running])
        if "final_obs" in theirs[4]:
            assert same(ours[4]["final_obs"], theirs[4]["final_obs"])
            final, reference = ours[4]["final_info"], theirs[4]["final_info"]
            for key in ("executed_action", "is_success", "outcome"):
                over = reference[f"_{key}"]
                assert same(final[f"_{key}"], over)
                assert same(final[key][over], reference[key][over])
        ended += int((ours[2] | ours[3]).sum())
    assert ended > 2 * N


def test_one_environment_can_begin_a_given_episode_while_the_others_go_on():
    envs = gymnasium.make_vec(ENV_ID, num_envs=3, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=[5, 6, 7])
    envs.step(np.zeros((3, 2), np.float32))
    mask = np.array([False, True, False])
    observation, _ = envs.reset(seed=[None, 99, None], options={"reset_mask": mask})
    for index, seed in enumerate((5, 99, 7)):
        single = gymnasium.make(ENV_ID)
        expected, _ = single.reset(seed=seed)
        assert same(observation["pixels"]["top"][index], expected["pixels"]["top"])
        assert observation["instruction"][index] == expected["instruction"]


def test_without_autoreset_the_finished_stand_still():
    envs = gymnasium.make_vec(ENV_ID, num_envs=4, horizon=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    right = np.tile(np.array([0.1, 0], np.float32), (4, 1))
    for _ in range(2):
        there, _, _, _, _ = envs.step(right)
    still, rewards, terminated, truncated, info = envs.step(right)
    assert (terminated | truncated).all()
    assert not rewards.any()
    assert not info["_executed_action"].any()
    assert same(still["agent_pos"], there["agent_pos"])
    assert same(still["pixels"], there["pixels"])


def test_pictures_and_bad_use():
    envs = gymnasium.make_vec(ENV_ID, num_envs=2, render_mode="rgb_array")
    with pytest.raises(TandemError, match="no episode yet"):
        envs.step(np.zeros((2, 2), np.float32))
    with pytest.raises(TandemError, match="must be of all"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    assert [picture.shape for picture in envs.render()] == [(560, 512, 3)] * 2
    with pytest.raises(TandemError, match="as many seeds"):
        envs.reset(seed=[1])
    with pytest.raises(TandemError, match="not finite"):
        envs.step(np.full((2, 2), np.inf, np.float32))
