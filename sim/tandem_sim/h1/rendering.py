"""Draws MuJoCo scenes off screen: one OpenGL context and renderer a process and model structure, tuned for speed.

Nothing here touches OpenGL before the first picture is asked for, so that a state-only environment runs on a machine
without any. Of the flags, shadows cost most in software; multisampling is off in the model itself (``offsamples``).
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError

MAX_GEOMS = 4000
_FLAG = mujoco.mjtRndFlag
_OFF = [int(flag) for flag in (_FLAG.mjRND_SHADOW, _FLAG.mjRND_REFLECTION, _FLAG.mjRND_SKYBOX, _FLAG.mjRND_HAZE)]
_IDS = [int(flag) for flag in (_FLAG.mjRND_SEGMENT, _FLAG.mjRND_IDCOLOR)]
_HELP = "install libegl1 and libgl1-mesa-dri, set MUJOCO_GL=egl, or choose cameras=[]"

_known: dict[object, "Renderer"] = {}
_lock = threading.Lock()  # an OpenGL context belongs to one thread at a time


class Renderer:
    """Pictures of scenes that share a model's structure (colours, poses, lights and cameras may differ).

    Its methods want its context to be current, as it is within :func:`renderer`.

    Args:
        context: of OpenGL, current.
        model: one of the models.
    """

    def __init__(self, context: Any, model: mujoco.MjModel) -> None:
        self.context = context
        self._mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
        self._mjr.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR  # type: ignore[assignment]
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        set_flags(self._scene)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED  # type: ignore[assignment]
        self._camera.fixedcamid = 0

    def update(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Takes the geometry of ``data``; pictures of any cameras follow."""
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)

    def draw(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, height: int, width: int, depth: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What a camera sees of the last :meth:`update`.

        Returns:
            RGB (height, width, 3) uint8 and, with ``depth``, (height, width, 1) uint16 millimetres, 0 beyond 65 m.
        """
        rect = self._aim(model, data, camera, height, width)
        pixels = np.empty((height, width, 3), np.uint8)
        raw = np.empty((height, width), np.float32) if depth else None
        mujoco.mjr_render(rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(pixels, raw, rect, self._mjr)
        return pixels[::-1].copy(), None if raw is None else _millimetres(model, raw[::-1])

    def segment(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, height: int, width: int, ids: np.ndarray
    ) -> np.ndarray:
        """Which thing each pixel shows, (height, width, 1) uint16: ``ids`` (ngeom,) of its geom, 0 for nothing."""
        rect = self._aim(model, data, camera, height, width)
        flags = self._scene.flags
        flags[_IDS] = True
        mujoco.mjr_render(rect, self._scene, self._mjr)
        flags[_IDS] = False
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rect, self._mjr)
        wide = pixels[::-1].astype(np.int32)
        shown = wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)
        return self._ids_of_segments(ids)[shown][..., None]

    def _aim(self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, height: int, width: int) -> Any:
        self._camera.fixedcamid = camera
        mujoco.mjv_updateCamera(model, data, self._camera, self._scene)
        return mujoco.MjrRect(0, 0, width, height)

    def _ids_of_segments(self, ids: np.ndarray) -> np.ndarray:
        table = np.zeros(self._scene.ngeom + 1, np.uint16)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = ids[geom.objid]
        return table

    def close(self) -> None:
        """Frees what the graphics driver holds."""
        self._mjr.free()


def set_flags(scene: mujoco.MjvScene) -> None:
    """What the renderer leaves out of every picture."""
    scene.flags[_OFF] = False


@contextmanager
def renderer(key: object, model: mujoco.MjModel) -> Iterator[Renderer]:
    """This process's renderer for models with the structure that ``key`` stands for, ready to draw.

    Its size is the largest picture that ``model.vis.global_`` allows.

    Raises:
        TandemError: there is no OpenGL here.
    """
    with _lock:
        if key not in _known:
            _known[key] = _make(model)
        drawing = _known[key]
        with drawing.context.as_current():
            yield drawing


def _make(model: mujoco.MjModel) -> Renderer:
    if _inherited:
        raise TandemError("OpenGL: this process was forked from one that draws (allowed: one that was spawned)")
    context = _context(model.vis.global_.offwidth, model.vis.global_.offheight)
    with context.as_current():
        drawing = Renderer(context, model)
    if not _known:
        atexit.register(_close_all)  # later registered than the driver's own end, hence sooner called
    return drawing


def _close_all() -> None:
    with _lock:
        for drawing in _known.values():
            with drawing.context.as_current():  # in another one, what has the same numbers there would be freed
                drawing.close()
            drawing.context.free()
        _known.clear()


def _after_fork() -> None:
    """Of a process that draws, a forked child can not: the graphics driver's threads stay behind, and it would wait."""
    if _known:
        _inherited.append(dict(_known))  # kept, since its parent still uses them
        _known.clear()
        atexit.unregister(_close_all)


_inherited: list[dict[object, Renderer]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_after_fork)


def require(where: str) -> None:
    """Raises TandemError saying what to install or set if pictures cannot be drawn here; opens no context yet."""
    try:
        context_class()
    except TandemError as error:
        raise TandemError(f"{where}: {error}") from error


def _context(width: int, height: int) -> Any:
    make = context_class()
    os.environ.setdefault("LP_NUM_THREADS", "1")  # software rendering of pictures this small only loses by threads
    try:
        context = make(width, height)
    except Exception as error:  # each back end raises its own kind
        raise TandemError(f"no OpenGL here: {_first_line(error)} ({_HELP})") from error
    if getattr(context, "_context", True) is None:  # GLFW only warns
        raise TandemError(f"no OpenGL here: no window system ({_HELP})")
    return context


def context_class() -> Callable[[int, int], Any]:
    """The back end that MUJOCO_GL names; on Linux EGL if it names none, whatever MuJoCo itself was imported with."""
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in ("disable", "disabled", "off", "false", "0"):
        raise TandemError(f"no OpenGL here: MUJOCO_GL is '{wanted}' ({_HELP})")
    try:
        if wanted == "osmesa":
            from mujoco.osmesa import GLContext
        elif sys.platform == "linux" and wanted not in ("glfw", "glx"):
            from mujoco.egl import GLContext
        else:
            from mujoco.rendering.classic.gl_context import GLContext
    except Exception as error:  # what PyOpenGL raises without the library depends on how far it came
        raise TandemError(f"no OpenGL here: {_first_line(error)} ({_HELP})") from error
    return GLContext


def _millimetres(model: mujoco.MjModel, raw: np.ndarray) -> np.ndarray:
    """Distances along the view in mm, (H, W, 1) uint16, of a depth buffer with 1 near and 0 far."""
    near, far = (value * model.stat.extent for value in (model.vis.map.znear, model.vis.map.zfar))
    metres = near * far / (near + raw.astype(np.float64) * (far - near))
    mm = np.rint(1e3 * metres)
    return np.where((mm > np.iinfo(np.uint16).max) | (raw <= 0), 0, mm).astype(np.uint16)[..., None]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
