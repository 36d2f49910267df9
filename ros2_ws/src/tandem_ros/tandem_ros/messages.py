"""The one translation between Tandem's arrays and standard ROS 2 messages, both ways, derived from the Embodiment.

Values travel as float64 and come back as the same float32. Where a standard message has no field for a fact, its
``frame_id`` carries it: an action's says who acted, the ``state`` message's says which instruction holds for the
observation of that tick (a String has no stamp to match by).
"""

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.wire import SOURCES, STEP_NAMES, StateLayout, StepOutcome
from tandem_ros.gate import Chunk

ENCODINGS = {Encoding.RGB8: "rgb8", Encoding.DEPTH: "16UC1", Encoding.SEGMENTATION: "16UC1"}
_SECOND = 1_000_000_000
_ACTORS = {name: source for source, name in SOURCES.items()}


def to_time(stamp_ns: int) -> Time:
    """Nanoseconds as a message stamp."""
    return Time(sec=stamp_ns // _SECOND, nanosec=stamp_ns % _SECOND)


def to_ns(stamp: Time) -> int:
    """A message stamp in nanoseconds."""
    return stamp.sec * _SECOND + stamp.nanosec


class Translator:
    """Builds and reads the messages of one embodiment; reading raises TandemError naming the field at fault."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self.layout = StateLayout(embodiment)
        self._joints = list(self.layout.joints)
        self._scalars = list(self.layout.scalars)
        self._actions = [scalar.name for scalar in embodiment.action]
        self._period = embodiment.period_ns

    # images -------------------------------------------------------------------------------------------------

    def image(self, camera: Camera, pixels: np.ndarray, stamp_ns: int) -> Image:
        """``pixels`` (H, W, C) as a message; the bytes go over in one copy."""
        message = Image(
            height=camera.height,
            width=camera.width,
            encoding=ENCODINGS[camera.encoding],
            step=camera.width * camera.encoding.channels * camera.dtype.itemsize,
        )
        message.header = Header(stamp=to_time(stamp_ns), frame_id=camera.frame_id)
        data = array("B")
        data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))  # assigning the ndarray would take 1000 x as long
        message.data = data
        return message

    def read_image(self, camera: Camera, message: Image) -> tuple[int, np.ndarray]:
        """(stamp, pixels of ``camera.shape``), a view of the message's buffer."""
        where = f"image of camera '{camera.name}'"
        row = camera.width * camera.encoding.channels * camera.dtype.itemsize
        _same(where, "height", message.height, camera.height)
        _same(where, "width", message.width, camera.width)
        _same(where, "encoding", message.encoding, ENCODINGS[camera.encoding])
        _same(where, "step", message.step, row)
        _same(where, "is_bigendian", bool(message.is_bigendian), False)
        _same(where, "data length", len(message.data), row * camera.height)
        return to_ns(message.header.stamp), np.frombuffer(message.data, camera.dtype).reshape(camera.shape)

    def compressed(self, camera: Camera, pixels: np.ndarray, stamp_ns: int) -> CompressedImage:
        """``pixels`` (H, W, C) as a lossless PNG, with the format's name as image_transport writes it."""
        import cv2

        is_colour = camera.encoding is Encoding.RGB8
        bgr = np.ascontiguousarray(pixels[..., ::-1]) if is_colour else pixels
        kind = "bgr8" if is_colour else ""
        message = CompressedImage(format=f"{ENCODINGS[camera.encoding]}; png compressed {kind}".rstrip())
        message.header = Header(stamp=to_time(stamp_ns), frame_id=camera.frame_id)
        message.data = array("B", cv2.imencode(".png", bgr)[1].tobytes())
        return message

    def camera_info(self, camera: Camera, stamp_ns: int) -> CameraInfo:
        """The calibration; all zeros in K where it is unknown or orthographic, as the message's definition says."""
        message = CameraInfo(height=camera.height, width=camera.width)
        message.header = Header(stamp=to_time(stamp_ns), frame_id=camera.frame_id)
        if camera.intrinsics is not None:
            lens = camera.intrinsics
            message.distortion_model = "plumb_bob"
            message.d = array("d", lens.distortion or (0.0,) * 5)
            message.k = np.array([lens.fx, 0, lens.cx, 0, lens.fy, lens.cy, 0, 0, 1], np.float64)
            message.r = np.eye(3).ravel()
            message.p = np.array([lens.fx, 0, lens.cx, 0, 0, lens.fy, lens.cy, 0, 0, 0, 1, 0], np.float64)
        return message

    # state --------------------------------------------------------------------------------------------------

    def joint_states(self, state: np.ndarray, stamp_ns: int) -> JointState:
        """The joints of ``state`` (S,)."""
        message = JointState(name=self._joints)
        message.header.stamp = to_time(stamp_ns)
        for column, values in self.layout.joint_columns(state).items():
            setattr(message, column, _doubles(values))
        return message

    def read_joint_states(self, message: JointState) -> tuple[int, dict[str, np.ndarray]]:
        """(stamp, float64 (joints,) per used column); joints in any order, others beside them are ignored."""
        names = list(message.name)
        if names == self._joints:
            order = None
        else:
            missing = [name for name in self._joints if name not in names]
            if missing:
                raise TandemError(f"joint_states: name lacks {missing} (allowed: at least {self._joints})")
            order = [names.index(name) for name in self._joints]
        columns = {}
        for column in self.layout.columns:
            values = np.frombuffer(getattr(message, column), np.float64)
            _same("joint_states", f"{column} length", len(values), len(names))
            columns[column] = values if order is None else values[order]
        return to_ns(message.header.stamp), columns

    def state(self, state: np.ndarray, stamp_ns: int, instruction: str) -> JointState:
        """The scalars of ``state`` (S,) that are no joints; sent on every tick, were it empty."""
        message = JointState(name=self._scalars)
        message.header = Header(stamp=to_time(stamp_ns), frame_id=instruction)
        message.position = _doubles(state[self.layout.scalar_indices])
        return message

    def read_state(self, message: JointState) -> tuple[int, np.ndarray, str]:
        """(stamp, float64 (scalars,), instruction that holds at this tick)."""
        _same("state", "name", list(message.name), self._scalars)
        values = np.frombuffer(message.position, np.float64)
        _same("state", "position length", len(values), len(self._scalars))
        return to_ns(message.header.stamp), values, message.header.frame_id

    # actions ------------------------------------------------------------------------------------------------

    def chunk(self, points: np.ndarray, stamp_ns: int, source: Source) -> JointTrajectory:
        """``points`` (k, A) that answer the observation at ``stamp_ns``; one action is a chunk of one point."""
        message = JointTrajectory(joint_names=self._actions)
        message.header = Header(stamp=to_time(stamp_ns), frame_id=SOURCES[source])
        message.points = [self._point(values, k) for k, values in enumerate(points)]
        return message

    def read_chunk(self, message: JointTrajectory, topic: str) -> Chunk:
        """The chunk with points float32 (k, A); finiteness and limits are the gate's business."""
        source = _ACTORS.get(message.header.frame_id)
        if source is None:
            raise TandemError(f"{topic}: frame_id is '{message.header.frame_id}' (allowed: {', '.join(_ACTORS)})")
        names = list(message.joint_names)
        if sorted(names) != sorted(self._actions):
            raise TandemError(f"{topic}: joint_names are {names} (allowed: {self._actions})")
        if not message.points:
            raise TandemError(f"{topic}: points are empty (allowed: at least one)")
        values: np.ndarray = np.empty((len(message.points), len(names)), np.float32)
        for k, point in enumerate(message.points):
            _same(topic, f"points[{k}].positions length", len(point.positions), len(names))
            due = point.time_from_start.sec * _SECOND + point.time_from_start.nanosec
            if abs(due - k * self._period) > self._period // 2:
                raise TandemError(f"{topic}: points[{k}].time_from_start is {due} ns (allowed: {k * self._period})")
            values[k] = np.frombuffer(point.positions, np.float64)
        if names != self._actions:
            values = values[:, [names.index(name) for name in self._actions]]
        return Chunk(to_ns(message.header.stamp), values, source)

    def _point(self, values: np.ndarray, k: int) -> JointTrajectoryPoint:
        due = k * self._period
        point = JointTrajectoryPoint(time_from_start=Duration(sec=due // _SECOND, nanosec=due % _SECOND))
        point.positions = _doubles(values)
        return point

    # steps --------------------------------------------------------------------------------------------------

    def step(self, outcome: StepOutcome, stamp_ns: int) -> JointState:
        """What the step on the observation at ``stamp_ns`` led to."""
        message = JointState(name=list(STEP_NAMES))
        message.header.stamp = to_time(stamp_ns)
        values = (outcome.reward, outcome.terminated, outcome.truncated, outcome.success)
        message.position = array("d", [float(value) for value in values])
        return message

    def read_step(self, message: JointState) -> tuple[int, StepOutcome]:
        """(stamp, outcome)."""
        _same("step", "name", list(message.name), list(STEP_NAMES))
        _same("step", "position length", len(message.position), len(STEP_NAMES))
        reward, terminated, truncated, success = message.position
        return to_ns(message.header.stamp), StepOutcome(reward, bool(terminated), bool(truncated), bool(success))


def _doubles(values: Sequence[float] | np.ndarray) -> array:
    return array("d", np.asarray(values, np.float64).tobytes())


def _same(where: str, field: str, came: object, wanted: object) -> None:
    if came != wanted:
        raise TandemError(f"{where}: {field} is {came} (allowed: {wanted})")
