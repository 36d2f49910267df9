"""The contract between a robot (or a simulated task family), its data and its policies.

Gymnasium spaces, LeRobot features, Zarr arrays, ROS messages and safety limits all derive from one
frozen :class:`Embodiment` and from nothing else.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

import numpy as np

from tandem_datasets.errors import TandemError

_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,63}")
_QUALIFIED = re.compile(r"[a-z][a-z0-9_]{0,63}(/[a-z][a-z0-9_]{0,63})?")


class Encoding(StrEnum):
    """What a camera's pixels mean."""

    RGB8 = "rgb8"  # uint8, 3 channels
    DEPTH = "depth"  # uint16 millimetres, 1 channel, 0 = no reading
    SEGMENTATION = "segmentation"  # uint16 object ids, 1 channel, 0 = background

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self is Encoding.RGB8 else np.uint16)

    @property
    def channels(self) -> int:
        return 3 if self is Encoding.RGB8 else 1


class StateSource(StrEnum):
    """Where a state scalar is measured."""

    JOINT_POSITION = "joint_position"
    JOINT_VELOCITY = "joint_velocity"
    JOINT_EFFORT = "joint_effort"
    POSE = "pose"
    GRIP = "grip"
    WRENCH = "wrench"

    @property
    def is_joint(self) -> bool:
        return self.value.startswith("joint_")


