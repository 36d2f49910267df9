"""The contract's messages as CDR, without ROS: those that ``tandem_ros.messages`` sends, pinned by a test.

Which value travels where is :mod:`tandem_datasets.wire`'s; this module knows the message types.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.cdr import Definition, parse_definition
from tandem_datasets.frames import Source
from tandem_datasets.wire import SOURCES, STEP_NAMES, StateLayout, StepOutcome

IMAGE, CAMERA_INFO, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CameraInfo", "sensor_msgs/CompressedImage"
JOINT_STATE, TRAJECTORY = "sensor_msgs/JointState", "trajectory_msgs/JointTrajectory"
STRING, DIAGNOSTICS = "std_msgs/String", "diagnostic_msgs/DiagnosticArray"

_SECOND = 1_000_000_000
_ENCODINGS = {Encoding.RGB8: "rgb8", Encoding.DEPTH: "16UC1", Encoding.SEGMENTATION: "16UC1"}
_ACTORS = {name: source for source, name in SOURCES.items()}

_PARTS = {
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec\n",
    "builtin_interfaces/Duration": "int32 sec\nuint32 nanosec\n",
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id\n",
    "sensor_msgs/RegionOfInterest": "uint32 x_offset\nuint32 y_offset\nuint32 height\nuint32 width\nbool do_rectify\n",
    "trajectory_msgs/JointTrajectoryPoint": (
        "float64[] positions\nfloat64[] velocities\nfloat64[] accelerations\nfloat64[] effort\n"
        "builtin_interfaces/Duration time_from_start\n"
    ),
    "diagnostic_msgs/KeyValue": "string key\nstring value\n",
    "diagnostic_msgs/DiagnosticStatus": (
        "byte OK=0\nbyte WARN=1\nbyte ERROR=2\nbyte STALE=3\nbyte level\nstring name\nstring message\n"
        "string hardware_id\ndiagnostic_msgs/KeyValue[] values\n"
    ),
}
_STAMPED = ("std_msgs/Header", "builtin_interfaces/Time")
_TYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    IMAGE: (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n"
        "uint8[] data\n",
        _STAMPED,
    ),
    COMPRESSED: ("std_msgs/Header header\nstring format\nuint8[] data\n", _STAMPED),
    CAMERA_INFO: (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring distortion_model\nfloat64[] d\nfloat64[9] k\n"
        "float64[9] r\nfloat64[12] p\nuint32 binning_x\nuint32 binning_y\nsensor_msgs/RegionOfInterest roi\n",
        (*_STAMPED, "sensor_msgs/RegionOfInterest"),
    ),
    JOINT_STATE: (
        "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n",
        _STAMPED,
    ),
    TRAJECTORY: (
        "std_msgs/Header header\nstring[] joint_names\ntrajectory_msgs/JointTrajectoryPoint[] points\n",
        (*_STAMPED, "trajectory_msgs/JointTrajectoryPoint", "builtin_interfaces/Duration"),
    ),
    STRING: ("string data\n", ()),
    DIAGNOSTICS: (
        "std_msgs/Header header\ndiagnostic_msgs/DiagnosticStatus[] status\n",
        (*_STAMPED, "diagnostic_msgs/DiagnosticStatus", "diagnostic_msgs/KeyValue"),
    ),
}


def definition_text(name: str) -> str:
    """The ``ros2msg`` text of one of the contract's message types, with all that it is made of."""
    body, parts = _TYPES[name]
    return body + "".join(f"{'=' * 80}\nMSG: {part}\n{_PARTS[part]}" for part in parts)


@cache
def definition(name: str) -> Definition:
    """One of the contract's message types."""
    return parse_definition(name, definition_text(name), name)


def ros_name(name: str) -> str:
    """``sensor_msgs/Image`` as ``sensor_msgs/msg/Image``."""
    return name.replace("/", "/msg/")


