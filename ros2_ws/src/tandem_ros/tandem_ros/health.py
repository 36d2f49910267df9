"""A node's health on ``/diagnostics``, once a second."""

from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from tandem_ros.runtime import RELIABLE, Runtime

_PERIOD_S = 1.0


def status(name: str, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """A status that is OK, with its values as text."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=DiagnosticStatus.OK, name=name, message=message, values=pairs)


class Health:
    """Publishes what ``facts`` says, if anybody listens."""

    def __init__(self, node: Node, runtime: Runtime, message: str, facts: Callable[[], Mapping[str, object]]) -> None:
        self._node = node
        self._message = message
        self._facts = facts
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._timer = node.create_timer(_PERIOD_S, runtime.guarded(self._publish))

    def _publish(self) -> None:
        if not self._publisher.get_subscription_count():
            return
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [status(self._node.get_fully_qualified_name(), self._message, self._facts())]
        self._publisher.publish(array)
