"""Which of an HDF5 file's arrays are pictures, state and action: robomimic's layout, and ALOHA's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import StateSource
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.bags import natural
from tandem_datasets.formats.foreign import plain_name
from tandem_datasets.formats.hdf5_file import Array, Hdf5File, leaves

SUFFIXES = (".hdf5", ".h5")
_ENDINGS = {  # of robomimic's and ALOHA's names
    "joint_pos": StateSource.JOINT_POSITION,
    "joint_vel": StateSource.JOINT_VELOCITY,
    "qpos": StateSource.JOINT_POSITION,
    "qvel": StateSource.JOINT_VELOCITY,
    "effort": StateSource.JOINT_EFFORT,
}


@dataclass(frozen=True)
class Episode:
    """Where an episode lies."""

    file: Path
    group: str  # "/data/demo_0"; "" in ALOHA's layout
    splits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where arrays lie in an episode's group."""

    pictures: Mapping[str, str]  # camera -> path
    state: Mapping[str, str]  # key -> path
    action: str
    reward: str = ""
    done: str = ""


def demos(file: Hdf5File, path: Path) -> list[Episode]:
    """The demonstrations of a file in robomimic's layout, in their natural order, with their splits."""
    names = sorted((name for name in file.members("/data") if name.startswith("demo_")), key=natural)
    if not names:
        raise TandemError(f"{file.where}: no data/demo_* (allowed: robomimic's layout, or ALOHA's)")
    splits: dict[str, list[str]] = {name: [] for name in names}
    for split in sorted(file.members("/mask")):
        array = file.array(f"/mask/{split}")
        if array.dtype.kind != "S" or len(array.shape) != 1:
            raise TandemError(f"{file.where}: mask/{split} is {array.dtype} {array.shape} (allowed: names)")
        for name in array.load():
            splits.setdefault(name.decode("utf-8", "replace"), []).append(split)
    return [Episode(path, f"/data/{name}", tuple(splits[name])) for name in names]


def find_layout(file: Hdf5File, episode: Episode, cameras: list[str] | None, state: list[str] | None) -> Layout:
    """Where the arrays of all episodes lie, told by the first one."""
    is_aloha = not episode.group
    root = "/observations" if is_aloha else f"{episode.group}/obs"
    action = "/action" if is_aloha else f"{episode.group}/actions"
    if not file.is_group(root) or not file.has(action):
        raise TandemError(f"{file.where}: neither data/demo_*/obs and actions (robomimic) nor observations and action")
    keys = {path.removeprefix(f"{root}/").removeprefix("images/"): path for path in leaves(file, root)}
    for key in (*(cameras or ()), *(state or ())):
        if key not in keys:
            raise unknown(f"{file.where}: observation", key[:60], keys)
    shown = {key for key, path in keys.items() if is_picture(file.array(path), path)}
    pictures = sorted(shown, key=natural) if cameras is None else cameras
    vectors = sorted(set(keys) - shown, key=natural) if state is None else state
    optional = {"rewards": "", "dones": ""}
    for name in optional:
        if not is_aloha and file.has(f"{episode.group}/{name}"):
            optional[name] = name
    short = episode.group
    return Layout(
        {key: keys[key].removeprefix(short) for key in pictures},
        {key: keys[key].removeprefix(short) for key in vectors},
        action.removeprefix(short),
        optional["rewards"] and f"/{optional['rewards']}",
        optional["dones"] and f"/{optional['dones']}",
    )


def hdf5_files(path: Path, where: str) -> list[Path]:
    """The file, or a folder's files in their natural order; raises TandemError if there are none."""
    if path.is_file():
        return [path]
    found = [file for file in path.iterdir() if file.suffix in SUFFIXES] if path.is_dir() else []
    if not found:
        raise TandemError(f"{where}: no {' or '.join(SUFFIXES)} file")
    return sorted(found, key=lambda file: natural(file.name))


def is_picture(array: Array, path: str) -> bool:
    """uint8 (T, H, W, 1 or 3), uint16 (T, H, W, 1), or JPEG files as rows of bytes (ALOHA)."""
    if len(array.shape) == 2:
        return array.dtype == np.uint8 and "/images/" in path
    channels = {np.dtype(np.uint8): (1, 3), np.dtype(np.uint16): (1,)}.get(array.dtype, ())
    return len(array.shape) == 4 and array.shape[3] in channels and max(array.shape[1:3]) <= 16384


def env_args(file: Hdf5File) -> dict[str, Any]:
    """robomimic's description of the environment; {} if it is none."""
    try:
        found = json.loads(file.text("/data", "env_args") or "{}")
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{file.where}: env_args is damaged JSON: {str(error)[:100]}") from error
    return found if isinstance(found, dict) else {}


def source_of(key: str) -> StateSource:
    """Where an observation is measured, as its name tells."""
    for ending, source in _ENDINGS.items():
        if key.endswith(ending):
            return StateSource.GRIP if "gripper" in key and source is StateSource.JOINT_POSITION else source
    return StateSource.POSE


def names_of(key: str, size: int) -> list[str]:
    """Names of the scalars of an array of ``size`` numbers."""
    stem = plain_name(key)[:58]
    return [stem] if size == 1 else [f"{stem}_{index}" for index in range(size)]
