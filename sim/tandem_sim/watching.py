"""MuJoCo worlds watched live: in MuJoCo's own window, or in a browser on this machine.

What is shown is a copy of the world. Whoever looks may turn the camera, pause or reset what they see, and nothing of
that reaches the simulation: an episode watched is the same as one that nobody watches.
"""

import copy
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.performing import Instant, Performance

PAUSE_S = 1.0  # between two episodes
CLOSING_S = 5.0  # that a window may take to close
LOOKED_AT, DISTANCE, AZIMUTH, ELEVATION = (0.3, 0.0, 1.15), 1.5, 150.0, -25.0  # m, m, degrees, degrees
_SEEN = ("geom_", "mat_", "light_", "cam_", "body_")  # parts of a model that may differ from episode to episode


class Screen(Protocol):
    """Where a world is shown."""

    def begin(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Another episode: the world may look otherwise now."""

    def show(self, data: mujoco.MjData, instant: Instant) -> bool:
        """Shows the world as it is now; False once the person closed it."""


def watch(performance: Performance, screen: Screen, seed: int, episodes: int | None) -> Iterator[tuple[int, str]]:
    """Plays the episodes ``seed``, ``seed + 1`` ... in real time, to the end or until the screen is closed.

    Yields:
        Each finished episode's seed and outcome.
    """
    world: Any = world_of(performance)
    period = 1 / performance.embodiment.rate_hz
    number = seed
    while episodes is None or number < seed + episodes:
        due = time.perf_counter()
        for instant in performance.play(number):
            if not instant.step:
                screen.begin(world.model, world.data)
            if not screen.show(world.data, instant):
                return
            due = max(due + period, time.perf_counter() - period)  # what is late is not made up for by a rush
            time.sleep(max(0.0, due - time.perf_counter()))
            if instant.last:
                yield number, instant.outcome
        time.sleep(PAUSE_S)
        number += 1


def world_of(performance: Performance) -> Any:
    """The world with ``model`` and ``data`` of an environment; raises TandemError if it is none of MuJoCo's."""
    world = getattr(performance.env.unwrapped, "world", None)
    if not isinstance(getattr(world, "model", None), mujoco.MjModel):
        spec = performance.env.spec
        raise TandemError(
            f"environment '{spec.id if spec else ''}': it is no MuJoCo world (allowed: an H1 environment; "
            "or `tandem render`, which films any)"
        )
    return world


class Window(AbstractContextManager):
    """MuJoCo's passive viewer.

    Raises:
        TandemError: there is no display, or no window can be opened on it.
    """

    def __init__(self, performance: Performance) -> None:
        require_display("MuJoCo's window")
        from mujoco import viewer

        world = world_of(performance)
        self._model = copy.copy(world.model)
        self._data = mujoco.MjData(self._model)
        self._said = ("", "")
        before = set(threading.enumerate())
        self._viewer = viewer.launch_passive(self._model, self._data, show_left_ui=False, show_right_ui=False)
        self._threads = set(threading.enumerate()) - before  # MuJoCo starts one and does not tell which
        with self._viewer.lock():
            _aim(self._viewer.cam)

    def begin(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        with self._viewer.lock():
            for name in dir(model):
                if name.startswith(_SEEN) and isinstance(value := getattr(model, name), np.ndarray):
                    getattr(self._model, name)[...] = value
            mujoco.mj_copyData(self._data, self._model, data)
        self._viewer.sync()

    def show(self, data: mujoco.MjData, instant: Instant) -> bool:
        if not self._viewer.is_running():
            return False
        with self._viewer.lock():
            mujoco.mj_copyData(self._data, self._model, data)
        said = instant.instruction, instant.outcome.replace("_", " ") or instant.words
        if said != self._said:  # as seldom as that: MuJoCo waits until the window has taken it
            self._said = said
            try:
                self._viewer.set_texts((None, None, *said))
            except mujoco.UnexpectedError:  # it was closed just now
                return False
        self._viewer.sync(state_only=True)
        return True

    def __exit__(self, *_: object) -> None:
        self._viewer.close()
        for thread in self._threads:  # gone before Python is, or the drawing outlives what it draws
            thread.join(CLOSING_S)


def require_display(where: str) -> None:
    """Raises TandemError if no window of OpenGL can be opened here, saying what else can be done."""
    help_line = "allowed: `web=true` for a browser on this machine, or `tandem render` for a film"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise TandemError(f"{where}: there is no display ({help_line})")
    import warnings

    import glfw

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opened = bool(glfw.init())
        if opened:
            glfw.window_hint(glfw.VISIBLE, False)
            window = glfw.create_window(64, 64, "", None, None)
            glfw.default_window_hints()
            opened = bool(window)
            if window:
                glfw.destroy_window(window)
    if not opened:
        reason = " ".join(str(said[-1].message).split())[:120] if said else "GLFW does not say why"
        raise TandemError(f"{where}: the display cannot be opened: {reason} ({help_line})")


def _aim(camera: mujoco.MjvCamera) -> None:
    """At the table, from the front and the side."""
    camera.lookat[:] = LOOKED_AT
    camera.distance, camera.azimuth, camera.elevation = DISTANCE, AZIMUTH, ELEVATION
