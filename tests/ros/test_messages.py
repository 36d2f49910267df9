from array import array

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.wire import StateLayout, StepOutcome
from tandem_ros.messages import Translator, to_ns, to_time

STAMP = 1_795_169_849_123_456_789


def over_the_wire(message):
    """What the other side gets."""
    return deserialize_message(serialize_message(message), type(message))


@pytest.fixture
def translator(arm) -> Translator:
    return Translator(arm)


@pytest.fixture
def frame(arm, make_frame):
    return make_frame(arm, np.random.default_rng(1), STAMP)


def test_stamps_are_exact():
    assert to_ns(to_time(STAMP)) == STAMP


def test_images_come_back_byte_for_byte(arm, translator, frame):
    for camera in arm.cameras:
        pixels = frame.observation.images[camera.name]
        message = over_the_wire(translator.image(camera, pixels, STAMP))
        assert message.header.frame_id == camera.frame_id
        stamp, read = translator.read_image(camera, message)
        assert stamp == STAMP
        assert read.dtype == camera.dtype
        np.testing.assert_array_equal(read, pixels)


def test_a_compressed_image_is_lossless(arm, translator, frame):
    import cv2

    for camera, told in zip(arm.cameras, ("rgb8; png compressed bgr8", "16UC1; png compressed"), strict=True):
        pixels = frame.observation.images[camera.name]
        message = over_the_wire(translator.compressed(camera, pixels, STAMP))
        assert message.format == told
        read = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read[..., ::-1] if read.ndim == 3 else read[..., None], pixels)


def test_an_image_that_is_a_view_is_sent_as_seen(arm, translator):
    wide = np.arange(6 * 16 * 3, dtype=np.uint8).reshape(6, 16, 3)
    message = translator.image(arm.cameras[0], wide[:, ::2], STAMP)
    np.testing.assert_array_equal(translator.read_image(arm.cameras[0], message)[1], wide[:, ::2])


def test_state_comes_back_bit_for_bit_from_two_messages(arm, translator, frame):
    state = frame.observation.state
    joints = over_the_wire(translator.joint_states(state, STAMP))
    scalars = over_the_wire(translator.state(state, STAMP, "stack the bricks"))
    assert list(joints.name) == ["elbow", "wrist"]
    assert list(scalars.name) == ["tcp/x", "grip"]
    stamp, values, instruction = translator.read_state(scalars)
    assert (stamp, instruction) == (STAMP, "stack the bricks")
    joined = StateLayout(arm).join(values, translator.read_joint_states(joints)[1])
    assert joined.dtype == np.float32
    assert joined.tobytes() == state.tobytes()


def test_joints_are_found_by_name(translator, frame):
    message = translator.joint_states(frame.observation.state, STAMP)
    expected = translator.read_joint_states(message)[1]
    turned = JointState(name=["torso", "wrist", "elbow"])
    for column in ("position", "velocity", "effort"):
        setattr(turned, column, array("d", [7.0, *reversed(getattr(message, column))]))
    found = translator.read_joint_states(turned)[1]
    for column, values in expected.items():
        np.testing.assert_array_equal(found[column], values)


@pytest.mark.parametrize("source", list(Source))
def test_chunks_come_back_bit_for_bit(arm, translator, source):
    points = np.random.default_rng(2).normal(size=(5, arm.action_dim)).astype(np.float32)
    message = over_the_wire(translator.chunk(points, STAMP, source))
    assert message.header.frame_id == source.name.lower()
    assert [p.time_from_start.nanosec for p in message.points] == [k * 50_000_000 for k in range(5)]
    chunk = translator.read_chunk(message, "policy/chunk")
    assert (chunk.stamp_ns, chunk.source) == (STAMP, source)
    assert chunk.points.tobytes() == points.tobytes()


def test_a_chunk_in_another_order_is_read_by_name(arm, translator):
    message = translator.chunk(np.array([[1, 2, 3]], np.float32), STAMP, Source.PERSON)
    message.joint_names = ["grip", "elbow", "wrist"]
    assert translator.read_chunk(message, "teleop/chunk").points.tolist() == [[2, 3, 1]]


def test_not_finite_numbers_reach_the_gate(translator):
    points = np.array([[np.nan, np.inf, 1e30]], np.float32)
    read = translator.read_chunk(over_the_wire(translator.chunk(points, STAMP, Source.POLICY)), "policy/chunk")
    assert read.points.tobytes() == points.tobytes()


def test_steps_come_back(translator):
    outcome = StepOutcome(float(np.float32(0.1)), True, False, True)
    assert translator.read_step(over_the_wire(translator.step(outcome, STAMP))) == (STAMP, outcome)
    assert outcome.last


def test_camera_info_tells_the_calibration(arm, translator):
    known: CameraInfo = over_the_wire(translator.camera_info(arm.cameras[0], STAMP))
    assert known.k.tolist() == [10, 0, 4, 0, 11, 3, 0, 0, 1]
    assert known.distortion_model == "plumb_bob"
    assert not over_the_wire(translator.camera_info(arm.cameras[1], STAMP)).k.any()


def spoiled_image(field: str, value: object):
    def spoil(message: Image) -> None:
        setattr(message, field, value)

    return spoil


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("height", 7, "height is 7"),
        ("encoding", "bgr8", "encoding is bgr8"),
        ("step", 25, "step is 25"),
        ("is_bigendian", 1, "is_bigendian is True"),
        ("data", array("B", b"123"), "data length is 3"),
    ],
)
def test_a_wrong_image_is_refused_by_field(arm, translator, frame, field, value, told):
    message = translator.image(arm.cameras[0], frame.observation.images["wrist"], STAMP)
    spoiled_image(field, value)(message)
    with pytest.raises(TandemError, match=f"camera 'wrist': {told}"):
        translator.read_image(arm.cameras[0], message)


def test_wrong_states_are_refused_by_field(translator, frame):
    message = translator.state(frame.observation.state, STAMP, "")
    message.name = ["tcp/x", "grap"]
    with pytest.raises(TandemError, match=r"state: name is .*grap"):
        translator.read_state(message)
    message = translator.joint_states(frame.observation.state, STAMP)
    message.velocity = array("d", [0.0])
    with pytest.raises(TandemError, match="joint_states: velocity length is 1"):
        translator.read_joint_states(message)
    message.name = ["elbow", "knee"]
    with pytest.raises(TandemError, match=r"joint_states: name lacks \['wrist'\]"):
        translator.read_joint_states(message)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: setattr(m.header, "frame_id", "ghost"), "frame_id is 'ghost'"),
        (lambda m: setattr(m, "joint_names", ["elbow", "wrist", "thumb"]), "joint_names are .*thumb"),
        (lambda m: setattr(m, "points", []), "points are empty"),
        (lambda m: setattr(m.points[1], "positions", array("d", [1.0])), r"points\[1\].positions length is 1"),
        (lambda m: setattr(m.points[1].time_from_start, "sec", 3), r"points\[1\].time_from_start is 30"),
    ],
)
def test_a_wrong_chunk_is_refused_by_field(arm, translator, spoil, told):
    message: JointTrajectory = translator.chunk(np.zeros((2, arm.action_dim), np.float32), STAMP, Source.POLICY)
    spoil(message)
    with pytest.raises(TandemError, match=f"policy/chunk: {told}"):
        translator.read_chunk(message, "policy/chunk")
