"""A replay buffer as a source of episodes."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding, StateSource
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats import foreign
from tandem_datasets.formats.columns import frames_of, no_images
from tandem_datasets.formats.replay_buffer.arrays import ENDS, Buffer
from tandem_datasets.formats.replay_buffer.writing import FACTS, OURS
from tandem_datasets.frames import EpisodeInfo, Frame

_KNOWN_STATE: tuple[tuple[re.Pattern[str], StateSource], ...] = (
    (re.compile(r"state|agent_pos|low_dim_state"), StateSource.POSE),
    (re.compile(r"robot\d*_(eef_pos|eef_rot_axis_angle|eef_pose|eef_quat)|eef_pose?"), StateSource.POSE),
    (re.compile(r"(robot\d*_)?gripper(_width|_open|_qpos)?"), StateSource.GRIP),
    (re.compile(r"(robot\d*_)?(joint|joint_pos|joints|qpos)"), StateSource.JOINT_POSITION),
    (re.compile(r"(robot\d*_)?(joint_vel|qvel)"), StateSource.JOINT_VELOCITY),
)
_UMI = re.compile(r"robot\d+_eef_pos")
_ROLES = ("camera", "action", "reward", "left_out", "state")
_ACTIONS = ("auto", "data", "next_state", "none")
_MAX_EPISODES = 1 << 24


@dataclass(frozen=True)
class _Part:
    """An array that is a part of the state."""

    key: str
    source: StateSource
    size: int


class ReplayBufferSource:
    """See ``formats.replay_buffer.open_source``."""

    def __init__(
        self, path: Path, roles: Mapping[str, str], rate_hz: float, action: str, actor: str, instruction: str
    ) -> None:
        self._where = f"import {path}"
        if not path.exists():
            raise TandemError(f"{self._where}: there is nothing")
        self._buffer = Buffer(path, self._where)
        self._ends = self._read_ends()
        self._actor = foreign.actor(actor, self._where)
        self._instruction = instruction
        carried = self._buffer.attributes().get("tandem")
        self._own = _Own(self._buffer, carried, self._ends, self._where) if isinstance(carried, Mapping) else None
        if self._own is not None:
            self.embodiment = self._own.embodiment
            return
        if action not in _ACTIONS:
            raise unknown(f"{self._where}: action", action, _ACTIONS)
        self._keys = self._roles(roles)
        self._next_state = self._takes_next_state(action)
        if action == "none":
            self._keys = {key: role for key, role in self._keys.items() if role != "action"}
        self.embodiment = self._body(rate_hz)

    @property
    def n_episodes(self) -> int:
        return len(self._ends)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterable[Frame]]:
        """Its facts, and its frames, whose pictures are decoded as they are asked for."""
        rows = (int(self._ends[index - 1]) if index else 0, int(self._ends[index]))
        if self._own is not None:
            return self._own.episode(index, rows)
        where = f"{self._where}: episode {index}"
        count = rows[1] - rows[0]
        numbers = self._numbers(rows)
        steps = np.arange(count)
        numbers["stamp"] = np.round(steps * (1e9 / self.embodiment.rate_hz)).astype(np.int64)
        cameras = {key: camera for (key, _), camera in zip(self._of("camera"), self.embodiment.cameras, strict=True)}
        images = _images(self._buffer, cameras, rows, where)
        info = EpisodeInfo(
            seed=index,
            instruction=self._instruction,
            uuid=foreign.episode_uuid(self._identity, index),
            provenance={"imported": {"format": "replay_buffer", "episode": index, **self._told}},
        )
        return info, frames_of(self.embodiment, numbers, [self._instruction] * count, images, where, self._actor)

    def _read_ends(self) -> np.ndarray:
        array = self._buffer.array(ENDS)
        if len(array.shape) != 1 or array.dtype.kind not in "iu" or array.shape[0] > _MAX_EPISODES:
            raise TandemError(f"{self._where}: {ENDS} is {array.dtype} {array.shape} (allowed: whole numbers (N,))")
        ends = self._buffer.read(ENDS, 0, array.shape[0]).astype(np.int64)
        if not len(ends):
            raise TandemError(f"{self._where}: no episodes (allowed: at least one)")
        if (np.diff(ends, prepend=0) <= 0).any():
            raise TandemError(f"{self._where}: {ENDS} is damaged (allowed: growing counts of frames)")
        return ends

    # -- what the arrays are

    def _roles(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What each array of ``data`` is: a camera, the action, the reward, a source of state, or left out."""
        keys = self._buffer.keys("data")
        for key, role in wanted.items():
            if key not in keys:
                raise unknown(f"{self._where}: map", key, keys)
            if role not in (*_ROLES, *StateSource):
                raise unknown(f"{self._where}: map {key}", role, (*_ROLES, *StateSource))
        return {key: wanted.get(key) or _usual_role(key, len(self._buffer.array(f"data/{key}").shape)) for key in keys}

    def _of(self, role: str) -> list[tuple[str, str]]:
        return [(key, each) for key, each in self._keys.items() if each == role]

    @property
    def _parts(self) -> list[_Part]:
        """What makes up the state, in the order of their names, ``state`` itself first."""
        picked = [(key, role) for key, role in self._keys.items() if role == "state" or role in list(StateSource)]
        picked.sort(key=lambda each: (each[0] != "state", each[0]))
        return [
            _Part(key, StateSource(role) if role in list(StateSource) else StateSource.POSE, self._width(key))
            for key, role in picked
        ]

    def _width(self, key: str) -> int:
        array = self._buffer.array(f"data/{key}")
        if len(array.shape) > 2:
            raise TandemError(f"{self._where}: data/{key} has shape {array.shape} (allowed: (T,) or (T, D))")
        return int(np.prod(array.shape[1:]))

    def _takes_next_state(self, action: str) -> bool:
        umi = any(_UMI.fullmatch(key) for key in self._keys)
        if action == "data" and not self._of("action"):
            raise TandemError(f"{self._where}: no array is the action (it has: {', '.join(self._keys)})")
        takes = action == "next_state" or (action == "auto" and umi and not self._of("action"))
        if takes and not self._parts:
            raise TandemError(f"{self._where}: action=next_state without a state")
        return takes

    def _body(self, rate_hz: float) -> Embodiment:
        names, limits = [], []
        for part in self._parts:
            names += [(name, part.source) for name in _names(part)]
            limits += self._limits(part.key)
        state = foreign.state_scalars(names, limits)
        action: tuple[Any, ...] = ()
        if self._next_state:
            action = foreign.action_scalars([scalar.name for scalar in state], limits)
        elif self._of("action"):
            action = foreign.action_scalars([], self._limits(self._of("action")[0][0]))
        return Embodiment(
            name="umi" if any(_UMI.fullmatch(key) for key in self._keys) else "replay_buffer",
            rate_hz=rate_hz,
            hears_instruction=bool(self._instruction),
            cameras=tuple(self._camera(key) for key, _ in self._of("camera")),
            state=state,
            action=action,
        )

    def _limits(self, key: str) -> list[tuple[float, float]]:
        lows, highs = [], []
        for block in self._buffer.blocks(f"data/{key}", 0, int(self._ends[-1])):
            values = foreign.as_float32(block.reshape(len(block), self._width(key)), f"{self._where}: data/{key}")
            lows.append(values.min(0))
            highs.append(values.max(0))
        return foreign.data_limits(np.min(lows, axis=0), np.max(highs, axis=0))

    def _camera(self, key: str) -> Camera:
        array = self._buffer.array(f"data/{key}")
        shape: tuple[int, ...] = tuple(array.shape[1:])
        if len(shape) == 3 and shape[2] in (1, 3):
            height, width, channels = shape
        elif len(shape) == 3 and shape[0] in (1, 3):
            channels, height, width = shape
        elif len(shape) == 2:
            height, width, channels = shape[0], shape[1], 1
        else:
            raise TandemError(
                f"{self._where}: data/{key} has shape {array.shape} (allowed: pictures of 1 or 3 channels)"
            )
        deep = array.dtype == np.uint16 and channels == 1
        if not deep and array.dtype != np.uint8 and array.dtype.kind != "f":
            raise TandemError(
                f"{self._where}: data/{key} is {array.dtype} (allowed: uint8, uint16 of one channel, float)"
            )
        name = foreign.plain_name(key) or "camera"
        return Camera(name, height, width, Encoding.DEPTH if deep else Encoding.RGB8)

    # -- one episode

    def _numbers(self, rows: tuple[int, int]) -> dict[str, np.ndarray]:
        numbers = {}
        parts = [self._vectors(part.key, rows) for part in self._parts]
        if parts:
            numbers["state"] = np.concatenate(parts, axis=1)
        if self._next_state:
            numbers["action"] = np.concatenate([numbers["state"][1:], numbers["state"][-1:]])
        elif self._of("action"):
            numbers["action"] = self._vectors(self._of("action")[0][0], rows)
        for key, _ in self._of("reward"):
            numbers["reward"] = self._vectors(key, rows)[:, 0].astype(np.float64)
        return numbers

    def _vectors(self, key: str, rows: tuple[int, int]) -> np.ndarray:
        found = self._buffer.read(f"data/{key}", *rows)
        return foreign.as_float32(found.reshape(len(found), self._width(key)), f"{self._where}: data/{key}")

    @property
    def _identity(self) -> str:
        return f"replay_buffer:{hashlib.sha256(self._ends.tobytes()).hexdigest()}:{','.join(self._keys)}"

    @property
    def _told(self) -> dict[str, Any]:
        """What was done with the arrays."""
        left_out = [key for key, role in self._keys.items() if role == "left_out"]
        told: dict[str, Any] = {
            "rate_hz": "given, not in the data",
            "keys": {k: r for k, r in self._keys.items() if r != "left_out"},
        }
        told |= {"left_out": left_out} if left_out else {}
        return told | ({"action": "the next step's state"} if self._next_state else {})


