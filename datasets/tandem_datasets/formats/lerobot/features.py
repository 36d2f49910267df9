"""LeRobot's features as an embodiment, and an embodiment as LeRobot's features.

A dataset that Tandem exported carries its embodiment whole. Of any other the rest is assumed: limits are the data's
smallest and largest values (-1 and 1 without statistics), units are unknown ("1"), actions are absolute targets.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import foreign

IMAGES, STATE, ACTION = "observation.images.", "observation.state", "action"
_CAMERA = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SOURCES = {  # LeRobot's robots name a joint's scalars shoulder_pan.pos and the like
    "pos": StateSource.JOINT_POSITION,
    "vel": StateSource.JOINT_VELOCITY,
    "effort": StateSource.JOINT_EFFORT,
}
_DEPTH_FLAGS = (("info", "is_depth_map"), ("info", "video.is_depth_map"), ("video_info", "video.is_depth_map"))
_USUAL_RATE_HZ = 30.0
_DEPTH_INFO = {"is_depth_map": True, "depth_unit": "mm"}

Statistics = Mapping[str, Mapping[str, Any]]
Feature = Mapping[str, Any]


def of_features(
    features: Mapping[str, Feature],
    where: str,
    *,
    rate_hz: float = _USUAL_RATE_HZ,
    name: str = "",
    hears: bool = True,
    statistics: Statistics | None = None,
) -> Embodiment:
    """An embodiment for a policy, with the cameras, the state and the action of LeRobot's features under their names.

    Args:
        features: by LeRobot's key ``shape`` and, where known, ``dtype`` and ``names``. Images are (C, H, W), or
            (H, W, C) if their names say so.
        where: begins an error's line.
        rate_hz: of the data.
        name: of the robot.
        hears: whether the data has instructions.
        statistics: by LeRobot's key ``min`` and ``max``.

    Raises:
        TandemError: a feature that no policy's embodiment describes, or no action.
    """
    known = statistics or {}
    if ACTION not in features:
        raise TandemError(f"{where}: no feature '{ACTION}' (it has: {', '.join(features) or 'none'})")
    cameras = tuple(_exact_camera(key, item, where) for key, item in features.items() if is_image(key, item))
    return Embodiment(
        name=foreign.plain_name(name) or "lerobot",
        rate_hz=rate_hz,
        hears_instruction=hears,
        cameras=cameras,
        state=foreign.state_scalars(*state_of(STATE, features[STATE], known, where)) if STATE in features else (),
        action=foreign.action_scalars(*action_of(features[ACTION], known, where)),
    )


def lerobot_features(body: Embodiment, video_info: Mapping[str, Feature]) -> dict[str, dict[str, Any]]:
    """What ``info.json`` says of a dataset of ``body``; cameras in ``video_info`` are videos and carry it."""
    features = body.lerobot_features()
    for camera in body.cameras:
        feature = features[IMAGES + camera.name]
        feature["shape"] = list(camera.shape)
        if camera.name in video_info:
            feature |= {"dtype": "video", "info": dict(video_info[camera.name])}
        elif camera.encoding is Encoding.DEPTH:
            feature["info"] = _DEPTH_INFO
    for key, dtype in (("next.reward", "float32"), ("next.done", "bool"), ("next.success", "bool"),
                       ("timestamp", "float32"), ("frame_index", "int64"), ("episode_index", "int64"),
                       ("index", "int64"), ("task_index", "int64")):  # fmt: skip
        features[key] = {"dtype": dtype, "shape": (1,), "names": None}
    return {key: {**feature, "shape": list(feature["shape"])} for key, feature in features.items()}


def is_image(key: str, item: Feature) -> bool:
    """Whether a feature holds pictures."""
    return item.get("dtype") in ("image", "video") or (key.startswith("observation.image") and len(item["shape"]) == 3)


def is_depth(item: Feature) -> bool:
    """Whether LeRobot marks the pictures as depth."""
    return any((item.get(part) or {}).get(flag) for part, flag in _DEPTH_FLAGS)


def channels_first(item: Feature) -> tuple[int, ...]:
    """The shape (C, H, W) of a picture, of which the names say where its channels stand, or else the sizes."""
    names = item.get("names")
    shape = tuple(int(side) for side in item["shape"])
    if isinstance(names, Sequence) and len(names) == 3:
        last = str(names[2]).startswith("channel")
    else:
        last = len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3)
    return (shape[2], shape[0], shape[1]) if last else shape


def state_of(
    key: str, item: Feature, statistics: Statistics, where: str
) -> tuple[list[tuple[str, StateSource]], list[tuple[float, float]]]:
    """Names with sources, and limits, of the numbers of a measured feature."""
    return [_state_name(name) for name in flat_names(item.get("names"))], limits_of(key, item, statistics, where)


def action_of(item: Feature, statistics: Statistics, where: str) -> tuple[list[str], list[tuple[float, float]]]:
    """Names and limits of the numbers of the action."""
    named = [foreign.qualified_name(name.removesuffix(".pos")) for name in flat_names(item.get("names"))]
    return named, limits_of(ACTION, item, statistics, where)


def limits_of(key: str, item: Feature, statistics: Statistics, where: str) -> list[tuple[float, float]]:
    """Lower and upper limit of each number of a feature."""
    shape = tuple(item["shape"])
    if len(shape) != 1:
        raise TandemError(f"{where}: {key} has shape {shape} (allowed: (N,))")
    known = statistics.get(key, {})
    ends = []
    for quantity, unknown in (("min", -1.0), ("max", 1.0)):
        try:
            values = np.asarray(known.get(quantity, np.full(shape, unknown)), np.float64)
        except (TypeError, ValueError) as error:
            raise TandemError(f"{where}: statistics {key}.{quantity}: {error} (allowed: {shape}, finite)") from error
        if values.shape != shape or not np.isfinite(values).all():
            raise TandemError(
                f"{where}: statistics {key}.{quantity} of shape {values.shape} (allowed: {shape}, finite)"
            )
        ends.append(values)
    return foreign.data_limits(ends[0], ends[1])


def flat_names(names: Any) -> list[str]:
    """LeRobot's names: a list, lists by kind ({"motors": [...]}), indices by name, or nothing."""
    if isinstance(names, Mapping):
        values = list(names.values())
        lists = all(isinstance(value, list | tuple) for value in values)
        return [str(name) for name in (chain.from_iterable(values) if lists else names)]
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _exact_camera(key: str, item: Feature, where: str) -> Camera:
    name = key.removeprefix(IMAGES)
    if not _CAMERA.fullmatch(name):
        raise TandemError(f"{where}: image feature '{key}' (allowed: {IMAGES}<name>, the name as {_CAMERA.pattern})")
    channels, height, width = channels_first(item)
    depth = is_depth(item)
    if channels != 3 or depth:
        raise TandemError(
            f"{where}: image feature '{key}' has {channels} channels of {'depth' if depth else 'colour'} "
            "(allowed: 3 of colour)"
        )
    return Camera(name, height, width)


def _state_name(text: str) -> tuple[str, StateSource]:
    stem, _, ending = text.rpartition(".")
    source = _SOURCES.get(ending, StateSource.POSE) if stem else StateSource.POSE
    return (foreign.plain_name(stem) or "x", source) if source.is_joint else (foreign.qualified_name(text), source)
