"""What a robot publishes: observations, what was done on them, and what that led to."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.frames import Frame, Observation, Source
from tandem_datasets.wire import StepOutcome
from tandem_ros.messages import Translator
from tandem_ros.runtime import LATCHED, RELIABLE, image_qos

OBSERVERS = ("policy", "recorder")
"""Names of the nodes that take observations."""


class RobotPublisher:
    """The publishers of one robot, in its node's namespace."""

    def __init__(self, node: Node, translator: Translator, labels: bool) -> None:
        self._node = node
        self._translator = translator
        embodiment = translator.embodiment
        period = embodiment.period_ns
        self._state = node.create_publisher(JointState, "state", RELIABLE)
        self._joints = node.create_publisher(JointState, "joint_states", RELIABLE) if translator.layout.joints else None
        self._images = {
            camera.name: node.create_publisher(
                Image, f"camera/{camera.name}/image_raw", image_qos(camera.height * camera.width * 4)
            )
            for camera in embodiment.cameras
        }
        self._infos = {
            camera.name: node.create_publisher(CameraInfo, f"camera/{camera.name}/camera_info", RELIABLE)
            for camera in embodiment.cameras
        }
        self._compressed = {
            camera.name: node.create_publisher(
                CompressedImage, f"camera/{camera.name}/image_raw/compressed", image_qos(camera.height * camera.width)
            )
            for camera in embodiment.cameras
        }
        self._camera_period = {
            camera.name: round(1e9 / camera.rate_hz) - period // 2 if camera.rate_hz else 0
            for camera in embodiment.cameras
        }
        self._last_image = dict.fromkeys(self._images, -(1 << 62))
        self._action = node.create_publisher(JointTrajectory, "action", RELIABLE)
        self._requested = node.create_publisher(JointTrajectory, "action/requested", RELIABLE)
        self._label = node.create_publisher(JointTrajectory, "action/label", RELIABLE) if labels else None
        self._step = node.create_publisher(JointState, "step", RELIABLE)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)

    def instruction(self, text: str) -> None:
        """What is asked for, from the episode's begin on."""
        self._instruction.publish(String(data=text))

    def observation(self, observation: Observation) -> int:
        """Publishes it, images last; gives when the last one went out (steady clock, ns)."""
        translate, stamp = self._translator, observation.stamp_ns
        messages: list[tuple] = [(self._state, translate.state(observation.state, stamp, observation.instruction))]
        if self._joints is not None:
            messages.append((self._joints, translate.joint_states(observation.state, stamp)))
        for camera in translate.embodiment.cameras:
            own = observation.stream_stamp_ns(camera.name)
            resent = own == self._last_image[camera.name]
            if resent or own - self._last_image[camera.name] >= self._camera_period[camera.name]:
                self._last_image[camera.name] = own
                message = translate.image(camera, observation.images[camera.name], own)
                messages.append((self._images[camera.name], message))
        sent = 0
        for publisher, message in messages:
            sent = time.monotonic_ns()
            publisher.publish(message)
        return sent

    def forget_images(self) -> None:
        """A new episode: every camera is due."""
        self._last_image = dict.fromkeys(self._images, -(1 << 62))

    def frame(self, frame: Frame) -> None:
        """Publishes what was done on an observation and what came of it, stamped with that observation."""
        translate, stamp = self._translator, frame.observation.stamp_ns
        _tell(self._action, lambda: translate.chunk(frame.action[None], stamp, frame.source))
        if (requested := frame.requested) is not None:
            _tell(self._requested, lambda: translate.chunk(requested[None], stamp, frame.source))
        if self._label is not None and (label := frame.label) is not None:
            _tell(self._label, lambda: translate.chunk(label[None], stamp, Source.EXPERT))
        outcome = StepOutcome(frame.reward, frame.terminated, frame.truncated, frame.success)
        _tell(self._step, lambda: translate.step(outcome, stamp))
        for camera in translate.embodiment.cameras:
            pixels = frame.observation.images[camera.name]
            _tell(self._infos[camera.name], partial(translate.camera_info, camera, stamp))
            _tell(self._compressed[camera.name], partial(translate.compressed, camera, pixels, stamp))

    def deaf(self, listeners: Iterable[str]) -> list[str]:
        """Which ``listener: topic`` pairs do not hear us yet."""
        observed = [self._state, *self._images.values(), *([self._joints] if self._joints else [])]
        done = [self._action, self._requested, self._step, *([self._label] if self._label else [])]
        wanted = {"policy": observed, "recorder": [*observed, *done]}
        missing = []
        for listener in listeners:
            for publisher in wanted[listener]:
                ends = self._node.get_subscriptions_info_by_topic(publisher.topic_name)
                if listener not in [end.node_name for end in ends] or publisher.get_subscription_count() < 1:
                    missing.append(f"{listener}: {publisher.topic_name}")
        return missing


def _tell(publisher: Publisher, message: Callable[[], Any]) -> None:
    """Publishes if anybody listens: building and writing what nobody hears takes time from the policy's core."""
    if publisher.get_subscription_count():
        publisher.publish(message())
