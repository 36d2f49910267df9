"""The embodiment of a policy that LeRobot makes from a dataset or an environment, whose features say less than ours.

A dataset that Tandem exported carries its embodiment whole. Of any other the rest is assumed: limits are the data's
smallest and largest values (-1 and 1 without statistics), units are unknown ("1"), actions are absolute targets.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.lerobot import EMBODIMENT_FILE
from tandem_policies.files import policy_features

IMAGES, STATE, ACTION = "observation.images.", "observation.state", "action"
_CAMERA = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SOURCES = {  # LeRobot's robots name a joint's scalars shoulder_pan.pos and the like
    "pos": StateSource.JOINT_POSITION,
    "vel": StateSource.JOINT_VELOCITY,
    "effort": StateSource.JOINT_EFFORT,
}
_DEPTH_FLAGS = (("info", "is_depth_map"), ("info", "video.is_depth_map"), ("video_info", "video.is_depth_map"))
_USUAL_RATE_HZ = 30.0

Statistics = Mapping[str, Mapping[str, Any]]


def of_dataset(meta: Any, statistics: Statistics | None) -> Embodiment:
    """The embodiment of a LeRobotDataset's metadata: the one it carries, else one made from its features.

    Raises:
        TandemError: a feature that no embodiment describes, or one that contradicts the carried embodiment.
    """
    where = f"dataset '{meta.repo_id}'"
    carried = Path(meta.root) / EMBODIMENT_FILE
    if carried.is_file():
        body = _read(carried, where)
        require_shapes(body, meta.features, where)
        if body.rate_hz != meta.fps:
            raise TandemError(f"{where}: fps is {meta.fps} (wanted: {body.rate_hz:g}, as in {EMBODIMENT_FILE})")
        return body
    return of_features(
        meta.features,
        where,
        rate_hz=float(meta.fps),
        name=meta.robot_type or "",
        hears=any(str(text) for text in meta.tasks.index),
        statistics=statistics or {},
    )


def of_features(
    features: Mapping[str, Mapping[str, Any]],
    where: str,
    *,
    rate_hz: float = _USUAL_RATE_HZ,
    name: str = "",
    hears: bool = True,
    statistics: Statistics | None = None,
) -> Embodiment:
    """An embodiment with the cameras, the state and the action of LeRobot's features; others are left out.

    Args:
        features: by LeRobot's key ``shape`` and, where known, ``dtype`` and ``names``. Images are (C, H, W), or
            (H, W, C) if their names say so.
        where: begins an error's line.
        rate_hz: of the data.
        name: of the robot.
        hears: whether the data has instructions.
        statistics: by LeRobot's key ``min`` and ``max``.
    """
    known = statistics or {}
    if ACTION not in features:
        raise TandemError(f"{where}: no feature '{ACTION}' (it has: {', '.join(features) or 'none'})")
    return Embodiment(
        name=_plain(name) or "lerobot",
        rate_hz=rate_hz,
        hears_instruction=hears,
        cameras=tuple(_camera(key, item, where) for key, item in features.items() if _is_image(key, item)),
        state=_state(features[STATE], known.get(STATE, {}), where) if STATE in features else (),
        action=_action(features[ACTION], known.get(ACTION, {}), where),
    )


def require_shapes(body: Embodiment, features: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Raises TandemError if one of LeRobot's features has another shape than the embodiment's of that name."""
    for part in policy_features(body).values():
        for key, wanted in part.items():
            if key not in features:
                continue
            item = features[key]
            given = _channels_first(item) if wanted["type"] == "VISUAL" else tuple(item["shape"])
            if given != tuple(wanted["shape"]):
                raise TandemError(
                    f"{where}: {key} has shape {given} (allowed: {tuple(wanted['shape'])}, as in '{body.name}')"
                )


def _read(file: Path, where: str) -> Embodiment:
    try:
        return Embodiment.from_dict(json.loads(file.read_text("utf-8")), f"{where}: {EMBODIMENT_FILE}")
    except (OSError, ValueError, RecursionError) as error:
        raise TandemError(f"{where}: {EMBODIMENT_FILE}: {str(error)[:120]}") from None


def _is_image(key: str, item: Mapping[str, Any]) -> bool:
    return item.get("dtype") in ("image", "video") or (key.startswith("observation.image") and len(item["shape"]) == 3)


