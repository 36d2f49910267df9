"""Sheets of samples: what was seen and asked, the true and the predicted action, and where the policy looked.

A displacement in a plane is drawn as two arrows on the picture; every other action as a strip per scalar over the
chunk, from its lower to its upper limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding, StateSource
from tandem_sim.pictures import spotlight
from tandem_training.accuracy import are_directions

TRUE, OURS = (255, 255, 255), (255, 120, 0)  # RGB: white is right, orange is the policy
_INK, _PAPER = (40, 44, 52), (246, 246, 243)
_PICTURE_PX, _GAP_PX, _LINE_PX, _HEAD_PX = 208, 10, 17, 30
_STRIP_PX, _MOST_STRIPS = 22, 14
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FINE = 4  # fractional bits of OpenCV's coordinates


@dataclass(frozen=True)
class Case:
    """One sample and what was made of it."""

    images: Mapping[str, np.ndarray]  # per camera (H, W, C)
    state: np.ndarray  # (S,)
    instruction: str
    theirs: np.ndarray  # (P, A) the true actions, in units
    ours: np.ndarray  # (P, A) the predicted ones
    attention: np.ndarray | None = None  # (rows, columns), where the policy looked in the first camera
    note: str = ""  # further lines below the picture, as many in every case


def sheet(embodiment: Embodiment, cases: Sequence[Case], columns: int = 4) -> np.ndarray:
    """All cases as one picture, uint8 RGB (H, W, 3), with a key above them."""
    tiles = [_tile(embodiment, case) for case in cases]
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    page = np.empty((_HEAD_PX + rows * (height + _GAP_PX), columns * (width + _GAP_PX) + _GAP_PX, 3), np.uint8)
    page[:] = _PAPER
    _key(page)
    for place, tile in enumerate(tiles):
        top = _HEAD_PX + place // columns * (height + _GAP_PX)
        left = _GAP_PX + place % columns * (width + _GAP_PX)
        page[top : top + height, left : left + width] = tile
    return page


def is_planar(embodiment: Embodiment) -> bool:
    """Whether an action can be drawn as an arrow."""
    return are_directions(embodiment) and embodiment.action_dim == 2 and bool(embodiment.cameras)


def _tile(embodiment: Embodiment, case: Case) -> np.ndarray:
    parts = []
    if embodiment.cameras:
        camera = embodiment.cameras[0]
        picture = _picture(camera, case.images[camera.name], case.attention)
        if is_planar(embodiment):
            _arrows(embodiment, case, picture)
        parts.append(picture)
    if not is_planar(embodiment):
        parts.append(_strips(embodiment, case))
    lines = [case.instruction or "(no instruction)", *case.note.splitlines()]
    return np.concatenate([*parts, *map(_text, lines)])


def _picture(camera: Camera, image: np.ndarray, attention: np.ndarray | None) -> np.ndarray:
    """The image in colour and of the tile's width, dimmed where the policy did not look."""
    if camera.encoding is not Encoding.RGB8:
        scaled = image[..., 0] / max(float(image.max()), 1.0) * 255
        image = np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=-1)
    height = round(_PICTURE_PX * camera.height / camera.width)
    large = cv2.resize(image, (_PICTURE_PX, height), interpolation=cv2.INTER_NEAREST)
    return large if attention is None else spotlight(large, attention)


