"""How fast the H1 environments are against MuJoCo itself, in process CPU time.

Each figure is a ratio: what a bare loop around ``mj_step`` takes for the same scene, the same drives' inputs and as
many substeps, over what the environment takes. Both run in turns, in short blocks, so that whatever else the machine
does falls on both.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np

from tandem_sim.h1 import rendering
from tandem_sim.h1.env import H1Env

TASK = "stack"
STEPS = 150  # control steps of a block: 3 s of the robot's time
SWING_RAD = 0.25  # of the hinges around the home posture


@dataclass(frozen=True)
class Tape:
    """What an environment wrote into its model and data at each control step, to play it again without it."""

    ctrl: np.ndarray  # (T, nu)
    slew: np.ndarray  # (T, actuators)
    state: np.ndarray  # at the begin


def rate_joint(repeats: int = 7) -> list[float]:
    """State only, 17 joint targets: one ratio a repeat, 1 would be as fast as bare MuJoCo."""
    return _ratios(_env(action_mode="joint"), repeats)


def rate_ee(repeats: int = 7) -> list[float]:
    """State only, through inverse kinematics."""
    return _ratios(_env(action_mode="ee_delta"), repeats)


def rate_pixels(repeats: int = 5) -> list[float]:
    """Two 128x128 cameras, against bare MuJoCo with MuJoCo's own renderer under the same flags."""
    env = _env(action_mode="joint", cameras=("front", "head"), image_size=128)
    with mujoco.Renderer(env.world.model, 128, 128) as renderer:
        rendering.set_flags(renderer.scene)

        def look(data: mujoco.MjData) -> None:
            for camera in ("front", "head"):
                renderer.update_scene(data, camera)
                renderer.render()

        return _ratios(env, repeats, look, steps=STEPS // 3)


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
        from tandem_sim.h1.robot import HOME

        moved = HOME + SWING_RAD * (wave - np.sin(phase)) * np.minimum(seconds, 1.0)
    else:
        moved = 0.25 * high * wave
    opened = high * (0.5 + 0.5 * np.cos(pace * seconds))
    return np.clip(np.where(grips, opened, moved), low, high).astype(np.float32)


def _env(**options: Any) -> H1Env:
    return H1Env(TASK, **{"cameras": (), **options})


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


def _record(env: H1Env, deeds: np.ndarray) -> Tape:
    env.reset(seed=0)
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
