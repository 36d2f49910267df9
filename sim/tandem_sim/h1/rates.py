"""How fast the H1 environments are against MuJoCo itself.

Each figure is a ratio: what a bare loop around ``mj_step`` takes for the same scene, the same drives' inputs and as
many substeps, over what the environment takes. Both run in turns, in short blocks, so that whatever else the machine
does falls on both. One process is timed by its CPU time, several together by the clock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from tandem_sim.h1 import rendering
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.robot import HOME
from tandem_sim.h1.vector import H1VectorEnv

TASK, DISTRACTORS = "stack", 6  # eight bricks in all
STEPS = 150  # control steps of a block: 3 s of the robot's time
SWING_RAD = 0.25  # of the hinges around the home posture


@dataclass(frozen=True)
class Tape:
    """What an environment wrote into its model and data at each control step, to play it again without it."""

    ctrl: np.ndarray  # (T, nu)
    slew: np.ndarray  # (T, actuators)
    state: np.ndarray  # at the begin


def rate_joint(repeats: int = 7, task: str = TASK, distractors: int | None = DISTRACTORS) -> list[float]:
    """State only, 17 joint targets: one ratio a repeat, 1 would be as fast as bare MuJoCo."""
    return _ratios(_env(task, distractors, action_mode="joint"), repeats)


def rate_ee(repeats: int = 7, task: str = TASK, distractors: int | None = DISTRACTORS) -> list[float]:
    """State only, through inverse kinematics."""
    return _ratios(_env(task, distractors, action_mode="ee_delta"), repeats)


def rate_pixels(repeats: int = 5, task: str = TASK, distractors: int | None = DISTRACTORS) -> list[float]:
    """Two 128x128 cameras, against bare MuJoCo with MuJoCo's own renderer under the same flags.

    Raises:
        TandemError: there is no OpenGL here.
    """
    env = _env(task, distractors, action_mode="joint", cameras=("front", "head"), image_size=128)
    # MuJoCo's renderer takes the back end that was chosen when MuJoCo was imported; this one must be ours
    gl_context.GLContext = rendering.context_class()  # type: ignore[attr-defined]
    with mujoco.Renderer(env.world.model, 128, 128) as renderer:
        rendering.set_flags(renderer.scene)

        def look(data: mujoco.MjData) -> None:
            for camera in ("front", "head"):
                renderer.update_scene(data, camera)
                renderer.render()

        return _ratios(env, repeats, look, steps=STEPS // 3)


def rate_vector(
    repeats: int = 7, task: str = TASK, distractors: int | None = DISTRACTORS, num_envs: int = 32, steps: int = 20
) -> list[float]:
    """State only, ``num_envs`` environments under joint targets on two threads of ``mujoco.batch``, by the clock.

    Against two processes of bare ``mj_step``, each with half of the same motions.
    """
    scene: dict[str, Any] = {"task": task, "distractors": distractors, "action_mode": "joint"}
    envs = H1VectorEnv(num_envs, engine="batch", workers=2, cameras=(), **scene)
    one = _env(**scene)
    deeds = np.stack([actions(one, steps, seed=k) for k in range(num_envs)], axis=1)
    halves = np.array_split(np.arange(num_envs), 2)
    context = get_context("spawn")
    pipes, processes = [], []
    found = []
    try:
        for half in halves:
            mine, theirs = context.Pipe()
            job = (theirs, scene, half.tolist(), deeds[:, half])
            process = context.Process(target=_bare_half, args=job, daemon=True)
            process.start()
            pipes.append(mine)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()  # they are ready
        for repeat in range(repeats + 1):
            envs.reset(seed=0)
            begin = time.perf_counter()
            for batch in deeds:
                envs.step(batch)
            ours = time.perf_counter() - begin
            begin = time.perf_counter()
            for pipe in pipes:
                pipe.send(True)
            for pipe in pipes:
                pipe.recv()
            bare = time.perf_counter() - begin
            if repeat:
                found.append(bare / ours)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        envs.close()
    return found


def _bare_half(pipe: Connection, scene: dict[str, Any], seeds: list[int], deeds: np.ndarray) -> None:
    """Plays environments' motions without them, each time that it is asked to."""
    env = _env(**scene)
    tapes = [_record(env, deeds[:, at], seed) for at, seed in enumerate(seeds)]
    models = [env.world.scene.copy() for _ in seeds]
    datas = [mujoco.MjData(model) for model in models]
    slews = [model.actuator_dynprm[:, 1] for model in models]
    substeps = env.settings.substeps
    pipe.send(True)
    while pipe.recv():
        for model, data, tape in zip(models, datas, tapes, strict=True):
            mujoco.mj_setState(model, data, tape.state, mujoco.mjtState.mjSTATE_INTEGRATION)
        for step in range(len(deeds)):
            for model, data, slew, tape in zip(models, datas, slews, tapes, strict=True):
                data.ctrl[:] = tape.ctrl[step]
                slew[:] = tape.slew[step]
                mujoco.mj_step(model, data, substeps)
        pipe.send(True)


