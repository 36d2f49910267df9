"""The subscriptions through which a node takes a robot's observations."""

from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from tandem_datasets.embodiment import Camera
from tandem_ros.messages import Translator
from tandem_ros.runtime import RELIABLE, Runtime, image_qos
from tandem_ros.streams import FrameMatcher, ObservationMatcher


class ObservationInput:
    """Puts the messages of an observation's streams where ``target`` says, then calls ``arrived`` with the stamp.

    Args:
        target: gives the matcher that takes messages now, or None while none are wanted.
        arrived: called after each message with its stream ("state", "joint_states" or a camera) and stamp.
    """

    def __init__(
        self,
        node: Node,
        runtime: Runtime,
        translator: Translator,
        target: Callable[[], ObservationMatcher | FrameMatcher | None],
        arrived: Callable[[str, int], None],
    ) -> None:
        self._translator = translator
        self._target = target
        self._arrived = arrived
        guarded = runtime.guarded
        node.create_subscription(JointState, "state", guarded(self._on_state), RELIABLE)
        if translator.layout.joints:
            node.create_subscription(JointState, "joint_states", guarded(self._on_joints), RELIABLE)
        for camera in translator.embodiment.cameras:
            qos = image_qos(camera.height * camera.width * 4)
            topic = f"camera/{camera.name}/image_raw"
            node.create_subscription(Image, topic, guarded(self._image_taker(camera)), qos)

    def _on_state(self, message: JointState) -> None:
        stamp, scalars, instruction = self._translator.read_state(message)
        if (target := self._target()) is not None:
            target.put_state(stamp, scalars, instruction)
            self._arrived("state", stamp)

    def _on_joints(self, message: JointState) -> None:
        stamp, columns = self._translator.read_joint_states(message)
        if (target := self._target()) is not None:
            target.put_joints(stamp, columns)
            self._arrived("joint_states", stamp)

    def _image_taker(self, camera: Camera) -> Callable[[Image], None]:
        def take(message: Image) -> None:
            stamp, pixels = self._translator.read_image(camera, message)
            if (target := self._target()) is not None:
                target.put_image(camera.name, stamp, pixels)
                self._arrived(camera.name, stamp)

        return take
