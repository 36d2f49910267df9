"""Where the files of a LeRobotDataset v3 lie, and what its ``info.json`` says (read with lerobot 0.6.1)."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.places import LocalPlace
from tandem_datasets.reading import read_json

VERSION = "v3.0"
CHUNK_FILES = 1000  # files in a folder
INFO_FILE = "meta/info.json"
STATS_FILE = "meta/stats.json"
TASKS_FILE = "meta/tasks.parquet"
EPISODES_DIR = "meta/episodes"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = EPISODES_DIR + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

EMBODIMENT_FILE = "meta/embodiment.json"
"""Beside LeRobot's own metadata: the whole embodiment, of which LeRobot's features tell only a part."""

OURS = "tandem"
"""A folder that LeRobot does not look at: what an episode store holds and LeRobot has no words for."""

OUR_COLUMNS = OURS + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OUR_FACTS = OURS + "/episodes.jsonl"

_KEY = re.compile(r"[^/\\\0]{1,200}")
_FACTS_LIMIT = 1 << 30  # bytes


Place = tuple[int, int]
"""Which file: the number of its folder, and its own in there."""


def place(index: int) -> Place:
    """Where we put the file of that number."""
    return divmod(index, CHUNK_FILES)


def data_file(at: Place) -> str:
    """A data file's path."""
    return DATA_PATH.format(chunk_index=at[0], file_index=at[1])


def our_file(at: Place) -> str:
    """The path of our own columns beside it."""
    return OUR_COLUMNS.format(chunk_index=at[0], file_index=at[1])


def video_file(key: str, at: Place) -> str:
    """The path of a camera's video."""
    return VIDEO_PATH.format(video_key=key, chunk_index=at[0], file_index=at[1])


@dataclass(frozen=True)
class Info:
    """What of ``info.json`` an import needs, checked."""

    fps: float
    robot_type: str
    features: dict[str, dict[str, Any]]

    @property
    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all features that are no images."""
        return {
            key: tuple(item["shape"]) for key, item in self.features.items() if item["dtype"] not in ("image", "video")
        }


def read_info(root: Path, where: str) -> Info:
    """The dataset's ``info.json``; raises TandemError if it is not of version 3 or makes no sense."""
    found = read_json(LocalPlace(os.fspath(root)), INFO_FILE, where)
    if not isinstance(found, Mapping) or "codebase_version" not in found:
        raise TandemError(f"{where}: {INFO_FILE} has no codebase_version (allowed: a LeRobotDataset {VERSION})")
    version = str(found["codebase_version"])[:20]
    if version.startswith(("v1.", "v2.")):
        raise TandemError(
            f"{where}: a LeRobotDataset {version} (allowed: {VERSION}; convert it with `python -m "
            f"lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=NAME --root={root} --push-to-hub=false`)"
        )
    if not version.startswith("v3."):
        raise TandemError(f"{where}: a LeRobotDataset {version} (allowed: {VERSION})")
    for key, wanted in (("data_path", DATA_PATH), ("video_path", VIDEO_PATH)):
        if found.get(key) not in (wanted, None):
            raise TandemError(f"{where}: {key} is {found[key]!r:.80} (allowed: {wanted})")
    fps = found.get("fps")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not math.isfinite(fps) or not 0 < fps < 1e6:
        raise TandemError(f"{where}: fps is {fps!r:.40} (allowed: a number above 0)")
    features = found.get("features")
    if not isinstance(features, Mapping) or len(features) > 4096:
        raise TandemError(f"{where}: features is no mapping of at most 4096 entries")
    robot = found.get("robot_type")
    return Info(
        fps=float(fps),
        robot_type=robot if isinstance(robot, str) else "",
        features={key: _feature(key, item, where) for key, item in features.items()},
    )


def read_facts(root: Path, where: str) -> list[dict[str, Any]] | None:
    """The facts of all episodes as we wrote them, one mapping each; None if they are not there."""
    path = root / OUR_FACTS
    if not path.is_file():
        return None
    if path.stat().st_size > _FACTS_LIMIT:
        raise TandemError(f"{where}: {OUR_FACTS} is larger than {_FACTS_LIMIT} bytes")
    facts = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TandemError(f"{where}: {OUR_FACTS} line {number}: {str(error)[:100]}") from error
        if not isinstance(found, dict):
            raise TandemError(f"{where}: {OUR_FACTS} line {number} is no mapping")
        facts.append(found)
    return facts


def _feature(key: str, item: Any, where: str) -> dict[str, Any]:
    if not _KEY.fullmatch(key) or key in (".", ".."):
        raise TandemError(f"{where}: feature '{key:.60}' (allowed: names without slashes)")
    shape = item.get("shape") if isinstance(item, Mapping) else None
    sides = isinstance(shape, list) and all(type(side) is int and 0 < side < 2**24 for side in shape)
    if not sides or not isinstance(item.get("dtype"), str):
        raise TandemError(f"{where}: feature '{key}' is {item!r:.80} (allowed: a dtype and a shape of sizes)")
    assert isinstance(shape, list)
    return {**item, "shape": tuple(shape)}
