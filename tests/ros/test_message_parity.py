"""Recordings written without ROS hold the very messages that the nodes send."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.formats.ros_messages import (
    CAMERA_INFO,
    DIAGNOSTICS,
    IMAGE,
    JOINT_STATE,
    TRAJECTORY,
    Messages,
    definition,
    read_facts,
    read_step,
    stamp_of,
)
from tandem_datasets.frames import Source
from tandem_datasets.wire import StepOutcome
from tandem_ros.health import status
from tandem_ros.messages import Translator

STAMP = 1_795_169_849_123_456_789


@pytest.fixture
def pair(arm):
    return Translator(arm), Messages(arm)


@pytest.fixture
def frame(arm, make_frame):
    return make_frame(arm, np.random.default_rng(1), STAMP)


def test_every_message_is_the_one_that_the_nodes_send(arm, pair, frame):
    live, file = pair
    state = frame.observation.state
    outcome = StepOutcome(0.25, True, False, True)
    pairs = [
        (live.joint_states(state, STAMP), file.joint_states(state, STAMP)),
        (live.state(state, STAMP, "stack, 'Würfel'"), file.state(state, STAMP, "stack, 'Würfel'")),
        (live.chunk(frame.action[None], STAMP, Source.EXPERT), file.action(frame.action, STAMP, Source.EXPERT)),
        (live.step(outcome, STAMP), file.step(outcome, STAMP)),
        (String(data="go"), file.instruction("go")),
    ]
    for camera in arm.cameras:
        pixels = frame.observation.images[camera.name]
        pairs.append((live.image(camera, pixels, STAMP), file.image(camera, pixels, STAMP)))
        pairs.append((live.camera_info(camera, STAMP), file.camera_info(camera, STAMP)))
    for message, data in pairs:
        sent = serialize_message(message)
        name = type(message).__module__.split(".")[0] + "/" + type(message).__name__
        assert repr(deserialize_message(data, type(message))) == repr(message)
        np.testing.assert_equal(definition(name).decode(data, name), definition(name).decode(sent, name))


def test_the_episode_message_is_the_one_that_the_manager_sends(pair):
    facts = {"uuid": "x", "seed": 3, "success": True}
    found = deserialize_message(pair[1].episode("running", facts, STAMP), DiagnosticArray)
    assert list(found.status) == [status("episode", "running", facts)]


def test_what_the_nodes_send_is_read(arm, pair, frame):
    live, file = pair
    seen = frame.observation

    def over(message, name):
        return definition(name).decode(serialize_message(message), "test")

    for camera in arm.cameras:
        message = over(live.image(camera, seen.images[camera.name], STAMP), IMAGE)
        assert stamp_of(message["header"]) == STAMP
        np.testing.assert_array_equal(file.read_image(camera, message, "test"), seen.images[camera.name])
        info = over(live.camera_info(camera, STAMP), CAMERA_INFO)
        assert (info["height"], info["width"]) == (camera.height, camera.width)
    joints = file.read_joints(over(live.joint_states(seen.state, STAMP), JOINT_STATE), "test")
    scalars = over(live.state(seen.state, STAMP, "go"), JOINT_STATE)
    assert scalars["header"]["frame_id"] == "go"
    joined = file.layout.join(file.read_state(scalars, "test"), joints)
    assert joined.tobytes() == seen.state.tobytes()
    action, source = file.read_action(over(live.chunk(frame.action[None], STAMP, Source.HOLD), TRAJECTORY), "test")
    assert (action.tobytes(), source) == (frame.action.tobytes(), Source.HOLD)
    outcome = StepOutcome(-1.5, False, True, False)
    assert read_step(over(live.step(outcome, STAMP), JOINT_STATE), "test") == outcome
    array = DiagnosticArray()
    array.status = [status("episode", "success", {"seed": 4})]
    assert read_facts(over(array, DIAGNOSTICS)) == ("success", {"seed": "4"})


def test_types_are_those_of_the_ros_packages():
    for name, kind in ((IMAGE, Image), (CAMERA_INFO, CameraInfo), (JOINT_STATE, JointState),
                       (TRAJECTORY, JointTrajectory), (DIAGNOSTICS, DiagnosticArray)):  # fmt: skip
        own = definition(name)
        assert [field.name for field in own.types[name]] == list(kind.get_fields_and_field_types())
