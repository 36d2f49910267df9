"""The Gymnasium environment ``tandem/BlockFind-v0``."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_sim import spaces, window
from tandem_sim.blockfind import task
from tandem_sim.blockfind.drawing import Canvas
from tandem_sim.pictures import enlarge

RENDER_MODES = ("rgb_array", "human")


class BlockFindEnv(gymnasium.Env):
    """One board. See :mod:`tandem_sim.blockfind.task` for its rules.

    Observation: ``pixels/top`` (64, 64, 3) uint8 RGB, ``agent_pos`` (2,) float32 in cells and ``instruction``;
    after ``reset`` of the start, after ``step`` of the new position. Action: (dx, dy) float32 in cells.
    Reward: 1 on arrival at the named block (terminated), else 0; truncated at the horizon.

    Every step's info has ``executed_action`` (2,) float32 and ``is_success``; the last step's also ``outcome``:
    ``success``, ``wrong_block`` or ``no_block``.

    Args:
        wordings: "plain" or "varied", a key of ``task.WORDINGS``.
        horizon: steps until truncation.
        colours: names from ``task.PALETTE`` that the blocks are drawn from.
        n_blocks: fewest and most blocks.
        render_mode: "rgb_array" (enlarged, with the instruction below), "human" (a window) or None.

    Raises:
        TandemError: an option outside of what is allowed; "human" without a display.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own name)
        "render_modes": list(RENDER_MODES),
        "render_fps": round(task.EMBODIMENT.rate_hz),
    }
    embodiment: Embodiment = task.EMBODIMENT

    def __init__(
        self,
        *,
        wordings: str = "plain",
        horizon: int = 32,
        colours: Sequence[str] = task.DEFAULT_COLOURS,
        n_blocks: Sequence[int] = (3, 4),
        render_mode: str | None = None,
    ) -> None:
        self.options = task.Options(wordings, horizon, colours, n_blocks)
        self.render_mode = check_render_mode(render_mode)
        # an instance shows only the modes that work here, for whoever tries them all
        modes = [mode for mode in RENDER_MODES if mode != "human" or window.available()]
        self.metadata = {**type(self).metadata, "render_modes": modes}
        self.observation_space = spaces.observation_space(self.embodiment)
        self.action_space = spaces.action_space(self.embodiment)
        self._canvas = Canvas(1)
        self._window: window.Window | None = None
        self._layout: task.Layout | None = None
        self._position = np.zeros(2, np.float32)
        self._steps = 0

    @property
    def layout(self) -> task.Layout:
        """The current episode's board."""
        if self._layout is None:
            raise TandemError("BlockFind: there is no episode yet (call reset first)")
        return self._layout

    @property
    def task_description(self) -> str:
        """The current instruction."""
        return self.layout.instruction

    @property
    def possible_instructions(self) -> list[str]:
        """What could be asked on this board, one plain instruction per block."""
        return [task.WORDINGS["plain"][0].format(colour=colour) for colour in self.layout.colours]

    @property
    def _max_episode_steps(self) -> int:  # where LeRobot looks for it
        return self.options.horizon

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begins an episode, with ``seed`` always the same one."""
        super().reset(seed=seed)
        self._layout = task.lay_out(self.np_random, self.options)
        self._canvas.set_board(0, self._layout)
        self._position, self._steps = self._layout.start, 0
        observation = self._observe()
        self._show(observation)
        return observation, {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Moves the agent; a command longer than one cell is shortened, one over the edge cut."""
        layout = self.layout
        task.check_finite(action, "BlockFind")
        self._position, executed = task.advance(self._position, action)
        self._steps += 1
        success = bool(task.distance(self._position, layout.goal) <= task.ARRIVED)
        truncated = not success and self._steps >= self.options.horizon
        info: dict[str, Any] = {"executed_action": executed, "is_success": success}
        if success or truncated:
            info["outcome"] = task.outcome(layout, self._position, success)
        observation = self._observe()
        self._show(observation)
        return observation, float(success), success, truncated, info

    def expert_action(self) -> np.ndarray:
        """Straight to the named block, (2,) float32 in cells."""
        return task.expert(self._position, self.layout.goal)

    def steer(self, toward: tuple[float, float]) -> np.ndarray:
        """What a person means who points at ``toward`` of the picture (0..1 from its upper left), (2,) float32."""
        gap = np.array(toward, np.float32) * np.float32(task.BOARD) - self._position
        return task.advance(self._position, gap)[1]

    def ask(self, instruction: str) -> bool:
        """Asks for another block of this board from now on; False, and nothing changes, unless one is named."""
        named = {word for word in re.findall(r"[a-z]+", instruction.lower()) if word in task.PALETTE}
        if len(named) != 1 or not named <= set(self.layout.colours):
            return False
        index = self.layout.colours.index(named.pop())
        self._layout = replace(self.layout, named=index, instruction=instruction)
        return True

    def render(self) -> np.ndarray | None:
        """The enlarged picture with its caption, uint8 RGB, in mode "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return enlarge(self._canvas.draw(self._position[None])[0], captions=[self.task_description])

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None

    def _observe(self) -> dict[str, Any]:
        return {
            "pixels": {"top": self._canvas.draw(self._position[None])[0]},
            "agent_pos": self._position.copy(),
            "instruction": self.layout.instruction,
        }

    def _show(self, observation: dict[str, Any]) -> None:
        if self.render_mode == "human":
            self._window = self._window or window.Window("BlockFind")
            self._window.show(observation["pixels"]["top"], [self.task_description])


def check_render_mode(mode: str | None) -> str | None:
    """Raises TandemError if ``mode`` is unknown or cannot work here."""
    if mode not in (None, *RENDER_MODES):
        raise TandemError(f"BlockFind: render_mode is '{mode}' (allowed: {', '.join(RENDER_MODES)})")
    if mode == "human":
        window.require("BlockFind: render_mode 'human'")
    return mode