def deterministic(steps: int = 30) -> dict[str, bool]:
    """Whether the same seed and actions give the same bits: again, in another process, among many, and with pictures.

    Raises:
        TandemError: there is no OpenGL here.
    """
    same = {}
    for task in ("stack", "disassemble"):
        options: dict[str, Any] = {"action_mode": "joint", "cameras": (), "privileged": True}
        env = H1Env(task, **options)
        deeds = actions(env, steps)
        first = trace(env, deeds)
        same[f"{task} again"] = trace(env, deeds) == first
        same[f"{task} drawn"] = (
            trace(H1Env(task, **{**options, "cameras": ("front",), "image_size": 32}), deeds) == first
        )
        with get_context("spawn").Pool(1) as pool:
            same[f"{task} elsewhere"] = pool.apply(_trace_of, (task, options, deeds)) == first
        for engine in ("batch", "processes"):
            envs = H1VectorEnv(3, task=task, engine=engine, workers=2, **options)
            others = np.stack([actions(env, steps, seed=5), deeds, actions(env, steps, seed=7)], axis=1)
            states = [envs.reset(seed=[8, SEED, 9])[0]["agent_pos"][1].tobytes()]
            states += [envs.step(batch)[0]["agent_pos"][1].tobytes() for batch in others]
            envs.close()
            same[f"{task} among many by {engine}"] = states == first
    return same


SEED = 4  # of deterministic()'s episode


def trace(env: H1Env, deeds: np.ndarray) -> list[bytes]:
    """The bits of the state at each step of an episode."""
    states = [env.reset(seed=SEED)[0]["agent_pos"].tobytes()]
    return states + [env.step(deed)[0]["agent_pos"].tobytes() for deed in deeds]


def _trace_of(task: str, options: dict[str, Any], deeds: np.ndarray) -> list[bytes]:
    return trace(H1Env(task, **options), deeds)


def actions(env: gymnasium.Env, steps: int, seed: int = 0) -> np.ndarray:
    """Smooth open-loop actions (T, A) float32 that swing both arms about, the grips opening and closing."""
    rng = np.random.default_rng(seed)
    body = env.unwrapped.embodiment  # type: ignore[attr-defined]
    low, high = body.action_low.astype(float), body.action_high.astype(float)
    rate = body.rate_hz
    seconds = np.arange(1, steps + 1)[:, None] / rate
    phase = rng.uniform(0, 2 * np.pi, len(low))
    pace = rng.uniform(1.5, 3.0, len(low))
    wave = np.sin(pace * seconds + phase)
    grips = np.array([scalar.name.endswith("_grip") for scalar in body.action])
    if env.unwrapped.settings.action_mode == "joint":  # type: ignore[attr-defined]
        moved = HOME + SWING_RAD * (wave - np.sin(phase)) * np.minimum(seconds, 1.0)
    else:
        moved = 0.25 * high * wave
    opened = high * (0.5 + 0.5 * np.cos(pace * seconds))
    return np.clip(np.where(grips, opened, moved), low, high).astype(np.float32)


def _env(task: str, distractors: int | None = None, **options: Any) -> H1Env:
    return H1Env(task, distractors=distractors, **{"cameras": (), **options})


def _ratios(
    env: H1Env, repeats: int, look: Callable[[mujoco.MjData], None] = lambda data: None, steps: int = STEPS
) -> list[float]:
    """Bare time over the environment's, one a repeat; the first round of both warms up."""
    deeds = actions(env, steps)
    tape = _record(env, deeds)
    model, data = env.world.scene.copy(), mujoco.MjData(env.world.model)
    found = []
    for repeat in range(repeats + 1):
        env.reset(seed=0)
        begin = time.process_time()
        for deed in deeds:
            env.step(deed)
        ours = time.process_time() - begin
        bare = _bare(env, model, data, tape, look)
        if repeat:
            found.append(bare / ours)
    env.close()
    return found


def _record(env: H1Env, deeds: np.ndarray, seed: int = 0) -> Tape:
    env.reset(seed=seed)
    world = env.world
    size = mujoco.mj_stateSize(world.model, mujoco.mjtState.mjSTATE_INTEGRATION)
    state = np.empty(size)
    mujoco.mj_getState(world.model, world.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    ctrl, slew = [], []
    for deed in deeds:
        env.step(deed)
        ctrl.append(world.data.ctrl.copy())
        slew.append(world.model.actuator_dynprm[:, 1].copy())
    return Tape(np.array(ctrl), np.array(slew), state)


def _bare(
    env: H1Env, model: mujoco.MjModel, data: mujoco.MjData, tape: Tape, look: Callable[[mujoco.MjData], None]
) -> float:
    """Seconds of CPU that the same motion takes without the environment."""
    mujoco.mj_setState(model, data, tape.state, mujoco.mjtState.mjSTATE_INTEGRATION)
    substeps = env.settings.substeps
    begin = time.process_time()
    for ctrl, slew in zip(tape.ctrl, tape.slew, strict=True):
        data.ctrl[:] = ctrl
        model.actuator_dynprm[:, 1] = slew
        mujoco.mj_step(model, data, substeps)
        look(data)
    return time.process_time() - begin
