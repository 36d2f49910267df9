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
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.settings import Settings
from tandem_sim.h1.trial import Trial, Verdict
from tandem_sim.h1.world import World

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
            words.append(layout.instruction)
        return words

    def step(self, which: Sequence[int]) -> dict[int, Ended]:
        ids = np.array(which, int)
        targets = self._targets(which)
        late = np.array([self._worlds[k].late_substeps > 0 for k in which], np.bool_)
        for row in np.flatnonzero(late).tolist():
            self._take(which[row])
            self._worlds[which[row]].advance(targets[row])
            self._put(which[row])
        prompt = ids[~late]
        if len(prompt):
            self._command(prompt, targets[~late])
            self._advance(prompt.tolist())
        return self._judge(ids)

    def close(self) -> None:
        """Nothing to free."""

    def _targets(self, which: Sequence[int]) -> np.ndarray:
        """Joint targets (n, 17) of the desk's actions; what is executed goes back to the desk."""
        desk = self._desk
        targets = np.empty((len(which), desk.actions.shape[1]))
        for row, k in enumerate(which):
            actions = self._worlds[k].actions
            executed = actions.step(desk.actions[k])
            desk.executed[k], targets[row] = executed.action, executed.targets
            desk.clamped[k] = actions.clamped
        return targets

    def _command(self, ids: np.ndarray, targets: np.ndarray) -> None:
        command = self._worlds[0].servo.inputs(self._act[ids], targets)
        inputs = self._worlds[0].servo.ctrl
        for row, k in enumerate(ids.tolist()):
            self._ctrl[k, inputs] = command.ctrl[row]
            self._worlds[k].servo.slew[:] = command.slew[row]

    def _advance(self, which: list[int]) -> None:
        """A control step of commanded worlds, in chunks of which it is known beforehand whether anything can snap."""
        left = self._substeps
        while left:
            chunk = min(left, CHUNK)
            left -= chunk
            idle = [self._worlds[k].snapping.idle(self._qpos[k], self._qvel[k], chunk) for k in which]
            together = [k for k, still in zip(which, idle, strict=True) if still]
            for k, still in zip(which, idle, strict=True):
                if not still:
                    self._take(k)
                    self._worlds[k].snapping.step(self._worlds[k].data, chunk)
                    self._put(k)
            if together:
                stage = mujoco.mjtStage.mjSTAGE_NONE if left else mujoco.mjtStage.mjSTAGE_VEL
                everyone = len(together) == self._n
                self._batch.step(None if everyone else np.array(together), chunk, int(stage))
                for k in together:
                    self._worlds[k].snapping.idled(chunk)
                    self._own[k] = False
        for k in which:
            if self._own[k]:
                self._worlds[k].observer.reader.refresh(self._worlds[k].data)

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
        reader = self._worlds[0].observer.reader
        sensed = self._sensed[ids]
        for row, k in enumerate(ids.tolist()):
            if self._own[k]:
                sensed[row] = self._worlds[k].data.sensordata
        owns, places, poses = reader.states(sensed), reader.places(sensed).tolist(), self._poses[ids].tolist()
        ended = {}
        for row, k in enumerate(ids.tolist()):
            world = self._worlds[k]
            graph = world.snapping.connections
            seen = world.observer.seen(owns[row], poses[row], self._speeds[k], places[row], graph)
            verdict = self._trials[k].step(seen)
            self._keep(k, verdict)
            self._desk.state[k] = world.observer.state(owns[row], self._poses[k], graph)
            if verdict.outcome:
                ended[k] = Ended(verdict.outcome, dict(verdict.parts))
        return ended

    def _keep(self, k: int, verdict: Verdict) -> None:
        desk = self._desk
        desk.reward[k], desk.success[k], desk.progress[k] = verdict.reward, verdict.success, verdict.progress
        desk.terminated[k], desk.truncated[k] = verdict.terminated, verdict.truncated


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
