"""BlockFind's pictures: boards with blocks, and the agent's marker at any sub-pixel position.

A board is drawn once per episode. The marker is drawn once per sub-pixel phase, enlarged and averaged
down (so that it is smooth at 1/16 pixel), and then blended into copies of many boards at once.
"""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from tandem_sim.blockfind.task import BOARD, CELL_PX, IMAGE_PX, PALETTE, Layout

cv2.setNumThreads(1)  # pictures this small only lose by threads

_GROUND = (84, 84, 88)
_LINES = (72, 72, 76)

_PHASES = 16  # sub-pixel positions a pixel, per axis
_PATCH = 11  # pixels a side that a marker may touch
_REACH = _PATCH // 2
_DARK_PX = (1.6, 3.6)  # inner and outer radius of the marker's dark ring
_LIGHT_PX = (2.1, 3.05)  # of the white ring upon it; the middle stays open and shows what is below


class Canvas:
    """The boards of ``n`` environments, and their pictures with the agents on them."""

    def __init__(self, n: int) -> None:
        self._n = n
        # one pixel more than the images: what of a marker lies outside of its image is blended there
        self._boards = np.zeros((n * IMAGE_PX * IMAGE_PX + 1, 3), np.uint8)
        self._first_pixel = np.arange(n, dtype=np.intp)[:, None, None] * (IMAGE_PX * IMAGE_PX)

    def set_board(self, index: int, layout: Layout) -> None:
        """Draws the blocks of environment ``index``."""
        self._boards[:-1].reshape(self._n, IMAGE_PX, IMAGE_PX, 3)[index] = draw_board(layout)

    def draw(self, positions: np.ndarray) -> np.ndarray:
        """Fresh RGB images (n, 64, 64, 3) uint8 of the agents at ``positions`` (n, 2) in cells."""
        keep, light = _marker_phases()
        fine = np.rint(positions.astype(np.float64) * (CELL_PX * _PHASES)).astype(np.intp)
        pixel, phase = fine // _PHASES, fine % _PHASES
        span = np.arange(-_REACH, _REACH + 1)
        columns, rows = (pixel[:, axis, None] + span for axis in (0, 1))
        inside = ((rows >= 0) & (rows < IMAGE_PX))[:, :, None] & ((columns >= 0) & (columns < IMAGE_PX))[:, None, :]
        where = self._first_pixel + (rows * IMAGE_PX)[:, :, None] + columns[:, None, :]
        where = np.where(inside, where, len(self._boards) - 1).reshape(-1)
        kind = phase[:, 1] * _PHASES + phase[:, 0]
        under = self._boards.take(where, axis=0).reshape(self._n, -1, 3)
        blend = (under * keep[kind] + light[kind]) >> 8
        images = self._boards.copy()
        # as 3-byte items, which numpy scatters several times faster than rows of three
        images.view("V3").reshape(-1)[where] = blend.astype(np.uint8).reshape(-1, 3).view("V3").reshape(-1)
        return images[:-1].reshape(self._n, IMAGE_PX, IMAGE_PX, 3)


def draw_board(layout: Layout) -> np.ndarray:
    """The board with its blocks, without the agent: (64, 64, 3) uint8 RGB."""
    board = _empty_board().copy()
    for centre, colour in zip(layout.centres, layout.colours, strict=True):
        left, top = (int((value - 0.5) * CELL_PX) for value in centre)
        cv2.rectangle(board, (left, top, CELL_PX, CELL_PX), PALETTE[colour], cv2.FILLED)
    return board


@cache
def _empty_board() -> np.ndarray:
    board = np.full((IMAGE_PX, IMAGE_PX, 3), _GROUND, np.uint8)
    for k in range(BOARD):  # one line a cell, on its left and upper edge
        board[k * CELL_PX] = _LINES
        board[:, k * CELL_PX] = _LINES
    return board


@cache
def _marker_phases() -> tuple[np.ndarray, np.ndarray]:
    """Per phase (y major) and pixel: how much of what is below stays, and what light is added, in 1/256.

    Both (256, 121, 1) uint16; a pixel becomes ``(below * keep + light) >> 8``.
    """
    keep, light = [], []
    for phase_y in range(_PHASES):
        for phase_x in range(_PHASES):
            dark, white = _ring(phase_x, phase_y, _DARK_PX), _ring(phase_x, phase_y, _LIGHT_PX)
            keep.append(np.rint(256 * (1 - dark)))
            light.append(np.rint(255 * 256 * white))
    shape = (_PHASES * _PHASES, _PATCH * _PATCH, 1)
    return np.array(keep, np.uint16).reshape(shape), np.array(light, np.uint16).reshape(shape)


def _ring(phase_x: int, phase_y: int, radii: Sequence[float]) -> np.ndarray:
    """Share of each pixel of a patch that a ring covers, (11, 11) from 0 to 1."""
    large = np.zeros((_PATCH * _PHASES, _PATCH * _PHASES), np.float32)
    half = 1 << 3  # OpenCV counts from pixel centres: half a large pixel less, in its 1/16 units
    centre = tuple((_REACH * _PHASES + phase) * 16 - half for phase in (phase_x, phase_y))
    inner, outer = (round(radius * _PHASES * 16) for radius in radii)
    cv2.circle(large, centre, outer, 1.0, cv2.FILLED, cv2.LINE_8, 4)
    cv2.circle(large, centre, inner, 0.0, cv2.FILLED, cv2.LINE_8, 4)
    return cv2.resize(large, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA)
