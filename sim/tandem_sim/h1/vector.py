"""Many H1 environments stepped together, equal bit for bit to as many single ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_sim import spaces
from tandem_sim.h1 import rendering
from tandem_sim.h1.fleets import Desk, Ended, Fleet, cores, desk_fields, desk_of, fleet
from tandem_sim.h1.settings import Settings
from tandem_sim.h1.world import described_by

ENGINES = ("auto", "batch", "processes")
MOST_WORKERS = 64


class H1VectorEnv(VectorEnv):
    """``num_envs`` environments; what ``gymnasium.make_vec("tandem/H1Stack-v0", num_envs=n)`` makes.

    Observation and action are those of :class:`~tandem_sim.h1.env.H1Env` with a leading axis of environments;
    ``instruction`` is a tuple. Infos follow Gymnasium: an array per key and a mask ``_key``.

    Args:
        num_envs: how many.
        task: one of ``settings.TASKS``; the registered ids give it.
        engine: "batch" steps them in this process by ``mujoco.batch`` (joint targets without cameras), "processes" in
            workers with a renderer each; "auto": batch where it can.
        workers: threads or processes; None: as many as there are CPUs to use, and no more than environments.
        autoreset_mode: "NextStep" (Gymnasium's default), "SameStep", or "Disabled": finished environments then stand
            still, with reward 0 and their flags kept, until ``reset`` with a ``reset_mask``.
        options: the fields of :class:`~tandem_sim.h1.settings.Settings`.

    Raises:
        TandemError: an option outside of what is allowed; here and later also that a worker failed or died.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        task: str = "reach",
        engine: str = "auto",
        workers: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("workers", workers)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise TandemError(f"H1: {name} is {value!r} (allowed: 1 and more)")
        if render_mode is not None:
            raise TandemError(f"H1: render_mode of many is '{render_mode}' (allowed: null)")
        self.num_envs, self.render_mode = num_envs, render_mode
        self.settings = Settings.of(task, options)
        self.engine = _engine(engine, self.settings)
        self.workers = min(workers or cores(), num_envs, MOST_WORKERS)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": [],
            "render_fps": self.settings.rate_hz,
            "autoreset_mode": self.autoreset_mode,
        }
        if self.settings.cameras:
            rendering.require(f"H1: cameras {list(self.settings.cameras)}")
        self.embodiment: Embodiment = described_by(self.settings)
        self.single_observation_space = spaces.observation_space(self.embodiment)
        self.single_action_space = spaces.action_space(self.embodiment)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._fleet, self._desk = self._start()
        self._instructions = [""] * num_envs
        self._begun = False
        self._over: np.ndarray = np.zeros(num_envs, np.bool_)
        self._low, self._high = self.embodiment.action_low, self.embodiment.action_high

    @property
    def task_description(self) -> tuple[str, ...]:
        """The current instructions."""
        return tuple(self._instructions)

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict, dict]:
        """Begins episodes, those of ``options["reset_mask"]`` (bool (n,)) only, where it is given.

        Args:
            seed: one an environment (None: go on with its generator), or s for s, s + 1, ...
            options: "reset_mask", or nothing.
        """
        n = self.num_envs
        seeds = [seed + k for k in range(n)] if isinstance(seed, int | np.integer) else seed
        seeds = [None] * n if seeds is None else list(seeds)
        mask = np.asarray((options or {}).get("reset_mask", np.ones(n, np.bool_)))
        if len(seeds) != n or mask.shape != (n,) or mask.dtype != np.bool_:
            raise TandemError(f"H1: {n} environments want as many seeds and a bool mask of that size")
        if not self._begun and not mask.all():
            raise TandemError("H1: the first reset must be of all environments")
        self._reset(np.flatnonzero(mask).tolist(), seeds)
        self._begun = True
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:  # type: ignore[override]
        """Executes (n, A) actions for a control step."""
        if not self._begun:
            raise TandemError("H1: there is no episode yet (call reset first)")
        desk, over = self._desk, self._over.copy()
        desk.actions[:] = self._checked(actions)
        moving = ~over
        if over.any():
            ended_before = np.flatnonzero(over).tolist()
            if self.autoreset_mode is AutoresetMode.NEXT_STEP:
                self._reset(ended_before, [None] * self.num_envs)
                desk.terminated[over] = desk.truncated[over] = False
            desk.reward[over] = 0.0
            desk.success[over] = False
        ended = self._fleet.step(np.flatnonzero(moving).tolist()) if moving.any() else {}
        self._over = desk.terminated | desk.truncated
        reward, terminated, truncated = desk.reward.copy(), desk.terminated.copy(), desk.truncated.copy()
        info = self._infos(moving, ended)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended:
            observation, info = self._restart(moving & self._over, info)
            return observation, reward, terminated, truncated, info
        return self._observe(), reward, terminated, truncated, info

    def close_extras(self, **_: Any) -> None:
        """Ends the workers."""
        self._fleet.close()

    def _start(self) -> tuple[Fleet, Desk]:
        settings, n = self.settings, self.num_envs
        if self.engine == "processes":
            from tandem_sim.h1.workers import ProcessFleet

            many = ProcessFleet(settings, self.embodiment, n, self.workers)
            return many, many.desk
        fields = desk_fields(self.embodiment, n)
        desk = desk_of({name: np.zeros(shape, dtype) for name, (shape, dtype) in fields.items()})
        return fleet(settings, desk, n, self.workers), desk

    def _reset(self, which: list[int], seeds: Sequence[int | None]) -> None:
        if not which:
            return
        words = self._fleet.reset(which, [seeds[k] for k in which])
        for k, text in zip(which, words, strict=True):
            self._instructions[k] = text
        self._over[which] = self._desk.terminated[which] = self._desk.truncated[which] = False

    def _observe(self) -> dict[str, Any]:
        desk = self._desk
        seen: dict[str, Any] = {"agent_pos": desk.state.copy(), "instruction": tuple(self._instructions)}
        if desk.pixels:
            seen["pixels"] = {name: images.copy() for name, images in desk.pixels.items()}
        return seen

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """(n, A) float32, so that no environment is stepped where another one's action is refused."""
        values = np.asarray(actions, np.float32)
        if values.shape != self._desk.actions.shape:
            raise TandemError(f"H1 actions: shape {values.shape} (allowed: {self._desk.actions.shape})")
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            name = self.embodiment.action[column].name
            raise TandemError(f"H1 actions: {name} of environment {row} is not finite (allowed: finite numbers)")
        if self.settings.strict and ((values < self._low) | (values > self._high)).any():
            row, column = np.argwhere((values < self._low) | (values > self._high))[0]
            scalar = self.embodiment.action[column]
            allowed = f"{scalar.low:g}..{scalar.high:g} {scalar.unit}"
            came = f"{scalar.name} of environment {row} is {values[row, column]:g}"
            raise TandemError(f"H1 actions: {came} (allowed: {allowed})")
        return values

    def _infos(self, moving: np.ndarray, ended: dict[int, Ended]) -> dict[str, Any]:
        desk, info = self._desk, dict[str, Any]()
        if not moving.any():
            return info
        for name, values in (
            ("executed_action", desk.executed),
            ("is_success", desk.success),
            ("progress", desk.progress),
            ("clamped", desk.clamped),
        ):
            kept = values.copy()
            kept[~moving] = 0
            info[name], info[f"_{name}"] = kept, moving.copy()
        for k, how in ended.items():
            info = self._add_info(info, {"outcome": how.outcome, "grade": how.grade}, k)
        return info

    def _restart(self, finished: np.ndarray, info: dict[str, Any]) -> tuple[dict, dict]:
        """The new episodes' observation, and in the info what the finished ones ended with."""
        last, n = self._observe(), self.num_envs
        final_obs = np.full(n, None, object)
        for k in np.flatnonzero(finished):
            final_obs[k] = {
                key: {name: images[k] for name, images in value.items()} if isinstance(value, dict) else value[k]
                for key, value in last.items()
            }
        final_info = {key: value for key, value in info.items() if not key.startswith("_")}
        final_info |= {f"_{key}": finished.copy() for key in final_info}
        begun: dict[str, Any] = {"final_obs": final_obs, "_final_obs": finished.copy()}
        begun |= {"final_info": final_info, "_final_info": finished.copy()}
        running = info["_is_success"] & ~finished
        for name in ("executed_action", "is_success", "progress", "clamped") if running.any() else ():
            kept = info[name].copy()
            kept[finished] = 0
            begun[name], begun[f"_{name}"] = kept, running.copy()
        self._reset(np.flatnonzero(finished).tolist(), [None] * n)
        return self._observe(), begun


def _engine(engine: str, settings: Settings) -> str:
    if engine not in ENGINES:
        raise unknown("H1: engine", str(engine), ENGINES)
    batched = settings.action_mode == "joint" and not settings.cameras
    if engine == "batch" and not batched:
        raise TandemError("H1: engine is 'batch' (allowed: with action_mode 'joint' and cameras [])")
    if engine == "auto":
        return "batch" if batched else "processes"
    return engine