def topic_types(embodiment: Embodiment) -> dict[str, str]:
    """The contract's relative topics and their types, for a recording of ``embodiment``."""
    cameras = {}
    for camera in embodiment.cameras:
        cameras[image_topic(camera.name)] = IMAGE
        cameras[f"camera/{camera.name}/camera_info"] = CAMERA_INFO
    joints = {"joint_states": JOINT_STATE} if StateLayout(embodiment).joints else {}
    return {
        "episode": DIAGNOSTICS,
        "instruction": STRING,
        "state": JOINT_STATE,
        **joints,
        **cameras,
        "action": TRAJECTORY,
        "action/requested": TRAJECTORY,
        "action/label": TRAJECTORY,
        "step": JOINT_STATE,
    }


def image_topic(camera: str) -> str:
    """The topic of a camera's pictures."""
    return f"camera/{camera}/image_raw"


def stamp_of(header: Mapping[str, Any]) -> int:
    """A header's stamp in nanoseconds."""
    return header["stamp"]["sec"] * _SECOND + header["stamp"]["nanosec"]


class Messages:
    """Builds (as CDR) and reads (decoded) the messages of one embodiment."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.layout = StateLayout(embodiment)
        self._actions = [scalar.name for scalar in embodiment.action]

    # building -----------------------------------------------------------------------------------------------

    def image(self, camera: Camera, pixels: np.ndarray, stamp_ns: int) -> bytes:
        """``pixels`` (H, W, C) as sensor_msgs/Image."""
        values = {
            "header": _header(stamp_ns, camera.frame_id),
            "height": camera.height,
            "width": camera.width,
            "encoding": _ENCODINGS[camera.encoding],
            "step": camera.width * camera.encoding.channels * camera.dtype.itemsize,
            "data": np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
        }
        return definition(IMAGE).encode(values)

    def camera_info(self, camera: Camera, stamp_ns: int) -> bytes:
        """The calibration; all zeros in K where it is unknown or orthographic."""
        values: dict[str, Any] = {
            "header": _header(stamp_ns, camera.frame_id),
            "height": camera.height,
            "width": camera.width,
        }
        if camera.intrinsics is not None:
            lens = camera.intrinsics
            values |= {
                "distortion_model": "plumb_bob",
                "d": lens.distortion or (0.0,) * 5,
                "k": (lens.fx, 0, lens.cx, 0, lens.fy, lens.cy, 0, 0, 1),
                "r": (1, 0, 0, 0, 1, 0, 0, 0, 1),
                "p": (lens.fx, 0, lens.cx, 0, 0, lens.fy, lens.cy, 0, 0, 0, 1, 0),
            }
        return definition(CAMERA_INFO).encode(values)

    def joint_states(self, state: np.ndarray, stamp_ns: int) -> bytes:
        """The joints of ``state`` (S,)."""
        columns = self.layout.joint_columns(state)
        return definition(JOINT_STATE).encode(
            {"header": _header(stamp_ns), "name": list(self.layout.joints), **columns}
        )

    def state(self, state: np.ndarray, stamp_ns: int, instruction: str) -> bytes:
        """The scalars of ``state`` (S,) that are no joints, and the instruction that holds."""
        values = {
            "header": _header(stamp_ns, instruction),
            "name": list(self.layout.scalars),
            "position": state[self.layout.scalar_indices],
        }
        return definition(JOINT_STATE).encode(values)

    def action(self, action: np.ndarray, stamp_ns: int, source: Source) -> bytes:
        """``action`` (A,) on the observation at ``stamp_ns``."""
        values = {
            "header": _header(stamp_ns, SOURCES[source]),
            "joint_names": self._actions,
            "points": [{"positions": action}],
        }
        return definition(TRAJECTORY).encode(values)

    def label(self, action: np.ndarray, stamp_ns: int) -> bytes:
        """What an expert would have done on the observation at ``stamp_ns``."""
        return self.action(action, stamp_ns, Source.EXPERT)

    def step(self, outcome: StepOutcome, stamp_ns: int) -> bytes:
        """What the step on the observation at ``stamp_ns`` led to."""
        numbers = (outcome.reward, outcome.terminated, outcome.truncated, outcome.success)
        values = {"header": _header(stamp_ns), "name": list(STEP_NAMES), "position": numbers}
        return definition(JOINT_STATE).encode(values)

    def instruction(self, text: str) -> bytes:
        """What is asked for."""
        return definition(STRING).encode({"data": text})

    def episode(self, message: str, facts: Mapping[str, object], stamp_ns: int) -> bytes:
        """An episode's facts, ``message`` being "running" or its outcome."""
        pairs = [{"key": key, "value": str(value)} for key, value in facts.items()]
        status = {"name": "episode", "message": message, "values": pairs}
        return definition(DIAGNOSTICS).encode({"header": _header(stamp_ns), "status": [status]})

    # reading ------------------------------------------------------------------------------------------------

    def read_image(self, camera: Camera, message: Mapping[str, Any], where: str) -> np.ndarray:
        """Pixels of ``camera.shape``, a view of the message's bytes."""
        row = camera.width * camera.encoding.channels * camera.dtype.itemsize
        wanted = {
            "height": camera.height, "width": camera.width, "encoding": _ENCODINGS[camera.encoding],
            "step": row, "is_bigendian": 0,
        }  # fmt: skip
        for field, allowed in wanted.items():
            if message[field] != allowed:
                raise TandemError(f"{where}: {field} is {message[field]} (allowed: {allowed})")
        if len(message["data"]) != row * camera.height:
            raise TandemError(f"{where}: {len(message['data'])} bytes of pixels (allowed: {row * camera.height})")
        return np.frombuffer(message["data"], camera.dtype).reshape(camera.shape)

    def read_joints(self, message: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
        """float64 (joints,) per used column; joints in any order, others beside them are ignored."""
        order = _order(message["name"], list(self.layout.joints), f"{where}: name")
        columns = {}
        for column in self.layout.columns:
            if len(message[column]) != len(message["name"]):
                raise TandemError(f"{where}: {column} has {len(message[column])} of {len(message['name'])} values")
            columns[column] = message[column][order]
        return columns

    def read_state(self, message: Mapping[str, Any], where: str) -> np.ndarray:
        """The scalars that are no joints, float64; the message's frame_id is the instruction."""
        if len(message["position"]) != len(message["name"]):
            raise TandemError(f"{where}: position has {len(message['position'])} of {len(message['name'])} values")
        return message["position"][_order(message["name"], list(self.layout.scalars), f"{where}: name")]

    def read_action(self, message: Mapping[str, Any], where: str) -> tuple[np.ndarray, Source]:
        """The first point, float32 (A,), and who acts."""
        source = _ACTORS.get(message["header"]["frame_id"])
        if source is None:
            came = message["header"]["frame_id"]
            raise TandemError(f"{where}: frame_id is '{came:.40}' (allowed: {', '.join(_ACTORS)})")
        order = _order(message["joint_names"], self._actions, f"{where}: joint_names")
        if not message["points"] or len(message["points"][0]["positions"]) != len(message["joint_names"]):
            raise TandemError(f"{where}: the first point lacks positions (allowed: {len(order)})")
        return message["points"][0]["positions"][order].astype(np.float32), source


def read_step(message: Mapping[str, Any], where: str) -> StepOutcome:
    """The outcome in a ``step`` message."""
    values = message["position"]
    if message["name"] != list(STEP_NAMES) or len(values) != len(STEP_NAMES):
        raise TandemError(f"{where}: name is {message['name']} (allowed: {list(STEP_NAMES)}, a position each)")
    reward, terminated, truncated, success = values.tolist()
    return StepOutcome(reward, bool(terminated), bool(truncated), bool(success))


def read_facts(message: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """(message, values by key) of an ``episode`` message; ("", {}) if it has no status."""
    for status in message["status"]:
        return status["message"], {pair["key"]: pair["value"] for pair in status["values"]}
    return "", {}


def _header(stamp_ns: int, frame_id: str = "") -> dict[str, Any]:
    return {"stamp": {"sec": stamp_ns // _SECOND, "nanosec": stamp_ns % _SECOND}, "frame_id": frame_id}


def _order(names: list[str], wanted: list[str], where: str) -> np.ndarray:
    """Where each wanted name stands."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise TandemError(f"{where} lacks {missing} (it has: {names})")
    return np.array([names.index(name) for name in wanted], np.intp)
