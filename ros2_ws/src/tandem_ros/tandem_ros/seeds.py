"""The parameter ``episode.seed`` of nodes that begin episodes."""

import json
from collections.abc import Iterable

from rclpy.node import Node
from rclpy.parameter import Parameter

from tandem_ros.runtime import parameter

NAME = "episode.seed"


class Seeds:
    """The next episode's seed: the parameter's value when it was set last, then counting up as episodes do.

    Setting a parameter costs the other side's core a third of a lock-step step; so it is not done for every episode,
    and each reset tells which seed it took.
    """

    def __init__(self, node: Node) -> None:
        self._next = parameter(node, NAME, 0)
        node.add_post_set_parameters_callback(self._set)

    def take(self) -> int:
        """The seed of the episode that begins now."""
        seed = self._next
        self._next += 1
        return seed

    def _set(self, changed: Iterable[Parameter]) -> None:
        for item in changed:
            if item.name == NAME:
                self._next = item.value


def reset_message(seed: int, **facts: object) -> str:
    """What ``~/reset`` answers, as JSON."""
    return json.dumps({"seed": seed, **facts})
