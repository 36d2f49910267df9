import multiprocessing
import os
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import tandem_sim  # noqa: F401 (registers)
from tandem_datasets.errors import TandemError
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.rates import actions
from tandem_sim.h1.vector import H1VectorEnv

N = 3
FAST = {"cameras": (), "action_mode": "joint"}


def same(a, b):
    """Equal to the last bit, through dicts, tuples and arrays."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and a.dtype == object:
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def deeds(options, steps):
    """Open-loop actions, others for each environment: (steps, N, A)."""
    env = H1Env("stack", **options)
    return np.stack([actions(env, steps, seed=k) for k in range(N)], axis=1)


@pytest.mark.parametrize(
    ("task", "engine", "mode", "options"),
    [
        ("stack", "batch", AutoresetMode.NEXT_STEP, FAST),
        ("build", "batch", AutoresetMode.SAME_STEP, FAST),
        ("place", "batch", AutoresetMode.NEXT_STEP, {**FAST, "rate_hz": 20, "privileged": True, "randomise": True}),
        ("disassemble", "batch", AutoresetMode.NEXT_STEP, {**FAST, "rate_hz": 25}),
        ("pick", "processes", AutoresetMode.SAME_STEP, {"image_size": 16, "depth": True, "segmentation": True}),
    ],
)
def test_bit_identical_to_gymnasiums_vector_of_single_ones(task, engine, mode, options):
    options = {**options, "horizon": 9}
    env_id = f"tandem/H1{task.capitalize()}-v0"
    fast = gymnasium.make_vec(env_id, num_envs=N, engine=engine, workers=2, autoreset_mode=mode, **options)
    slow = gymnasium.make_vec(
        env_id, num_envs=N, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **options
    )
    assert fast.unwrapped.engine == engine
    assert fast.metadata["autoreset_mode"] is mode
    assert fast.observation_space == slow.observation_space
    assert fast.action_space == slow.action_space
    ended = 0
    try:
        assert same(fast.reset(seed=11)[0], slow.reset(seed=11)[0])
        for batch in deeds(options, 22):
            ours, theirs = fast.step(batch), slow.step(batch)
            assert all(same(mine, reference) for mine, reference in zip(ours, theirs, strict=True))
            ended += int((ours[2] | ours[3]).sum())
    finally:
        fast.close()
        slow.close()
    assert ended == 2 * N


def test_bricks_that_are_pressed_together_lock_alike_in_both_engines():
    """A brick falls onto another under its own weight and the hand's: the step is taken substep by substep."""
    many = H1VectorEnv(2, task="stack", horizon=80, **FAST)
    one = H1Env("stack", horizon=80, **FAST)
    many.reset(seed=4)
    one.reset(seed=4)
    worlds = [many._fleet._worlds[0], one.world]
    upper, lower = one.layout.roles[:2]
    for world in worlds:
        poses = world.observer.poses(world.data.qpos)
        poses[upper] = poses[lower]
        poses[upper, 2] += world.task.height + 2e-4
        world.model.body_mass[world.scene.brick_bodies[upper]] = 2.0  # heavy enough to press itself on
    many._fleet._put(0)
    hold = np.tile(worlds[0].actions.step(None).action, (2, 1))
    for _ in range(20):
        seen, reward, *_ = many.step(hold)
        alone = one.step(hold[0])
        assert same(seen["agent_pos"][0], alone[0]["agent_pos"])
        assert reward[0] == alone[1]
    assert one.world.connections.edges == worlds[0].connections.edges
    assert len(one.world.connections.edges) == 1
    assert same(many._fleet._qpos[0], one.world.data.qpos)


def test_one_environment_can_begin_a_given_episode_while_the_others_stand():
    envs = gymnasium.make_vec("tandem/H1Reach-v0", num_envs=N, autoreset_mode="Disabled", horizon=2, **FAST)
    envs.reset(seed=[5, 6, 7])
    hold = deeds(FAST, 2)[0]
    for _ in range(2):
        there, *_ = envs.step(hold)
    still, rewards, terminated, truncated, info = envs.step(hold)
    assert same(still, there)
    assert rewards.tolist() == [0] * N
    assert truncated.all()
    assert not terminated.any()
    assert not info
    mask = np.array([False, True, False])
    observation, _ = envs.reset(seed=[None, 99, None], options={"reset_mask": mask})
    single = H1Env("reach", horizon=2, **FAST)
    expected = single.reset(seed=99)[0]
    assert same(observation["agent_pos"][1], expected["agent_pos"])
    assert observation["instruction"][1] == expected["instruction"]
    assert same(observation["agent_pos"][0], there["agent_pos"][0])
    assert envs.step(hold)[3].tolist() == [True, False, True]


def test_a_worker_that_dies_is_told_of_and_none_stays():
    before = set(multiprocessing.active_children())
    envs = H1VectorEnv(2, task="reach", engine="processes", workers=2, cameras=())
    envs.reset(seed=0)
    mine = sorted(set(multiprocessing.active_children()) - before, key=lambda process: process.pid)
    assert len(mine) == 2
    os.kill(mine[0].pid, signal.SIGKILL)
    mine[0].join()
    with pytest.raises(TandemError, match=r"worker process [01] of 2 ended with status -9") as caught:
        envs.step(np.zeros((2, 10), np.float32))
    assert "\n" not in str(caught.value)
    assert not set(multiprocessing.active_children()) - before
    with pytest.raises(TandemError, match="closed"):
        envs.step(np.zeros((2, 10), np.float32))
    envs.close()


def test_what_a_worker_refuses_is_told_in_its_words():
    with pytest.raises(TandemError, match=r"H1: robot|nowhere\.xml"):
        H1VectorEnv(2, task="reach", engine="processes", workers=1, cameras=(), robot="nowhere.xml")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"engine": "gpu"}, "unknown name 'gpu'"),
        ({"engine": "batch"}, "with action_mode 'joint'"),
        ({"render_mode": "rgb_array"}, "render_mode of many"),
        ({"cameras": ("fron",)}, "unknown name 'fron'"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, words):
    with pytest.raises(TandemError, match=words) as caught:
        H1VectorEnv(**{"num_envs": 2, "task": "reach", "cameras": (), **options})
    assert "\n" not in str(caught.value)


def test_bad_actions_and_resets_are_refused_before_anybody_moves():
    envs = H1VectorEnv(2, task="reach", strict=True, **FAST)
    with pytest.raises(TandemError, match="call reset first"):
        envs.step(np.zeros((2, 17), np.float32))
    with pytest.raises(TandemError, match="the first reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(TandemError, match="as many seeds"):
        envs.reset(seed=[1])
    envs.reset(seed=1)
    hold = envs._desk.executed.copy()
    for bad, words in (
        (np.zeros((2, 3)), "shape"),
        (np.full((2, 17), np.nan), "torso of environment 0 is not finite"),
        (np.full((2, 17), 50.0), "torso of environment 0 is 50"),
    ):
        with pytest.raises(TandemError, match=words):
            envs.step(bad)
    assert same(envs._desk.executed, hold)
    envs.close()
