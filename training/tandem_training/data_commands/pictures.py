"""Filmstrips: some pictures of a camera beside each other, as one small JPEG."""

import io

import numpy as np
from PIL import Image

from tandem_datasets.embodiment import Camera, Encoding

_QUALITY = 82
_MOST_WIDE = 16  # a picture is at most so many times as wide as high


def moments(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` frames, evenly from the first to the last."""
    return sorted({round(float(t)) for t in np.linspace(0, count - 1, min(wanted, count))})


def filmstrip(camera: Camera, images: np.ndarray, height: int) -> tuple[bytes, int, bool]:
    """Pictures (N, H, W, C) beside each other.

    Returns:
        A JPEG ``height`` pixels high, the width of each picture in it, and whether pixels were enlarged.
    """
    shown = _coloured(camera, images)
    width = max(1, min(round(height * camera.width / camera.height), _MOST_WIDE * height))
    enlarged = camera.height < height
    how = Image.Resampling.NEAREST if enlarged or camera.encoding is not Encoding.RGB8 else Image.Resampling.BOX
    strip = Image.new("RGB", (len(shown) * width, height))
    for k, picture in enumerate(shown):
        strip.paste(Image.fromarray(picture).resize((width, height), how), (k * width, 0))
    data = io.BytesIO()
    strip.save(data, "JPEG", quality=_QUALITY, optimize=True)
    return data.getvalue(), width, enlarged


def _coloured(camera: Camera, images: np.ndarray) -> np.ndarray:
    """RGB of anything that a camera sees: near is bright, and each object has a colour of its own."""
    if camera.encoding is Encoding.RGB8:
        return images
    values = images[..., 0]
    if camera.encoding is Encoding.SEGMENTATION:
        mixed = values.astype(np.uint32) * np.uint32(2654435761)  # Knuth's multiplicative hash
        colours = np.stack([mixed >> 24, mixed >> 16 & 255, mixed >> 8 & 255], -1) // 2 + 64
        return np.where(values[..., None] == 0, 0, colours).astype(np.uint8)
    known = values[values > 0]
    near, far = (int(known.min()), int(known.max())) if len(known) else (0, 1)
    share = (far - np.clip(values.astype(np.float32), near, far)) / max(far - near, 1)
    grey = np.where(values == 0, 0, 40 + 215 * share).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)
