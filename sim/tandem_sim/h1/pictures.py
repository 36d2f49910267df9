"""The pictures of one world: what its cameras see now."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import mujoco
import numpy as np

from tandem_sim.h1.rendering import Renderer, renderer
from tandem_sim.h1.scene import Scene
from tandem_sim.h1.settings import MAX_IMAGE_PX, Settings
from tandem_sim.pictures import enlarge

LARGE_PX = 512  # a side of the picture for people
_FINE = 2  # times as many pixels a side are drawn for it, against jagged edges


class Pictures:
    """Draws when asked, and only then.

    Args:
        scene: the world's.
        model: the world's own, with its episode's colours, light and cameras.
        data: the world's, whose kinematics must be of its current positions.
        settings: which cameras, and how large.
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, data: mujoco.MjData, settings: Settings) -> None:
        self._scene, self._model, self._data, self._settings = scene, model, data, settings

    def all(self) -> dict[str, np.ndarray]:
        """Every stream of the settings, fresh arrays (H, W, C)."""
        settings, model, data = self._settings, self._model, self._data
        height, width = settings.image_shape
        pixels = {}
        with self._ready() as drawing:
            for name in settings.cameras:
                camera = self._scene.cameras[name]
                pixels[name], depth = drawing.draw(model, data, camera, height, width, settings.depth)
                if depth is not None:
                    pixels[f"{name}_depth"] = depth
                if settings.segmentation:
                    ids = self._scene.segments
                    pixels[f"{name}_segmentation"] = drawing.segment(model, data, camera, height, width, ids)
        return pixels

    def front(self, side_px: int = 256) -> np.ndarray:
        """What the front camera sees, (side, side, 3) uint8."""
        with self._ready() as drawing:
            return drawing.draw(self._model, self._data, self._scene.cameras["front"], side_px, side_px)[0]

    def large(self, caption: str) -> np.ndarray:
        """A picture for people, with a caption below."""
        return enlarge(self.smooth("front", LARGE_PX, LARGE_PX), LARGE_PX, [caption])

    def smooth(self, camera: str, height: int, width: int) -> np.ndarray:
        """What any camera sees, (height, width, 3) uint8: drawn larger where there is room for it, and averaged."""
        fine = _FINE if _FINE * max(height, width) <= MAX_IMAGE_PX else 1
        at = self._scene.cameras[camera]
        with self._ready() as drawing:
            drawn = drawing.draw(self._model, self._data, at, fine * height, fine * width)[0]
        return cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA) if fine > 1 else drawn

    @contextmanager
    def _ready(self) -> Iterator[Renderer]:
        mujoco.mj_camlight(self._model, self._data)
        with renderer(self._scene.key, self._model) as drawing:
            drawing.update(self._model, self._data)
            yield drawing