def _camera(key: str, item: Mapping[str, Any], where: str) -> Camera:
    name = key.removeprefix(IMAGES)
    if not _CAMERA.fullmatch(name):
        raise TandemError(f"{where}: image feature '{key}' (allowed: {IMAGES}<name>, the name as {_CAMERA.pattern})")
    channels, height, width = _channels_first(item)
    depth = any((item.get(part) or {}).get(flag) for part, flag in _DEPTH_FLAGS)
    if channels != 3 or depth:
        raise TandemError(
            f"{where}: image feature '{key}' has {channels} channels of {'depth' if depth else 'colour'} "
            "(allowed: 3 of colour)"
        )
    return Camera(name, height, width)


def _channels_first(item: Mapping[str, Any]) -> tuple[int, ...]:
    names = item.get("names")
    shape = tuple(int(side) for side in item["shape"])
    last = isinstance(names, Sequence) and len(names) == 3 and str(names[2]).startswith("channel")
    return (shape[2], shape[0], shape[1]) if last else shape


def _state(item: Mapping[str, Any], statistics: Mapping[str, Any], where: str) -> tuple[StateScalar, ...]:
    limits = _limits(STATE, item, statistics, where)
    named = [_state_name(name) for name in _flat(item.get("names"))]
    if len(named) != len(limits) or len(set(named)) != len(named):
        named = [(f"state_{index}", StateSource.POSE) for index in range(len(limits))]
    return tuple(
        StateScalar(name, "1", low, high, source) for (name, source), (low, high) in zip(named, limits, strict=True)
    )


def _action(item: Mapping[str, Any], statistics: Mapping[str, Any], where: str) -> tuple[ActionScalar, ...]:
    limits = _limits(ACTION, item, statistics, where)
    named = [_qualified(name.removesuffix(".pos")) for name in _flat(item.get("names"))]
    if len(named) != len(limits) or len(set(named)) != len(named):
        named = [f"action_{index}" for index in range(len(limits))]
    return tuple(
        ActionScalar(name, "1", low, high, ActionKind.ABSOLUTE) for name, (low, high) in zip(named, limits, strict=True)
    )


def _limits(key: str, item: Mapping[str, Any], statistics: Mapping[str, Any], where: str) -> list[tuple[float, float]]:
    """Lower and upper limit of each number of a feature."""
    shape = tuple(item["shape"])
    if len(shape) != 1:
        raise TandemError(f"{where}: {key} has shape {shape} (allowed: (N,))")
    ends = []
    for quantity, unknown in (("min", -1.0), ("max", 1.0)):
        values = np.asarray(statistics.get(quantity, np.full(shape, unknown)), np.float64)
        if values.shape != shape or not np.isfinite(values).all():
            raise TandemError(
                f"{where}: statistics {key}.{quantity} of shape {values.shape} (allowed: {shape}, finite)"
            )
        ends.append(values)
    still = ends[0] >= ends[1]  # a scalar that never moved
    return list(zip((ends[0] - 0.5 * still).tolist(), (ends[1] + 0.5 * still).tolist(), strict=True))


def _state_name(text: str) -> tuple[str, StateSource]:
    stem, _, ending = text.rpartition(".")
    source = _SOURCES.get(ending, StateSource.POSE) if stem else StateSource.POSE
    return (_plain(stem) or "x", source) if source.is_joint else (_qualified(text), source)


def _flat(names: Any) -> list[str]:
    """LeRobot's names: a list, lists by kind ({"motors": [...]}), indices by name, or nothing."""
    if isinstance(names, Mapping):
        values = list(names.values())
        lists = all(isinstance(value, list | tuple) for value in values)
        return [str(name) for name in (chain.from_iterable(values) if lists else names)]
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _plain(text: str) -> str:
    """A name as embodiments have them: lower case, digits and underscores, a letter first."""
    clean = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return (clean if clean[:1].isalpha() or not clean else f"x{clean}")[:64]


def _qualified(text: str) -> str:
    """The same with up to one slash, at the first slash or dot."""
    first, _, rest = text.replace("/", ".").partition(".")
    return "/".join(filter(None, (_plain(first), _plain(rest)))) or "x"
