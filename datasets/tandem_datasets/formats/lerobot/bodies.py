"""The embodiment of a LeRobotDataset, and which of its features fill it: carried by the data set, or made from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import foreign
from tandem_datasets.formats.lerobot import layout
from tandem_datasets.formats.lerobot.features import (
    ACTION,
    IMAGES,
    STATE,
    action_of,
    channels_first,
    flat_names,
    is_depth,
    is_image,
    lerobot_features,
    state_of,
)
from tandem_datasets.formats.lerobot.parquet import ParquetFile
from tandem_datasets.places import LocalPlace
from tandem_datasets.reading import read_json

Features = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Stream:
    """Where a camera's pictures are found."""

    key: str  # LeRobot's feature
    camera: Camera
    video: bool


@dataclass(frozen=True)
class Body:
    """An embodiment, and LeRobot's features of its parts."""

    embodiment: Embodiment
    state: tuple[str, ...]  # one after the other
    action: tuple[str, ...]  # one or none
    streams: tuple[Stream, ...]  # in the embodiment's order


def carried_body(root: Path, info: layout.Info, where: str) -> Body:
    """The embodiment that lies beside; raises TandemError if the features contradict it."""
    found = read_json(LocalPlace(str(root)), layout.EMBODIMENT_FILE, where)
    body = Embodiment.from_dict(found, f"{where}: {layout.EMBODIMENT_FILE}")
    if body.rate_hz != info.fps:
        raise TandemError(f"{where}: fps is {info.fps:g} (allowed: {body.rate_hz:g}, as in {layout.EMBODIMENT_FILE})")
    for key, wanted in lerobot_features(body, {}).items():
        shape = info.features[key]["shape"] if key in info.features else None
        if shape != tuple(wanted["shape"]) and not (key.startswith("next.") and shape is None):
            raise TandemError(
                f"{where}: {key} has shape {shape} (allowed: {tuple(wanted['shape'])}, as in {layout.EMBODIMENT_FILE})"
            )
    cameras = {IMAGES + camera.name: camera for camera in body.cameras}
    return Body(body, (STATE,) if body.state else (), (ACTION,) if body.action else (), _streams(cameras, info, where))


def derived_body(
    root: Path,
    info: layout.Info,
    state: tuple[str, ...],
    sources: Mapping[str, StateSource],
    hears: bool,
    where: str,
) -> Body:
    """An embodiment made from the features, with the data's own limits; see ``formats.lerobot.open_source``."""
    keys = _state_keys(info, state, where)
    action = (ACTION,) if ACTION in info.vectors else ()
    limits = _limits(root, info, [*keys, *action], where)
    names, ends = [], []
    for key in keys:
        item = info.features[key]
        known, bounds = state_of(key, item, limits, where)
        names += _sourced(key, item, known, len(bounds), sources)
        ends += bounds
    cameras = _cameras({key: item for key, item in info.features.items() if is_image(key, item)}, where)
    body = Embodiment(
        name=foreign.plain_name(info.robot_type) or "lerobot",
        rate_hz=info.fps,
        hears_instruction=hears,
        cameras=tuple(cameras.values()),
        state=foreign.state_scalars(names, ends),
        action=foreign.action_scalars(*action_of(info.features[ACTION], limits, where)) if action else (),
    )
    return Body(body, keys, action, _streams(cameras, info, where))


def vector(file: ParquetFile, table: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A column of vectors as finite float32 (T, D)."""
    if len(shape) != 1:
        raise TandemError(f"{file.where}: {key} has shape {shape} (allowed: (N,))")
    return foreign.as_float32(file.numbers(table, key, shape), f"{file.where}: {key}")


def _state_keys(info: layout.Info, wanted: tuple[str, ...], where: str) -> tuple[str, ...]:
    missing = [key for key in wanted if key not in info.vectors and key != STATE]
    if missing:
        raise TandemError(f"{where}: no feature '{missing[0]}' of numbers (it has: {', '.join(info.vectors)})")
    return tuple(key for key in wanted if key in info.vectors)


def _streams(cameras: Mapping[str, Camera], info: layout.Info, where: str) -> tuple[Stream, ...]:
    streams = []
    for key, camera in cameras.items():
        video = info.features[key]["dtype"] == "video"
        if video and camera.encoding is not Encoding.RGB8:
            raise TandemError(f"{where}: {key} is {camera.encoding} as video (allowed: as images)")
        streams.append(Stream(key, camera, video))
    return tuple(streams)


def _cameras(features: Features, where: str) -> dict[str, Camera]:
    """A camera for each image feature, by its key; names are made to fit."""
    cameras: dict[str, Camera] = {}
    for key, item in features.items():
        if len(item["shape"]) != 3:
            raise TandemError(f"{where}: {key} has shape {item['shape']} (allowed: height, width and channels)")
        channels, height, width = channels_first(item)
        depth = is_depth(item)
        if channels not in ((1,) if depth else (1, 3)):
            raise TandemError(f"{where}: {key} has {channels} channels (allowed: 1 or 3, 1 of depth)")
        name = foreign.plain_name(key.removeprefix(IMAGES).removeprefix("observation.")) or "camera"
        if name in {camera.name for camera in cameras.values()}:
            raise TandemError(f"{where}: {key} becomes camera '{name}' like another (allowed: names that differ)")
        cameras[key] = Camera(name, height, width, Encoding.DEPTH if depth else Encoding.RGB8)
    return cameras


def _sourced(
    key: str,
    item: Mapping[str, Any],
    names: list[tuple[str, StateSource]],
    size: int,
    sources: Mapping[str, StateSource],
) -> list[tuple[str, StateSource]]:
    """Names with the sources that ``map`` gives them, by the scalar's own name or the feature's key."""
    originals = flat_names(item.get("names"))
    if len(originals) != size:
        stem = foreign.plain_name(key.removeprefix("observation."))
        return [(f"{stem}_{index}", sources.get(key, StateSource.POSE)) for index in range(size)]
    found = []
    for original, (name, source) in zip(originals, names, strict=True):
        picked = sources.get(original, sources.get(key, source))
        found.append((foreign.plain_name(name) if picked.is_joint else name, picked))
    return found


def _limits(root: Path, info: layout.Info, keys: list[str], where: str) -> dict[str, dict[str, Any]]:
    """The data set's own smallest and largest values; counted anew where ``stats.json`` does not tell them."""
    there = (root / layout.STATS_FILE).is_file()
    found = read_json(LocalPlace(str(root)), layout.STATS_FILE, where) if there else {}
    known: dict[str, dict[str, Any]] = {}
    for key in keys:
        item = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(item, Mapping) and {"min", "max"} <= set(item):
            known[key] = dict(item)
    missing = [key for key in keys if key not in known]
    return known | (_counted(root, info, missing, where) if missing else {})


def _counted(root: Path, info: layout.Info, keys: list[str], where: str) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for path in sorted((root / "data").glob("*/*.parquet")):
        file = ParquetFile(path, f"data/{path.parent.name}/{path.name}", where)
        table = file.read(slice(0, file.n_rows), keys)
        for key in keys if file.n_rows else ():
            values = vector(file, table, key, info.vectors[key])
            parts[key] += [values.min(0), values.max(0)]
    return {key: {"min": np.min(ends, axis=0), "max": np.max(ends, axis=0)} for key, ends in parts.items() if ends}
