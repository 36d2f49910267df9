"""Several H1 worlds in this process: stepped one after the other, or, where nothing can snap, by ``mujoco.batch``.

A fleet knows episodes and steps, but not when one follows another: that is for the vector environment. Everything that
it observes lies in arrays which it writes in place, so that they may be shared memory.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mujoco
import numpy as np
from gymnasium.utils import seeding
from mujoco.batch import Batch

from tandem_datasets.embodiment import Embodiment
from tandem_sim.bricks.snap import CHUNK
from tandem_sim.h1.actions import ManyJointActions
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.robot import HOME
from tandem_sim.h1.settings import Settings
from tandem_sim.h1.trial import Trial
from tandem_sim.h1.world import World, control_settings

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class Ended:
    """How the last step of an episode went, beside the numbers."""

    outcome: str
    grade: dict[str, bool]


@dataclass
class Desk:
    """What a fleet of ``n`` writes at each step, and the actions that it reads."""

    actions: np.ndarray  # (n, A) float32
    executed: np.ndarray  # (n, A) float32
    state: np.ndarray  # (n, S) float32
    reward: np.ndarray  # (n,) float64
    success: np.ndarray  # (n,) bool
    terminated: np.ndarray  # (n,) bool
    truncated: np.ndarray  # (n,) bool
    progress: np.ndarray  # (n,) float64
    clamped: np.ndarray  # (n,) int64
    pixels: dict[str, np.ndarray] = field(default_factory=dict)  # (n, H, W, C)

    def part(self, begin: int, end: int) -> "Desk":
        """Views of some of the environments."""
        cut = {name: value[begin:end] for name, value in vars(self).items() if name != "pixels"}
        return Desk(**cut, pixels={name: value[begin:end] for name, value in self.pixels.items()})


def desk_fields(body: Embodiment, n: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each of a desk's arrays; those of pixels are called ``pixels/<camera>``."""
    f4, f8, i8, flag = (np.dtype(kind) for kind in (np.float32, np.float64, np.int64, np.bool_))
    fields = {
        "actions": ((n, body.action_dim), f4),
        "executed": ((n, body.action_dim), f4),
        "state": ((n, body.state_dim), f4),
        "reward": ((n,), f8),
        "success": ((n,), flag),
        "terminated": ((n,), flag),
        "truncated": ((n,), flag),
        "progress": ((n,), f8),
        "clamped": ((n,), i8),
    }
    return fields | {f"pixels/{camera.name}": ((n, *camera.shape), camera.dtype) for camera in body.cameras}


def desk_of(arrays: Mapping[str, np.ndarray]) -> Desk:
    """A desk of the arrays that :func:`desk_fields` asks for."""
    plain = {name: array for name, array in arrays.items() if "/" not in name}
    pixels = {name.partition("/")[2]: array for name, array in arrays.items() if "/" in name}
    return Desk(**plain, pixels=pixels)


class Fleet(Protocol):
    """Some worlds."""

    def reset(self, which: Sequence[int], seeds: Sequence[int | None]) -> list[str]:
        """Begins episodes; a seed of None goes on with the world's own generator. Returns their instructions."""
        ...

    def step(self, which: Sequence[int]) -> dict[int, Ended]:
        """Executes the desk's actions in some worlds; returns which episodes ended."""
        ...

    def close(self) -> None: ...


def fleet(settings: Settings, desk: Desk, n: int, threads: int) -> Fleet:
    """The fastest fleet for the settings."""
    if settings.action_mode == "joint" and not settings.cameras:
        return BatchFleet(settings, desk, n, threads)
    return SerialFleet(settings, desk, n)


class SerialFleet:
    """Environments one after the other."""

    def __init__(self, settings: Settings, desk: Desk, n: int) -> None:
        self._desk = desk
        self._envs = [H1Env(**vars(settings)) for _ in range(n)]

    def reset(self, which: Sequence[int], seeds: Sequence[int | None]) -> list[str]:
        words = []
        for k, seed in zip(which, seeds, strict=True):
            observation, _ = self._envs[k].reset(seed=seed)
            self._keep(k, observation)
            words.append(observation["instruction"])
        return words

    def step(self, which: Sequence[int]) -> dict[int, Ended]:
        desk, ended = self._desk, {}
        for k in which:
            observation, reward, terminated, truncated, info = self._envs[k].step(desk.actions[k])
            self._keep(k, observation)
            desk.reward[k], desk.terminated[k], desk.truncated[k] = reward, terminated, truncated
            desk.executed[k], desk.success[k] = info["executed_action"], info["is_success"]
            desk.progress[k], desk.clamped[k] = info["progress"], info["clamped"]
            if terminated or truncated:
                ended[k] = Ended(info["outcome"], info["grade"])
        return ended

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _keep(self, k: int, observation: dict[str, Any]) -> None:
        self._desk.state[k] = observation["agent_pos"]
        for name, image in observation.get("pixels", {}).items():
            self._desk.pixels[name][k] = image