class _Own:
    """A buffer that Tandem exported."""

    def __init__(self, buffer: Buffer, carried: Mapping[str, Any], ends: np.ndarray, where: str) -> None:
        self._buffer, self._where = buffer, where
        self.embodiment = Embodiment.from_dict(carried.get("embodiment"), f"{where}: embodiment")  # type: ignore[arg-type]
        keys, texts = carried.get("keys"), carried.get("instructions")
        if not isinstance(keys, Mapping) or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise TandemError(f"{where}: attributes of Tandem are damaged (allowed: keys and instructions)")
        there = {f"{group}/{key}" for group in ("data", OURS) for key in buffer.keys(group)}
        missing = sorted(str(key) for key in keys.values() if key not in there)
        main = {camera.name for camera in self.embodiment.cameras} | {"instruction", "stamp"}
        if missing or not main <= set(keys):
            raise TandemError(f"{where}: no array {', '.join(missing) or sorted(main - set(keys))!s:.100}")
        self._keys, self._texts = {str(name): str(key) for name, key in keys.items()}, texts
        size = buffer.array(FACTS).shape[0]
        lines = buffer.read(FACTS, 0, size).tobytes().splitlines()
        if len(lines) != len(ends):
            raise TandemError(f"{where}: {FACTS} tells of {len(lines)} episodes, {ENDS} of {len(ends)}")
        self._lines = lines

    def episode(self, index: int, rows: tuple[int, int]) -> tuple[EpisodeInfo, Iterable[Frame]]:
        where = f"{self._where}: episode {index}"
        cameras = {self._keys[camera.name].removeprefix("data/"): camera for camera in self.embodiment.cameras}
        named = {camera.name for camera in self.embodiment.cameras}
        numbers = {name: self._buffer.read(key, *rows) for name, key in self._keys.items() if name not in named}
        codes = numbers.pop("instruction").tolist()
        if not all(isinstance(code, int) and 0 <= code < len(self._texts) for code in codes):
            raise TandemError(f"{where}: unknown codes of instructions")
        texts = [self._texts[code] for code in codes]
        images = _images(self._buffer, cameras, rows, where)
        return self._info(index, where), frames_of(self.embodiment, numbers, texts, images, where)

    def _info(self, index: int, where: str) -> EpisodeInfo:
        try:
            facts = json.loads(self._lines[index])
        except (ValueError, RecursionError) as error:
            raise TandemError(f"{where}: {FACTS}: {str(error)[:100]}") from error
        known = {field.name for field in fields(EpisodeInfo)}
        if not isinstance(facts, dict) or not set(facts) <= known or not {"seed", "instruction", "uuid"} <= set(facts):
            raise TandemError(f"{where}: {FACTS} has {facts!s:.100} (allowed: {', '.join(sorted(known))})")
        return EpisodeInfo(**facts)


