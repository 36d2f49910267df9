"""Episodes from a recording of any topics, by a map that says which are cameras, state and action.

The map is a yaml file, or the same as a mapping::

    rate_hz: 10                  # of the store; at each tick the newest message at or before it is taken
    name: my_arm                 # of the embodiment; default: the recording's name
    stamps: header               # or log: when messages were recorded
    cameras:
      front: /front/image_raw/compressed
      wrist: {topic: /wrist/image_raw, size: [128, 128]}   # height, width
    state:
      - {topic: /joint_states, field: position}
      - {topic: /tcp_pose, field: pose, prefix: tcp, unit: m, source: pose}
    action:
      - {topic: /arm/command, field: "points[0].positions", kind: absolute}
    action_lead_s: 0.0           # actions are taken so much after the tick
    instruction: pick up the cup # or {topic: /instruction}
    episodes: {gap_s: 2.0}       # or {topic: /recording}, or {each: bag}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import ActionKind, StateSource
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.foreign import UNIT, state_source

_MAX_MAP = 1 << 20  # bytes of a map file


@dataclass(frozen=True)
class CameraEntry:
    """One camera of a map."""

    name: str
    topic: str
    size: tuple[int, int] | None = None  # height, width; None: as recorded


@dataclass(frozen=True)
class VectorEntry:
    """One part of the state or of the action."""

    topic: str
    field: str  # path to a number, a sequence of numbers, or a message of numbers
    names: tuple[str, ...] = ()  # (): as the message names them
    prefix: str = ""
    unit: str = UNIT
    source: StateSource | None = None  # None: by the field of a JointState, else pose
    kind: ActionKind = ActionKind.ABSOLUTE


@dataclass(frozen=True)
class BagMap:
    """Which topics mean what. ``cut`` is "gap", "topic" or "bag"."""

    rate_hz: float
    cameras: tuple[CameraEntry, ...] = ()
    state: tuple[VectorEntry, ...] = ()
    action: tuple[VectorEntry, ...] = ()
    name: str = ""
    by_header: bool = True
    action_lead_s: float = 0.0
    instruction: str = ""
    instruction_topic: str = ""
    cut: str = "gap"
    gap_s: float = 2.0
    episode_topic: str = ""

    @property
    def seen(self) -> list[str]:
        """Topics of the observation."""
        return [camera.topic for camera in self.cameras] + [entry.topic for entry in self.state]

    @property
    def topics(self) -> list[str]:
        """All topics that are read, each once."""
        done = [entry.topic for entry in self.action]
        others = [topic for topic in (self.instruction_topic, self.episode_topic) if topic]
        return list(dict.fromkeys([*self.seen, *done, *others]))


def read_map(given: Mapping[str, Any] | str) -> BagMap:
    """The map in a yaml file, or given as it is; raises TandemError naming the first entry that does not fit."""
    where = "map"
    if isinstance(given, str):
        where, given = f"map {given}", _read_yaml(Path(given))
    data = _mapping(given, where)
    known = ("rate_hz", "name", "stamps", "cameras", "state", "action", "action_lead_s", "instruction", "episodes")
    for key in data:
        if key not in known:
            raise unknown(where, str(key)[:40], known)
    cameras = _mapping(data.get("cameras") or {}, f"{where}: cameras")
    stamps = data.get("stamps", "header")
    if stamps not in ("header", "log"):
        raise TandemError(f"{where}: stamps is {stamps!r:.40} (allowed: header, log)")
    found = BagMap(
        rate_hz=_number(data.get("rate_hz"), f"{where}: rate_hz", 1e-3),
        cameras=tuple(_camera(str(name), entry, f"{where}: camera {name}") for name, entry in cameras.items()),
        state=_vectors(data.get("state"), f"{where}: state"),
        action=_vectors(data.get("action"), f"{where}: action"),
        name=_text(data.get("name", ""), f"{where}: name"),
        by_header=stamps == "header",
        action_lead_s=_number(data.get("action_lead_s", 0.0), f"{where}: action_lead_s", 0.0),
        **_instruction(data.get("instruction", ""), f"{where}: instruction"),
        **_episodes(data.get("episodes") or {}, f"{where}: episodes"),
    )
    if not found.cameras and not found.state:
        raise TandemError(f"{where}: neither cameras nor state (allowed: at least one of them)")
    return found


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        if path.stat().st_size > _MAX_MAP:
            raise TandemError(f"map {path}: larger than {_MAX_MAP} bytes")
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise TandemError(f"map {path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise TandemError(f"map {path}: no yaml: {' '.join(str(error).split())[:120]}") from error


def _camera(name: str, entry: Any, where: str) -> CameraEntry:
    if isinstance(entry, str):
        return CameraEntry(name, _topic(entry, where))
    data = _keys(entry, ("topic", "size"), where)
    size = data.get("size")
    if size is not None:
        fine = isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size)
        if not fine or not all(1 <= side <= 16384 for side in size):
            raise TandemError(f"{where}: size is {size!r:.40} (allowed: [height, width] in pixels)")
        size = (size[0], size[1])
    return CameraEntry(name, _topic(data.get("topic"), where), size)


def _vectors(entries: Any, where: str) -> tuple[VectorEntry, ...]:
    listed = entries if isinstance(entries, list | tuple) else [] if entries is None else [entries]
    return tuple(_vector(entry, f"{where}[{k}]") for k, entry in enumerate(listed))


def _vector(entry: Any, where: str) -> VectorEntry:
    data = _keys(entry, ("topic", "field", "names", "prefix", "unit", "source", "kind"), where)
    names = data.get("names", ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TandemError(f"{where}: names are {names!r:.60} (allowed: a list of texts)")
    kind = data.get("kind", ActionKind.ABSOLUTE)
    if kind not in list(ActionKind):
        raise unknown(f"{where}: kind", str(kind)[:40], list(ActionKind))
    source = data.get("source")
    return VectorEntry(
        topic=_topic(data.get("topic"), where),
        field=_text(data.get("field"), f"{where}: field"),
        names=tuple(names),
        prefix=_text(data.get("prefix", ""), f"{where}: prefix"),
        unit=_text(data.get("unit", UNIT), f"{where}: unit"),
        source=None if source is None else state_source(source, f"{where}: source"),
        kind=ActionKind(kind),
    )


def _instruction(entry: Any, where: str) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"instruction": entry}
    return {"instruction_topic": _topic(_keys(entry, ("topic",), where).get("topic"), where)}


def _episodes(entry: Any, where: str) -> dict[str, Any]:
    data = _keys(entry, ("gap_s", "topic", "each"), where)
    if len(data) > 1:
        raise TandemError(f"{where}: {sorted(data)} (allowed: one of gap_s, topic, each)")
    if "topic" in data:
        return {"cut": "topic", "episode_topic": _topic(data["topic"], where)}
    if "each" in data:
        if data["each"] != "bag":
            raise TandemError(f"{where}: each is {data['each']!r:.40} (allowed: bag)")
        return {"cut": "bag"}
    return {"gap_s": _number(data.get("gap_s", 2.0), f"{where}: gap_s", 1e-3)}


def _topic(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise TandemError(f"{where}: topic is {value!r:.60} (allowed: a name with its leading slash)")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TandemError(f"{where} is {value!r:.60} (allowed: text)")
    return value


def _number(value: Any, where: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1e6:
        raise TandemError(f"{where} is {value!r:.40} (allowed: a number of at least {least:g})")
    return float(value)


def _keys(entry: Any, known: tuple[str, ...], where: str) -> Mapping[str, Any]:
    data = _mapping(entry, where)
    for key in data:
        if key not in known:
            raise unknown(where, str(key)[:40], known)
    return data


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TandemError(f"{where} is {value!r:.60} (allowed: a mapping)")
    return value