class BatchFleet:
    """Worlds under joint targets without cameras, stepped together by ``mujoco.batch`` on its threads.

    A world in which bricks could lock or let go within the next substeps, or whose drives are late, takes them in its
    own data, through :class:`~tandem_sim.bricks.snap.Snapping`, as a single environment does. Both give the same bits.
    """

    def __init__(self, settings: Settings, desk: Desk, n: int, threads: int) -> None:
        assert settings.action_mode == "joint"
        assert not settings.cameras
        self._desk, self._n, self._substeps = desk, n, settings.substeps
        self._worlds = [World(settings) for _ in range(n)]
        self._trials = [Trial(world.task) for world in self._worlds]
        self._rngs: list[np.random.Generator | None] = [None] * n
        first = self._worlds[0]
        self._batch = Batch(first.model, n, threads, persistent=True)
        self._batch.set_models([world.model for world in self._worlds])
        bind = self._batch.bind
        self._sensed, self._act, self._ctrl = bind("sensordata"), bind("act"), bind("ctrl")
        self._qpos, self._qvel = bind("qpos"), bind("qvel")
        self._poses, self._speeds = first.observer.poses(self._qpos), first.observer.speeds(self._qvel)
        self._actions = ManyJointActions(control_settings(settings), n)
        self._snappings = [world.snapping for world in self._worlds]
        self._slews = [world.servo.slew for world in self._worlds]
        self._late: np.ndarray = np.zeros(n, np.int64)  # substeps
        self._privileged = settings.privileged
        self._own = [True] * n  # whether a world's last substeps were taken by its own data

    def reset(self, which: Sequence[int], seeds: Sequence[int | None]) -> list[str]:
        words = []
        for k, seed in zip(which, seeds, strict=True):
            world, rng = self._worlds[k], self._rngs[k]
            if seed is not None or rng is None:
                rng = self._rngs[k] = seeding.np_random(seed)[0]
            layout = world.reset(rng)
            own = world.own()
            self._trials[k].begin(layout, world.seen(own))
            self._desk.state[k] = world.state(own)
            self._put(k)
            self._actions.reset(k, HOME)
            self._late[k] = world.late_substeps
            words.append(layout.instruction)
        return words

    def step(self, which: Sequence[int]) -> dict[int, Ended]:
        desk, ids = self._desk, np.array(which, int)
        executed = desk.executed[ids] = self._actions.step(ids, desk.actions[ids])
        targets = executed.astype(np.float64)
        desk.clamped[ids] = self._actions.clamped[ids]
        late = self._late[ids] > 0
        for row in np.flatnonzero(late).tolist():
            self._take(which[row])
            self._worlds[which[row]].advance(targets[row])
            self._put(which[row])
        prompt = ids[~late]
        if len(prompt):
            self._command(prompt, targets[~late])
            self._advance(prompt)
        return self._judge(ids)

    def close(self) -> None:
        """Nothing to free."""

    def _command(self, ids: np.ndarray, targets: np.ndarray) -> None:
        servo = self._worlds[0].servo
        command = servo.inputs(self._act[ids], targets)
        self._ctrl[ids, servo.ctrl] = command.ctrl
        for k, slew in zip(ids.tolist(), command.slew, strict=True):
            self._slews[k][:] = slew

    def _advance(self, ids: np.ndarray) -> None:
        """A control step of commanded worlds, in chunks of which it is known beforehand whether anything can snap."""
        left = self._substeps
        while left:
            chunk = min(left, CHUNK)
            left -= chunk
            idle = self._idle(ids, chunk)
            for k in ids[~idle].tolist():
                self._take(k)
                self._worlds[k].snapping.step(self._worlds[k].data, chunk)
                self._put(k)
            together = ids[idle]
            if len(together):
                stage = mujoco.mjtStage.mjSTAGE_NONE if left else mujoco.mjtStage.mjSTAGE_VEL
                self._batch.step(None if len(together) == self._n else together, chunk, int(stage))
                for k in together.tolist():
                    self._snappings[k].idled(chunk)
                    self._own[k] = False
        for k in ids.tolist():
            if self._own[k]:
                self._worlds[k].observer.reader.refresh(self._worlds[k].data)

    def _idle(self, ids: np.ndarray, chunk: int) -> np.ndarray:
        """In which worlds surely nothing locks or lets go within a chunk, bool: most are told apart all at once."""
        calm = np.array([self._snappings[k].calm for k in ids.tolist()], np.bool_)
        idle = self._snappings[0].idle_many(self._qpos[ids], self._qvel[ids], chunk, calm)
        for row in np.flatnonzero(calm & ~idle).tolist():
            k = ids[row]
            idle[row] = self._snappings[k].idle(self._qpos[k], self._qvel[k], chunk)
        return idle

    def _take(self, k: int) -> None:
        """Lets a world's own data go on from where the batch is."""
        world = self._worlds[k]
        mujoco.mj_setState(world.model, world.data, self._batch.state[k], _STATE)

    def _put(self, k: int) -> None:
        """Lets the batch go on from where a world's own data is."""
        world = self._worlds[k]
        mujoco.mj_getState(world.model, world.data, self._batch.state[k], _STATE)
        self._own[k] = True

    def _judge(self, ids: np.ndarray) -> dict[int, Ended]:
        desk, reader, which = self._desk, self._worlds[0].observer.reader, ids.tolist()
        sensed = self._sensed[ids]
        for row, k in enumerate(which):
            if self._own[k]:
                sensed[row] = self._worlds[k].data.sensordata
        owns, places, poses = reader.states(sensed), reader.places(sensed).tolist(), self._poses[ids].tolist()
        verdicts, ended = [], {}
        for row, k in enumerate(which):
            world = self._worlds[k]
            graph = world.snapping.connections
            seen = world.observer.seen(owns[row], poses[row], self._speeds[k], places[row], graph)
            verdict = self._trials[k].step(seen)
            verdicts.append(verdict)
            if self._privileged:
                desk.state[k] = world.observer.state(owns[row], self._poses[k], graph)
            if verdict.outcome:
                ended[k] = Ended(verdict.outcome, dict(verdict.parts))
        if not self._privileged:
            desk.state[ids] = owns
        desk.reward[ids] = [verdict.reward for verdict in verdicts]
        desk.success[ids] = [verdict.success for verdict in verdicts]
        desk.progress[ids] = [verdict.progress for verdict in verdicts]
        desk.terminated[ids] = [verdict.terminated for verdict in verdicts]
        desk.truncated[ids] = [verdict.truncated for verdict in verdicts]
        return ended


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