def _arrows(embodiment: Embodiment, case: Case, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    begin = _origin(embodiment, case.state) * (width, height)
    reach = max(max(abs(scalar.low), abs(scalar.high)) for scalar in embodiment.action)
    cv2.circle(picture, _point(begin), 3 << _FINE, _INK, cv2.FILLED, cv2.LINE_AA, _FINE)
    for actions, colour, thick in ((case.theirs, TRUE, 5), (case.ours, OURS, 2)):
        if not len(actions):
            continue
        end = begin + np.asarray(actions[0], float) / reach * 0.36 * min(width, height)
        for shade, extra in ((_INK, 2), (colour, 0)):
            _arrow(picture, begin, end, shade, thick + extra)


def _arrow(picture: np.ndarray, begin: np.ndarray, end: np.ndarray, colour: tuple, thick: int) -> None:
    gap = end - begin
    length = float(np.hypot(*gap))
    cv2.line(picture, _point(begin), _point(end), colour, thick, cv2.LINE_AA, _FINE)
    if length > 6:
        along = gap / length
        across = np.array([-along[1], along[0]])
        for side in (-1, 1):
            tip = end - 11 * along + side * 6 * across
            cv2.line(picture, _point(end), _point(tip), colour, thick, cv2.LINE_AA, _FINE)


def _origin(embodiment: Embodiment, state: np.ndarray) -> np.ndarray:
    """Where an action begins, as shares of the picture: where the data set or the state says, else in its middle.

    The state says so where two poses lie in the frame that an orthographic camera shows from limit to limit.
    """
    from tandem_sim.registry import drawn_origin

    fixed = drawn_origin(embodiment.name)
    if fixed is not None:
        return np.array(fixed)
    camera = embodiment.cameras[0]
    if camera.frame_id and camera.intrinsics is None:
        poses = [
            (scalar, value)
            for scalar, value in zip(embodiment.state, state, strict=True)
            if scalar.source is StateSource.POSE and scalar.frame == camera.frame_id
        ]
        if len(poses) == 2:
            return np.array([(value - scalar.low) / (scalar.high - scalar.low) for scalar, value in poses], float)
    return np.array([0.5, 0.5])


def _strips(embodiment: Embodiment, case: Case) -> np.ndarray:
    """A strip per scalar: the true actions as a broad line over the chunk, ours as a thin one on it."""
    scalars = embodiment.action[:_MOST_STRIPS]
    page = np.empty((len(scalars) * _STRIP_PX, _PICTURE_PX, 3), np.uint8)
    page[:] = _PAPER
    for row, scalar in enumerate(scalars):
        top = row * _STRIP_PX
        cv2.rectangle(page, (0, top + 1), (_PICTURE_PX - 1, top + _STRIP_PX - 3), (120, 126, 136), cv2.FILLED)
        for actions, colour, thick in ((case.theirs, TRUE, 4), (case.ours, OURS, 2)):
            values = np.asarray(actions, float)[:, row]
            if not len(values):
                continue
            share = np.clip((values - scalar.low) / (scalar.high - scalar.low), 0, 1)
            y = top + _STRIP_PX - 5 - share * (_STRIP_PX - 8)
            x = np.linspace(4, _PICTURE_PX - 5, len(values)) if len(values) > 1 else np.array([4.0, _PICTURE_PX - 5])
            line = np.stack([x, np.broadcast_to(y, x.shape)], axis=1)
            cv2.polylines(page, [np.rint(line * 2**_FINE).astype(np.int32)], False, colour, thick, cv2.LINE_AA, _FINE)
        cv2.putText(page, scalar.name, (4, top + 10), _FONT, 0.3, (210, 214, 220), 1, cv2.LINE_AA)
    return page


def _key(page: np.ndarray) -> None:
    left = _GAP_PX
    for name, colour in (("true", TRUE), ("predicted", OURS)):
        cv2.line(page, (left, 15), (left + 26, 15), _INK, 7, cv2.LINE_AA)
        cv2.line(page, (left, 15), (left + 26, 15), colour, 4, cv2.LINE_AA)
        cv2.putText(page, name, (left + 34, 20), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
        left += 46 + cv2.getTextSize(name, _FONT, 0.45, 1)[0][0]


def _text(text: str) -> np.ndarray:
    line = np.empty((_LINE_PX, _PICTURE_PX, 3), np.uint8)
    line[:] = _PAPER
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font has no more
    scale = 0.4
    while scale > 0.28 and cv2.getTextSize(plain, _FONT, scale, 1)[0][0] > _PICTURE_PX:
        scale -= 0.02
    cv2.putText(line, plain, (1, 12), _FONT, scale, _INK, 1, cv2.LINE_AA)
    return line


def _point(place: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(np.asarray(place) * 2**_FINE).astype(int)
    return int(x), int(y)
