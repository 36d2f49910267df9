"""The cameras of the H1 environments, as the embodiment describes them."""

import math

from tandem_datasets.embodiment import Camera, Encoding, Intrinsics
from tandem_sim.h1.settings import Settings

FOVY_DEG = {"front": 34.0, "head": 48.0, "left_wrist": 70.0, "right_wrist": 70.0}  # vertical field of view


def described(settings: Settings) -> tuple[Camera, ...]:
    """All image streams in order: each camera's pictures, then its depth, then its segmentation, where asked for."""
    height, width = settings.image_shape
    streams = []
    for name in settings.cameras:
        lens = intrinsics(name, height, width)
        kinds = [(name, Encoding.RGB8)]
        if settings.depth:
            kinds.append((f"{name}_depth", Encoding.DEPTH))
        if settings.segmentation:
            kinds.append((f"{name}_segmentation", Encoding.SEGMENTATION))
        streams += [
            Camera(stream, height, width, encoding, frame_id=f"{name}_camera", intrinsics=lens)
            for stream, encoding in kinds
        ]
    return tuple(streams)


def intrinsics(name: str, height: int, width: int) -> Intrinsics:
    """Pinhole with square pixels; the centre of the upper left pixel is (0, 0)."""
    focal = height / 2 / math.tan(math.radians(FOVY_DEG[name]) / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
