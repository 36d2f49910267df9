"""Many BlockFind boards stepped and drawn together, bit-identical to as many single ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_sim import spaces
from tandem_sim.blockfind import task
from tandem_sim.blockfind.drawing import Canvas
from tandem_sim.pictures import enlarge


class BlockFindVectorEnv(VectorEnv):
    """``num_envs`` boards; what ``gymnasium.make_vec("tandem/BlockFind-v0", num_envs=n)`` makes.

    Observation and action are those of :class:`~tandem_sim.blockfind.env.BlockFindEnv` with a leading
    axis of environments; ``instruction`` is a tuple. Infos follow Gymnasium: an array per key and a mask ``_key``.

    Args:
        autoreset_mode: "NextStep" (Gymnasium's default), "SameStep", or "Disabled": finished environments
            then stand still, with reward 0 and their flags kept, until ``reset`` with a ``reset_mask``.
        render_mode: "rgb_array" or None.

    The other arguments are those of the single environment.
    """

    embodiment: Embodiment = task.EMBODIMENT

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        wordings: str = "plain",
        horizon: int = 32,
        colours: Sequence[str] = task.DEFAULT_COLOURS,
        n_blocks: Sequence[int] = (3, 4),
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise TandemError(f"BlockFind: num_envs is {num_envs} (allowed: 1 and more)")
        if render_mode not in (None, "rgb_array"):
            raise TandemError(f"BlockFind: render_mode of many is '{render_mode}' (allowed: rgb_array)")
        self.num_envs, self.render_mode = num_envs, render_mode
        self.options = task.Options(wordings, horizon, colours, n_blocks)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(self.embodiment.rate_hz),
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = spaces.observation_space(self.embodiment)
        self.single_action_space = spaces.action_space(self.embodiment)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._canvas = Canvas(num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._layouts: list[task.Layout] = []
        self._positions: np.ndarray = np.zeros((num_envs, 2), np.float32)
        self._goals: np.ndarray = np.zeros((num_envs, 2), np.float32)
        self._steps: np.ndarray = np.zeros(num_envs, np.int64)
        self._terminated: np.ndarray = np.zeros(num_envs, np.bool_)
        self._truncated: np.ndarray = np.zeros(num_envs, np.bool_)
        self._instructions: tuple[str, ...] = ()

    @property
    def layouts(self) -> list[task.Layout]:
        """The current episodes' boards."""
        if not self._layouts:
            raise TandemError("BlockFind: there is no episode yet (call reset first)")
        return self._layouts

    @property
    def task_description(self) -> tuple[str, ...]:
        """The current instructions."""
        return tuple(layout.instruction for layout in self.layouts)

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict, dict]:
        """Begins episodes, those of ``options["reset_mask"]`` (bool (n,)) only, where it is given.

        Args:
            seed: one a sub-environment (None: go on with its generator), or s for s, s + 1, ...
            options: "reset_mask", or nothing.
        """
        seeds = [seed + k for k in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        seeds = [None] * self.num_envs if seeds is None else list(seeds)
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if len(seeds) != self.num_envs or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise TandemError(
                f"BlockFind: {self.num_envs} environments want as many seeds and a bool mask of that size"
            )
        if not self._layouts and not mask.all():
            raise TandemError("BlockFind: the first reset must be of all environments")
        self._begin(mask, seeds)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:  # type: ignore[override]
        """Moves all agents, (n, 2) in cells."""
        layouts = self.layouts
        still = self._terminated | self._truncated
        if self.autoreset_mode is not AutoresetMode.DISABLED and still.any():
            self._begin(still, [None] * self.num_envs)
        task.check_finite(actions, "BlockFind")
        moving = ~still
        positions, executed = task.advance(self._positions, actions)
        self._positions = np.where(moving[:, None], positions, self._positions)
        executed = np.where(moving[:, None], executed, np.float32(0))
        self._steps += moving
        success = moving & (task.distance(self._positions, self._goals) <= task.ARRIVED)
        self._terminated = self._terminated | success
        self._truncated = self._truncated | (moving & ~success & (self._steps >= self.options.horizon))
        terminated, truncated = self._terminated.copy(), self._truncated.copy()
        finished = moving & (terminated | truncated)
        info = {
            "executed_action": executed,
            "_executed_action": moving,
            "is_success": success,
            "_is_success": moving.copy(),
        }
        if finished.any():
            info["outcome"], info["_outcome"] = np.full(self.num_envs, None, object), finished
            for k in np.flatnonzero(finished):
                info["outcome"][k] = task.outcome(layouts[k], self._positions[k], bool(success[k]))
        observation = self._observe()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and finished.any():
            observation, info = self._restart(finished, observation, info)
        return observation, success.astype(np.float64), terminated, truncated, info

    def expert_action(self) -> np.ndarray:
        """Straight to the named blocks, (n, 2) float32 in cells."""
        return task.expert(self._positions, self._goals)

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """The enlarged pictures, in mode "rgb_array"."""
        if self.render_mode is None:
            return None
        images = self._canvas.draw(self._positions)
        return tuple(enlarge(image, captions=[text]) for image, text in zip(images, self.task_description, strict=True))

    def _begin(self, mask: np.ndarray, seeds: Sequence[int | None]) -> None:
        layouts = self._layouts or [None] * self.num_envs  # type: ignore[list-item]
        for k in np.flatnonzero(mask):
            rng = self._rngs[k]
            if seeds[k] is not None or rng is None:
                rng = self._rngs[k] = seeding.np_random(seeds[k])[0]
            layouts[k] = task.lay_out(rng, self.options)
            self._canvas.set_board(k, layouts[k])
            self._positions[k], self._goals[k] = layouts[k].start, layouts[k].goal
        self._layouts = layouts
        self._instructions = self.task_description
        self._steps[mask] = 0
        self._terminated[mask] = self._truncated[mask] = False

    def _restart(self, finished: np.ndarray, last: dict[str, Any], info: dict[str, Any]) -> tuple[dict, dict]:
        """The new episodes' observation, and in the info what the finished ones ended with."""
        final_obs = np.full(self.num_envs, None, object)
        for k in np.flatnonzero(finished):
            final_obs[k] = {
                "pixels": {"top": last["pixels"]["top"][k]},
                "agent_pos": last["agent_pos"][k],
                "instruction": last["instruction"][k],
            }
        final_info = {key: value for key, value in info.items() if not key.startswith("_")}
        final_info |= {f"_{key}": finished.copy() for key in final_info}
        running = ~finished
        begun = {
            "executed_action": info["executed_action"],
            "_executed_action": running,
            "is_success": info["is_success"] & running,
            "_is_success": running.copy(),
            "final_obs": final_obs,
            "_final_obs": finished.copy(),
            "final_info": final_info,
            "_final_info": finished.copy(),
        }
        self._begin(finished, [None] * self.num_envs)
        return self._observe(), begun

    def _observe(self) -> dict[str, Any]:
        return {
            "pixels": {"top": self._canvas.draw(self._positions)},
            "agent_pos": self._positions.copy(),
            "instruction": self._instructions,
        }
