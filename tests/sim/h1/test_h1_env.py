import hashlib
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import tandem_sim  # noqa: F401 (registers)
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import check_observation
from tandem_datasets.rollout import EnvSpec
from tandem_sim import observations, registry, spaces
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.rates import actions
from tandem_sim.h1.settings import TASKS, Randomise, Settings

FAST = {"cameras": (), "action_mode": "joint"}


def env_id(task):
    return f"tandem/H1{task.capitalize()}-v0"


def digest(steps):
    """One hash of everything that steps gave."""
    found = hashlib.sha256()
    for observation, *rest in steps:
        found.update(observation["agent_pos"].tobytes())
        found.update(observation["instruction"].encode())
        for image in observation.get("pixels", {}).values():
            found.update(image.tobytes())
        found.update(repr(rest).encode())
    return found.hexdigest()


def play(env, deeds, seed):
    """What an episode gives, step by step."""
    yield env.reset(seed=seed)[0], 0.0
    for deed in deeds:
        observation, reward, terminated, truncated, info = env.step(deed)
        yield observation, float(reward), terminated, truncated, info["is_success"], float(info["progress"])
        if terminated or truncated:
            return


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", ["joint", "ee_delta"])
def test_gymnasium_accepts_every_task(task, mode):
    env = gymnasium.make(env_id(task), action_mode=mode, image_size=32, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_keeps_the_contract(task):
    options = {"action_mode": "joint", "privileged": True, "cameras": ("front",), "image_size": 16, "horizon": 3}
    env = registry.make(EnvSpec(env_id(task), options))
    body = env.unwrapped.embodiment
    assert env.observation_space == spaces.observation_space(body)
    assert env.action_space == spaces.action_space(body)
    assert env.metadata["render_fps"] == body.rate_hz == 50
    observation, _ = env.reset(seed=1)
    for step in range(3):
        assert observation in env.observation_space
        seen = observations.to_observation(body, observation, step)
        check_observation(body, seen, task)
        assert seen.instruction == env.unwrapped.task_description != ""
        observation, _, terminated, truncated, info = env.step(None)
        assert info["executed_action"] in env.action_space
        assert 0 <= info["progress"] <= 1
    assert truncated
    assert not terminated
    assert info["outcome"] in env.unwrapped.task.failures
    assert info["grade"]
    assert all(type(held) is bool for held in info["grade"].values())
    env.close()


def test_a_held_robot_stands_still():
    env = H1Env("stack", **FAST)
    first = env.reset(seed=0)[0]["agent_pos"]
    for _ in range(50):
        observation, *_ = env.step(None)
    assert observation["agent_pos"][:15] == pytest.approx(first[:15], abs=2e-3)
    assert abs(observation["agent_pos"][15:30]).max() < 1e-2


def test_the_same_seed_and_actions_give_the_same_bits_whatever_is_drawn_besides():
    plain = H1Env("pick", privileged=True, **FAST)
    seen = H1Env("pick", action_mode="joint", privileged=True, cameras=("front", "left_wrist"), image_size=24)
    deeds = actions(plain, 12)
    states = [step[0]["agent_pos"].tobytes() for step in play(plain, deeds, 3)]
    assert [step[0]["agent_pos"].tobytes() for step in play(seen, deeds, 3)] == states
    assert [step[0]["agent_pos"].tobytes() for step in play(plain, deeds, 3)] == states  # a second time
    assert [step[0]["agent_pos"].tobytes() for step in play(plain, deeds, 4)] != states


def test_another_process_gives_the_same_bits():
    options = {"action_mode": "ee_delta", "cameras": ("front",), "image_size": 24, "randomise": True}
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_h1_env import H1Env, actions, digest, play
env = H1Env("join", **{options!r})
print(digest(play(env, actions(env, 8), 5)))
"""
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    env = H1Env("join", **options)
    assert there.stdout.strip() == digest(play(env, actions(env, 8), 5))


def test_layouts_do_not_depend_on_what_is_randomised():
    plain, shaken = H1Env("stack", **FAST), H1Env("stack", randomise=True, **FAST)
    assert plain.reset(seed=8)[0]["instruction"] == shaken.reset(seed=8)[0]["instruction"]
    assert plain.layout == shaken.layout


def test_randomisation_changes_what_it_says_and_leaves_the_scene_as_it_was():
    env = H1Env(
        "place", randomise={"friction": 1, "mass": 1, "light": 1, "camera": 1, "colour": 1, "latency": 1}, **FAST
    )
    base, model = env.world.scene.model, env.world.model
    env.reset(seed=1)
    box = env.world.scene.brick_geoms[0][0]
    body = env.world.scene.brick_bodies[0]
    front = env.world.scene.cameras["front"]
    ratio = model.geom_friction[box, 0] / base.geom_friction[box, 0]
    assert 0.75 <= ratio <= 1.25
    assert ratio != 1
    assert 0.75 <= model.body_mass[body] / base.body_mass[body] <= 1.25
    assert np.abs(model.cam_pos[front] - base.cam_pos[front]).max() <= 0.015 * 1.0001
    assert (model.light_dir != base.light_dir).any()
    late = {env.world.late_substeps}
    for seed in range(2, 20):
        env.reset(seed=seed)
        late.add(env.world.late_substeps)
    assert late == set(range(6))
    slowest = H1Env("place", randomise={"latency": 3}, **FAST)
    for seed in range(20):
        slowest.reset(seed=seed)
        late.add(slowest.world.late_substeps)
        slowest.step(None)
    assert max(late) == 10  # a whole control step
    assert Randomise.of(["light"]) == Randomise(light=1.0)
    assert not Randomise.of(False).any


def test_late_drives_follow_later():
    prompt, late = H1Env("reach", **FAST), H1Env("reach", randomise={"latency": 1}, **FAST)
    deeds = actions(prompt, 5)
    seed = next(s for s in range(99) if late.reset(seed=s) and late.world.late_substeps == 5)
    first = next(s for k, s in enumerate(play(prompt, deeds, seed)) if k == 1)[0]["agent_pos"]
    behind = next(s for k, s in enumerate(play(late, deeds, seed)) if k == 1)[0]["agent_pos"]
    start = prompt.reset(seed=seed)[0]["agent_pos"]
    assert 0 < np.abs(behind - start)[:15].max() < np.abs(first - start)[:15].max()


def test_actions_out_of_range_are_clamped_and_counted():
    env = H1Env("reach", **FAST)
    env.reset(seed=0)
    wild = np.full(17, 99, np.float32)
    assert env.step(wild)[4]["clamped"] == 17
    info = env.step(wild)[4]
    assert info["clamped"] == 34
    assert info["executed_action"] in env.action_space


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.zeros(16, np.float32), r"shape \(16,\) \(allowed: \(17,\)\)"),
        (np.full(17, np.nan, np.float32), "torso is not finite"),
        (np.full(17, 99, np.float32), "torso is 99"),
        ("up", "str"),
    ],
)
def test_bad_actions_are_refused_in_one_line(action, words):
    env = H1Env("reach", strict=True, **FAST)
    env.reset(seed=0)
    with pytest.raises(TandemError, match=words) as caught:
        env.step(action)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "juggle"}, "task: unknown name 'juggle'"),
        ({"cameras": ("fron",)}, "cameras: unknown name 'fron'; did you mean 'front'"),
        ({"cameras": "front"}, "cameras is 'front'"),
        ({"cameras": ("front", "front")}, "each once"),
        ({"image_size": 4}, "image_size is 4"),
        ({"image_size": (64, 64, 3)}, "image_size is"),
        ({"rate_hz": 30}, "rate_hz is 30"),
        ({"pitch_mm": 10}, "pitch_mm is 10"),
        ({"action_mode": "torque"}, "unknown name 'torque'"),
        ({"action_mode": "joint", "rotation": "full"}, "with action_mode 'joint'"),
        ({"depth": True, "cameras": ()}, "without cameras"),
        ({"horizon": 0}, "horizon is 0"),
        ({"plan": "red 2x4 on blue 2x4"}, "in 'build'"),
        ({"speed": 3}, "unknown name 'speed'"),
        ({"randomise": {"ligth": 1}}, "did you mean 'light'"),
        ({"randomise": {"light": 9}}, "randomise.light is 9"),
        ({"distractors": 40}, "bricks in 8 colours"),
        ({"colours": ("red", "pink")}, "unknown name 'pink'"),
        ({"robot": ""}, "robot is ''"),
        ({"robot": "nowhere.xml"}, "nowhere.xml"),
        ({"strict": 1}, "strict is 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, words):
    task = options.get("task", "stack")
    given = {key: value for key, value in options.items() if key != "task"}
    with pytest.raises(TandemError, match=words) as caught:
        H1Env(task, **{"cameras": (), **given})
    assert "\n" not in str(caught.value)


def test_the_registry_tells_of_bad_options_in_one_line():
    with pytest.raises(TandemError, match="unknown name 'fornt'") as caught:
        registry.make(EnvSpec("tandem/H1Stack-v0", {"cameras": ["fornt"]}))
    assert "\n" not in str(caught.value)


def test_stepping_before_a_reset_is_refused():
    env = H1Env("reach", **FAST)
    with pytest.raises(TandemError, match="call reset first"):
        env.step(None)
    with pytest.raises(TandemError, match="call reset first"):
        env.task_description  # noqa: B018


def test_settings_take_themselves():
    settings = Settings.of("stack", {"cameras": ["head"], "image_size": 96, "randomise": True})
    assert Settings(**vars(settings)) == settings
    assert settings.image_shape == (96, 96)
    assert settings.substeps == 10
    assert Settings(rate_hz=20).substeps == 25
