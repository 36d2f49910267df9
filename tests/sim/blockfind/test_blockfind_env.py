import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import tandem_sim  # noqa: F401 (registers)
from tandem_datasets.errors import TandemError
from tandem_sim.blockfind import drawing, task
from tandem_sim.blockfind.env import BlockFindEnv

ENV_ID = "tandem/BlockFind-v0"


@pytest.fixture
def env():
    env = gymnasium.make(ENV_ID)
    yield env
    env.close()


def place(env, position):
    """Puts the agent somewhere, which no caller of the environment can."""
    env.unwrapped._position = np.array(position, np.float32)


def test_check_env_finds_nothing_to_warn_of(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_found_by_its_module_in_a_fresh_process():
    code = f"import gymnasium; print(gymnasium.make('tandem_sim:{ENV_ID}').unwrapped.embodiment.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "blockfind"


def test_a_seed_gives_the_same_episode_whatever_ran_before(env):
    first, _ = env.reset(seed=7)
    other = gymnasium.make(ENV_ID)
    other.reset(seed=1)
    other.step(np.ones(2, np.float32))
    other.reset()
    again, _ = other.reset(seed=7)
    assert (first["pixels"]["top"] == again["pixels"]["top"]).all()
    assert (first["agent_pos"] == again["agent_pos"]).all()
    assert first["instruction"] == again["instruction"]
    different, _ = other.reset(seed=8)
    assert (first["pixels"]["top"] != different["pixels"]["top"]).any()


@pytest.mark.parametrize(("away", "success"), [(0.4999, True), (0.5001, False)])
@pytest.mark.parametrize("direction", [(1, 0), (0, -1), (0.6, 0.8)])
def test_success_is_half_a_cell_euclidean_at_the_end_of_a_step(env, away, success, direction):
    for seed in range(50):
        env.reset(seed=seed)
        goal = env.unwrapped.layout.goal
        if (np.abs(goal - 4) < 3).all():
            break
    place(env, goal + away * np.array(direction))
    _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (terminated, truncated, info["is_success"], reward) == (success, False, success, float(success))
    assert info.get("outcome") == ("success" if success else None)


def test_a_diagonal_neighbour_within_half_a_cell_by_axis_has_not_arrived(env):
    env.reset(seed=0)
    place(env, env.unwrapped.layout.goal + np.float32(0.45))
    assert not env.step(np.zeros(2, np.float32))[2]


def test_passing_over_the_named_block_is_no_success(env):
    env.reset(seed=0)
    goal = env.unwrapped.layout.goal
    side = 1 if goal[0] < 4 else -1
    place(env, goal + np.array([side * 0.55, 0]))
    env.step(np.zeros(2, np.float32))
    place(env, goal + np.array([side * 0.55, 0.0]))
    assert not env.step(np.array([side * 1.0, 0], np.float32))[4]["is_success"]


def test_horizon_truncates_and_names_the_failure():
    env = gymnasium.make(ENV_ID, horizon=5)
    env.reset(seed=3)
    ends = [env.step(np.zeros(2, np.float32))[2:] for _ in range(5)]
    assert [truncated for _, truncated, _ in ends] == [False] * 4 + [True]
    assert ends[-1][2]["outcome"] in ("no_block", "wrong_block")
    assert env.unwrapped._max_episode_steps == 5


def test_observation_shows_the_new_position_and_info_what_was_done(env):
    before, _ = env.reset(seed=5)
    after, _, _, _, info = env.step(np.array([0.3, -0.2], np.float32))
    assert info["executed_action"].dtype == np.float32
    np.testing.assert_allclose(after["agent_pos"], before["agent_pos"] + info["executed_action"], atol=1e-6)
    expected = drawing.Canvas(1)
    expected.set_board(0, env.unwrapped.layout)
    assert (after["pixels"]["top"] == expected.draw(after["agent_pos"][None])[0]).all()
    assert (after["pixels"]["top"] != before["pixels"]["top"]).any()


def test_expert_always_arrives_by_straight_unit_steps(env):
    for seed in range(200):
        observation, _ = env.reset(seed=seed)
        nearest = np.linalg.norm(env.unwrapped.layout.goal - observation["agent_pos"])
        for taken in range(1, 33):  # noqa: B007 (read after the loop)
            action = env.unwrapped.expert_action()
            assert action.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(action), 1, rtol=1e-6)
            _, reward, terminated, _, _ = env.step(action)
            if terminated:
                break
        assert reward == 1
        assert taken <= nearest + 1


def test_no_colour_is_hidden_by_the_agent():
    canvas = drawing.Canvas(1)
    for colour, rgb in task.PALETTE.items():
        layout = task.Layout(np.array([[4.5, 3.5]], np.float32), (colour,), 0, np.zeros(2, np.float32), "")
        canvas.set_board(0, layout)
        for offset in ((0, 0), (0.2, 0.1), (0.5, 0.5), (-0.5, 0)):
            image = canvas.draw(layout.goal[None] + np.array([offset], np.float32))[0]
            cell = image[24:32, 32:40].reshape(-1, 3)
            assert (cell == rgb).all(axis=1).sum() >= 12
            assert (image != drawing.draw_board(layout)).any(axis=2).sum() >= 20


def test_the_smallest_visible_motion_is_far_below_a_pixel():
    canvas = drawing.Canvas(2)
    for index in range(2):
        canvas.set_board(index, task.lay_out(np.random.default_rng(0), task.Options()))
    images = canvas.draw(np.array([[4, 4], [4 + 1 / 100, 4]], np.float32))
    assert (images[0] != images[1]).any()


def test_picture_for_people_is_enlarged_and_captioned():
    env = gymnasium.make(ENV_ID, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    view = env.render()
    assert view.shape == (560, 512, 3)
    assert (view[4:512:8, 4::8] == observation["pixels"]["top"]).all()
    assert view[512:].max() > 200


def test_bad_use_is_one_clear_line(env):
    with pytest.raises(TandemError, match="no episode yet"):
        env.unwrapped.expert_action()
    env.reset(seed=0)
    with pytest.raises(TandemError, match="not finite"):
        env.step(np.array([np.nan, 0], np.float32))
    with pytest.raises(TandemError, match="render_mode"):
        BlockFindEnv(render_mode="ascii")


def test_a_window_without_a_display_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(TandemError, match="no display"):
        gymnasium.make(ENV_ID, render_mode="human")