def _usual_role(key: str, dims: int) -> str:
    if dims >= 4:
        return "camera"
    if key == "action":
        return "action"
    found = [source for pattern, source in _KNOWN_STATE if pattern.fullmatch(key)] if dims <= 2 else []
    return found[0].value if found else "left_out"


def _names(part: _Part) -> list[str]:
    """Names of an array's numbers: ``robot0_eef_pos/x``, ``robot0_joint_3``, ``robot0_gripper_width``."""
    stem = foreign.plain_name(part.key)
    if part.size == 1:
        return [stem]
    if part.source.is_joint or part.key == "state":
        return [f"{stem}_{index}" for index in range(part.size)]
    axes = "xyz" if part.size <= 3 else [f"n{index}" for index in range(part.size)]
    return [f"{stem}/{axes[index]}" for index in range(part.size)]


def _images(
    buffer: Buffer, cameras: Mapping[str, Camera], rows: tuple[int, int], where: str
) -> Iterable[Mapping[str, np.ndarray]]:
    if not cameras:
        return no_images(rows[1] - rows[0])
    each = [_pictures(buffer, key, camera, rows, where) for key, camera in cameras.items()]
    names = [camera.name for camera in cameras.values()]
    return (dict(zip(names, images, strict=True)) for images in zip(*each, strict=True))


def _pictures(buffer: Buffer, key: str, camera: Camera, rows: tuple[int, int], where: str) -> Iterator[np.ndarray]:
    """Pictures as the camera's frames are; floats must be whole numbers of 8 bits."""
    for block in buffer.blocks(f"data/{key}", *rows):
        found = block
        if found.dtype.kind == "f":
            found = np.nan_to_num(found, nan=-1.0).clip(-1, 256).astype(np.int16)
            if (found != block).any() or found.min() < 0 or found.max() > 255:
                raise TandemError(f"{where}: data/{key} holds broken numbers (allowed: whole ones, 0..255)")
            found = found.astype(np.uint8)
        if found.ndim == 3:
            found = found[..., None]
        if found.shape[1:3] != camera.shape[:2]:
            found = found.transpose(0, 2, 3, 1)
        if found.shape[3] != camera.shape[2]:  # grey ones
            found = np.repeat(found, camera.shape[2], axis=3)
        if found.shape[1:] != camera.shape or found.dtype != camera.dtype:
            raise TandemError(
                f"{where}: data/{key} is {found.dtype} {found.shape[1:]} (allowed: {camera.dtype} {camera.shape})"
            )
        yield from np.ascontiguousarray(found)