class ActionKind(StrEnum):
    """What an action scalar is relative to."""

    ABSOLUTE = "absolute"  # a target in the scalar's own unit
    DELTA_STEP = "delta_step"  # added once per executed step, never silently dropped
    DELTA_OBSERVATION = "delta_observation"  # relative to the observation that the chunk answers


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics in pixels; ``distortion`` is plumb-bob (k1, k2, p1, p2, k3)."""

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class Camera:
    """One image stream; its frames are arrays of ``shape`` (height, width, channels)."""

    name: str
    height: int  # pixels
    width: int  # pixels
    encoding: Encoding = Encoding.RGB8
    rate_hz: float | None = None  # own rate; None: the embodiment's control rate
    frame_id: str = ""
    intrinsics: Intrinsics | None = None  # None: orthographic or unknown

    def __post_init__(self) -> None:
        _name(f"camera '{self.name}'", self.name, _PLAIN)
        object.__setattr__(self, "encoding", Encoding(self.encoding))
        for side in ("height", "width"):
            _check(1 <= getattr(self, side) <= 16384, f"camera '{self.name}'", side, getattr(self, side), "1..16384")
        if self.rate_hz is not None:
            _positive(f"camera '{self.name}'", "rate_hz", self.rate_hz)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.encoding.channels)

    @property
    def dtype(self) -> np.dtype:
        return self.encoding.dtype


@dataclass(frozen=True)
class StateScalar:
    """One named measurement. Joints carry plain names, all others qualified ones (``left_tcp/x``)."""

    name: str
    unit: str  # "rad", "m", "cell", "N" ...; "1" if it has none
    low: float
    high: float
    source: StateSource
    frame: str = ""  # coordinate frame of poses and wrenches

    def __post_init__(self) -> None:
        where = f"state '{self.name}'"
        object.__setattr__(self, "source", StateSource(self.source))
        _name(where, self.name, _PLAIN if self.source.is_joint else _QUALIFIED)
        _limits(where, self.low, self.high)


@dataclass(frozen=True)
class ActionScalar:
    """One named command of a control step."""

    name: str
    unit: str
    low: float
    high: float
    kind: ActionKind
    rate_limit: float | None = None  # largest change per second, in units; None: none
    frame: str = ""

    def __post_init__(self) -> None:
        where = f"action '{self.name}'"
        object.__setattr__(self, "kind", ActionKind(self.kind))
        _name(where, self.name, _QUALIFIED)
        _limits(where, self.low, self.high)
        if self.rate_limit is not None:
            _positive(where, "rate_limit", self.rate_limit)


@dataclass(frozen=True)
class Embodiment:
    """One robot and task family: what is seen, what is felt, what can be commanded, how often.

    Without a single action scalar it describes data that were only watched, as videos are. Whoever needs to act calls
    :meth:`require_action`.

    Raises:
        TandemError: a field contradicts another (names twice, limits upside down, nothing seen and nothing to command).
    """

    name: str
    rate_hz: float  # control rate
    hears_instruction: bool
    cameras: tuple[Camera, ...]
    state: tuple[StateScalar, ...]
    action: tuple[ActionScalar, ...]
    tells_subgoals: bool = False  # whether its recorded frames say what who acted was about; no policy needs it

    def __post_init__(self) -> None:
        where = f"embodiment '{self.name}'"
        _name(where, self.name, _PLAIN)
        _positive(where, "rate_hz", self.rate_hz)
        for part in ("cameras", "state", "action"):
            object.__setattr__(self, part, tuple(getattr(self, part)))
            if part == "state":  # a joint's position, velocity and effort share its name
                keys = [f"{scalar.name} {scalar.source}" for scalar in self.state]
            else:
                keys = [item.name for item in getattr(self, part)]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            _check(not twice, where, part, twice, "each name once")
        _check(bool(self.action or self.cameras), where, "action", "none", "at least one scalar, or a camera")
        _check(bool(self.cameras or self.state), where, "cameras and state", "none", "at least one of them")

    @property
    def period_ns(self) -> int:
        """The control period in nanoseconds."""
        return round(1e9 / self.rate_hz)

    @property
    def state_dim(self) -> int:
        return len(self.state)

    @property
    def action_dim(self) -> int:
        return len(self.action)

    @property
    def action_low(self) -> np.ndarray:
        """Lower limits, float32 (A,)."""
        return np.array([scalar.low for scalar in self.action], np.float32)

    @property
    def action_high(self) -> np.ndarray:
        """Upper limits, float32 (A,)."""
        return np.array([scalar.high for scalar in self.action], np.float32)

    @property
    def state_low(self) -> np.ndarray:
        """Lower limits, float32 (S,)."""
        return np.array([scalar.low for scalar in self.state], np.float32)

    @property
    def state_high(self) -> np.ndarray:
        """Upper limits, float32 (S,)."""
        return np.array([scalar.high for scalar in self.state], np.float32)

    def camera(self, name: str) -> Camera:
        """The camera called ``name``; raises TandemError with the known ones otherwise."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self.cameras) or "none"
        raise TandemError(f"embodiment '{self.name}': no camera '{name}' (it has: {known})")

    def lerobot_features(self) -> dict[str, dict[str, Any]]:
        """The same contract as LeRobotDataset features (v3 keys, shapes and names)."""
        features: dict[str, dict[str, Any]] = {}
        for camera in self.cameras:
            features[f"observation.images.{camera.name}"] = {
                "dtype": "image",
                "shape": camera.shape,
                "names": ["height", "width", "channels"],
            }
        for key, scalars in (("observation.state", self.state), ("action", self.action)):
            if scalars:
                names = [scalar.name for scalar in scalars]
                features[key] = {"dtype": "float32", "shape": (len(names),), "names": names}
        return features

    def misfits(self, other: "Embodiment") -> list[str]:
        """What keeps a policy made for ``self`` from running on ``other``, a phrase per feature."""
        phrases: list[str] = []
        if self.rate_hz != other.rate_hz:
            phrases.append(f"rate {self.rate_hz:g} Hz, not {other.rate_hz:g} Hz")
        if self.hears_instruction and not other.hears_instruction:
            phrases.append("instruction wanted, none given")
        offered = {camera.name: camera for camera in other.cameras}
        for camera in self.cameras:
            found = offered.get(camera.name)
            if found is None:
                phrases.append(f"camera '{camera.name}' missing")
            elif (found.shape, found.encoding) != (camera.shape, camera.encoding):
                phrases.append(f"camera '{camera.name}' {_picture(camera)}, not {_picture(found)}")
        for part in ("state", "action"):
            phrases += _scalar_misfits(part, getattr(self, part), getattr(other, part))
        return phrases

    def require_fit(self, other: "Embodiment", where: str) -> None:
        """Raises TandemError naming every feature by which ``self`` does not fit ``other``."""
        phrases = self.misfits(other)
        if phrases:
            raise TandemError(f"{where}: made for '{self.name}', does not fit '{other.name}': {'; '.join(phrases)}")

    def require_action(self, where: str) -> None:
        """Raises TandemError if there is nothing to command."""
        if not self.action:
            raise TandemError(f"{where}: embodiment '{self.name}' has no action (allowed: at least one scalar)")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = json.loads(json.dumps(asdict(self)))
        if not self.tells_subgoals:
            del plain["tells_subgoals"]  # digests are as old as their contracts
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "embodiment") -> Self:
        """The inverse of :meth:`to_dict`, for untrusted input: unknown or missing keys are refused."""
        top = _strict(cls, data, where)
        top["cameras"] = tuple(_camera(item, where) for item in _items(top["cameras"], where, "cameras"))
        top["state"] = tuple(
            StateScalar(**_strict(StateScalar, item, where)) for item in _items(top["state"], where, "state")
        )
        top["action"] = tuple(
            ActionScalar(**_strict(ActionScalar, item, where)) for item in _items(top["action"], where, "action")
        )
        return cls(**top)

    @property
    def digest(self) -> str:
        """A short hash of the whole contract."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def _camera(data: Any, where: str) -> Camera:
    values = _strict(Camera, data, where)
    if values.get("intrinsics") is not None:
        inner = _strict(Intrinsics, values["intrinsics"], where)
        values["intrinsics"] = Intrinsics(**{**inner, "distortion": tuple(inner.get("distortion", ()))})
    return Camera(**values)


def _items(value: Any, where: str, part: str) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) > 4096:
        raise TandemError(f"{where}: {part} must be a list of at most 4096 entries, got {type(value).__name__}")
    return list(value)


_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    float | None: (int, float, type(None)),
    tuple[float, ...]: (list, tuple),
    Encoding: (str,),
    StateSource: (str,),
    ActionKind: (str,),
}


def _strict(cls: type, data: Any, where: str) -> dict[str, Any]:
    """``data`` as keyword arguments of the dataclass ``cls``, each of the right JSON type."""
    if not isinstance(data, Mapping):
        raise TandemError(f"{where}: {cls.__name__} must be a mapping, got {type(data).__name__}")
    known = {field.name: field for field in fields(cls)}
    odd = sorted(str(key) for key in data if key not in known)
    if odd:
        raise TandemError(f"{where}: {cls.__name__} has unknown keys {odd} (allowed: {sorted(known)})")
    required = {name for name, field in known.items() if field.default is field.default_factory}
    missing = sorted(required - set(data))
    if missing:
        raise TandemError(f"{where}: {cls.__name__} lacks {missing}")
    for key, value in data.items():
        allowed = _JSON_TYPES.get(known[key].type)
        if allowed and not _is_json(value, allowed):
            raise TandemError(f"{where}: {cls.__name__}.{key} must be {known[key].type}, got {value!r:.80}")
        choice = known[key].type
        if isinstance(choice, type) and issubclass(choice, StrEnum) and value not in list(choice):
            raise TandemError(f"{where}: {cls.__name__}.{key} is '{value:.40}' (allowed: {', '.join(choice)})")
    return dict(data)


def _is_json(value: Any, allowed: tuple[type, ...]) -> bool:
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        return False
    if isinstance(value, list | tuple):
        return all(_is_json(item, (int, float)) for item in value)
    return not isinstance(value, int) or abs(value) < 2**63  # larger ones do not fit a float


def _scalar_misfits(part: str, wanted: tuple, offered: tuple) -> list[str]:
    names, given = [item.name for item in wanted], [item.name for item in offered]
    if names != given:
        return [f"{part} ({', '.join(names) or 'none'}), not ({', '.join(given) or 'none'})"]
    phrases = []
    for mine, theirs in zip(wanted, offered, strict=True):
        differ = [
            f"{field.name} {getattr(mine, field.name)}, not {getattr(theirs, field.name)}"
            for field in fields(mine)
            if getattr(mine, field.name) != getattr(theirs, field.name)
        ]
        if differ:
            phrases.append(f"{part} '{mine.name}': {', '.join(differ)}")
    return phrases


def _picture(camera: Camera) -> str:
    return f"{camera.width}x{camera.height} {camera.encoding}"


def _check(fine: bool, where: str, field: str, came: object, allowed: str) -> None:
    if not fine:
        raise TandemError(f"{where}: {field} is {came} (allowed: {allowed})")


def _name(where: str, name: str, pattern: re.Pattern[str]) -> None:
    _check(bool(pattern.fullmatch(name)), where, "name", repr(name), f"pattern {pattern.pattern}")


def _positive(where: str, field: str, value: float) -> None:
    _check(math.isfinite(value) and value > 0, where, field, value, "a finite number above 0")


def _limits(where: str, low: float, high: float) -> None:
    fine = math.isfinite(low) and math.isfinite(high) and low < high
    _check(fine, where, "limits", f"{low}..{high}", "finite, low < high")
