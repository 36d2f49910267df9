"""The Gymnasium environments ``tandem/H1Reach-v0`` and so on."""

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_sim import spaces, window
from tandem_sim.h1 import rendering
from tandem_sim.h1.pictures import Pictures
from tandem_sim.h1.settings import CAMERAS, Settings
from tandem_sim.h1.tasks.base import Layout, Task
from tandem_sim.h1.trial import Trial
from tandem_sim.h1.world import World, embodiment

if TYPE_CHECKING:
    from tandem_sim.h1.experts import Expert

RENDER_MODES = ("rgb_array", "human")


class H1Env(gymnasium.Env):
    """One H1 at its table.

    Observation: ``pixels`` per camera (H, W, C), ``agent_pos`` (S,) float32 and ``instruction``, as the embodiment
    says; after ``reset`` of the start, after ``step`` of its end. Action (A,) float32, see
    :mod:`tandem_sim.h1.actions`; None holds. Reward: the gain in progress, so that an episode's rewards add up to 1
    for a success. Terminated by success, which has to last half a second, or once a brick that is needed fell off the
    table; truncated at the horizon.

    Every step's info has ``executed_action`` (A,) float32, ``is_success``, ``progress`` (0 to 1) and ``clamped``
    (values out of range so far); the last step's also ``outcome`` (``success``, ``fell`` or one of the task's words)
    and ``grade``, what success asks for and whether it held.

    Args:
        task: one of ``settings.TASKS``; the registered ids give it.
        render_mode: "rgb_array" (the front camera, enlarged, with the instruction below), "human" (a window) or None.
        options: the fields of :class:`~tandem_sim.h1.settings.Settings`.

    Raises:
        TandemError: an option outside of what is allowed; cameras without OpenGL; "human" without a display.
    """

    views = CAMERAS
    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 50}  # noqa: RUF012

    def __init__(self, task: str = "reach", *, render_mode: str | None = None, **options: Any) -> None:
        self.settings = Settings.of(task, options)
        self.render_mode = _check_render_mode(render_mode)
        if self.settings.cameras:
            rendering.require(f"H1: cameras {list(self.settings.cameras)}")
        self.world = World(self.settings)
        self.embodiment: Embodiment = embodiment(self.settings, self.world.task)
        self.observation_space = spaces.observation_space(self.embodiment)
        self.action_space = spaces.action_space(self.embodiment)
        modes = [mode for mode in RENDER_MODES if mode != "human" or window.available()]
        self.metadata = {"render_modes": modes, "render_fps": self.settings.rate_hz}
        self._trial = Trial(self.world.task)
        self._pictures = Pictures(self.world.scene, self.world.model, self.world.data, self.settings)
        self._window: window.Window | None = None
        self._layout: Layout | None = None
        self._expert: Expert | None = None  # of the current episode, once it was asked
        self._expert_made: Expert | None = None
        self._over = False

    @property
    def task(self) -> Task:
        """The task with its current episode."""
        return self.world.task

    @property
    def layout(self) -> Layout:
        """The current episode's, as it was drawn."""
        if self._layout is None:
            raise TandemError("H1: there is no episode yet (call reset first)")
        return self._layout

    @property
    def task_description(self) -> str:
        """The current instruction."""
        return self.layout.instruction

    @property
    def _max_episode_steps(self) -> int:  # where LeRobot looks for it
        return self.world.task.horizon

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begins an episode, with ``seed`` always the same one."""
        super().reset(seed=seed)
        self._layout = self.world.reset(self.np_random)
        self._expert = None
        own = self.world.own()
        self._trial.begin(self._layout, self.world.seen(own))
        observation = self._observe(own)
        if self.render_mode == "human":
            self._show()
        return observation, {}

    def step(self, action: np.ndarray | None) -> tuple[dict, float, bool, bool, dict]:
        """Executes an action for a control step."""
        world = self.world
        if self._layout is None:
            raise TandemError("H1: there is no episode yet (call reset first)")
        executed = world.step(action)
        own = world.own()
        verdict = self._trial.step(world.seen(own))
        info: dict[str, Any] = {
            "executed_action": executed.action,
            "is_success": verdict.success,
            "progress": verdict.progress,
            "clamped": world.actions.clamped,
        }
        if verdict.outcome:
            info["outcome"], info["grade"] = verdict.outcome, dict(verdict.parts)
        observation = self._observe(own)
        if self.render_mode == "human":
            self._show()
        return observation, verdict.reward, verdict.terminated, verdict.truncated, info

    def expert_action(self) -> np.ndarray:
        """What the task's scripted expert would do now, (A,) float32; it may be asked at any step, and again."""
        if self._expert is None:
            if self._expert_made is None:
                from tandem_sim.h1 import experts  # only now: mink, which it needs, takes half a second

                self._expert_made = experts.make(self.world)
            self._expert = self._expert_made
            self._expert.reset()
        return self._expert.action(self._trial.steps)

    @property
    def subgoal(self) -> str:
        """What the expert is about, as of :meth:`expert_action`; "" where it was not asked in this episode."""
        return self._expert.subgoal if self._expert else ""

    def render(self) -> np.ndarray | None:
        """The front camera's picture with the instruction below, uint8 RGB, in mode "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return self._pictures.large(self.task_description)

    def look(self, camera: str, height: int, width: int) -> np.ndarray:
        """What one of :attr:`views` shows now, observed or not, uint8 RGB (height, width, 3) with smooth edges."""
        return self._pictures.smooth(camera, height, width)

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None

    def _observe(self, own: np.ndarray) -> dict[str, Any]:
        assert self._layout is not None
        observation: dict[str, Any] = {"agent_pos": self.world.state(own), "instruction": self._layout.instruction}
        if self.settings.cameras:
            observation["pixels"] = self._pictures.all()
        return observation

    def _show(self) -> None:
        self._window = self._window or window.Window(f"H1: {self.task.name}")
        self._window.show(self._pictures.front(), [self.task_description])


def _check_render_mode(mode: str | None) -> str | None:
    """Raises TandemError if ``mode`` is unknown or cannot work here."""
    if mode not in (None, *RENDER_MODES):
        raise TandemError(f"H1: render_mode is '{mode}' (allowed: {', '.join(RENDER_MODES)})")
    if mode is not None:
        rendering.require(f"H1: render_mode '{mode}'")
    if mode == "human":
        window.require("H1: render_mode 'human'")
    return mode
