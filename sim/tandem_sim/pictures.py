"""Pictures for people: enlarged, with a caption."""

from collections.abc import Sequence

import cv2
import numpy as np

CAPTION_PX = 48  # height of one caption line
_MARGIN_PX = 12
_DIM, _NIGHT = 0.28, (10, 12, 24)  # share of the image that is left in the dark, and what it is mixed with


def enlarge(image: np.ndarray, side_px: int = 512, captions: Sequence[str] = ()) -> np.ndarray:
    """``image`` (H, W, 3) uint8 RGB with its pixels visible, ``side_px`` wide, the captions below it."""
    height = round(side_px * image.shape[0] / image.shape[1])
    view = cv2.resize(image, (side_px, height), interpolation=cv2.INTER_NEAREST)
    return np.concatenate([view, *(_caption(text, side_px) for text in captions)])


def spotlight(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """``image`` (H, W, 3) uint8 RGB dimmed where ``attention`` (rows, columns) is not, bright where it peaks."""
    height, width = image.shape[:2]
    peak = float(attention.max())
    lit = cv2.resize(attention.astype(np.float32) / (peak or 1.0), (width, height), interpolation=cv2.INTER_LINEAR)
    share = _DIM + (1 - _DIM) * np.clip(lit, 0, 1)[..., None]
    return (image * share + np.array(_NIGHT) * (1 - share)).round().astype(np.uint8)


def _caption(text: str, width_px: int) -> np.ndarray:
    strip = np.full((CAPTION_PX, width_px, 3), 24, np.uint8)
    face, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.7
    while scale > 0.35 and cv2.getTextSize(text, face, scale, 1)[0][0] > width_px - 2 * _MARGIN_PX:
        scale -= 0.05
    cv2.putText(strip, text, (_MARGIN_PX, 31), face, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return strip
