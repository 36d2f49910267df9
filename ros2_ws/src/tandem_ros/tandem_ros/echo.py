"""Two bare processes that answer each other's images: ``python -m tandem_ros.echo serve|ask``.

``ask`` publishes 64x64 images, waits for each one's answer and prints the latencies as JSON.
"""

import json
import sys
import time

import numpy as np
import rclpy
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import Image, JointState

ROUNDS = 150
_WARM_UP = 20
_ASK_AGAIN_S = 0.05


def serve(node: Node) -> None:
    """Answers every image with its stamp, until the process is ended."""
    publisher = node.create_publisher(JointState, "echo/answer", 10)
    node.create_subscription(Image, "echo/image", lambda image: publisher.publish(JointState(header=image.header)), 10)
    executor = EventsExecutor()
    executor.add_node(node)
    while rclpy.ok():
        executor.spin_once(timeout_sec=0.5)


def ask(node: Node) -> None:
    """Prints how long answers take; the first one includes discovery, for which the image is sent again and again."""
    answered: list[int] = []
    publisher = node.create_publisher(Image, "echo/image", 10)
    node.create_subscription(JointState, "echo/answer", lambda answer: answered.append(answer.header.stamp.nanosec), 10)
    executor = EventsExecutor()
    executor.add_node(node)
    image = Image(height=64, width=64, encoding="rgb8", step=192, data=bytes(64 * 192))
    latencies_ms = []
    for number in range(1, ROUNDS + 1):
        image.header.stamp.nanosec = number
        begin = time.perf_counter()
        while number not in answered[-2:]:
            publisher.publish(image)
            sent = time.perf_counter()
            while number not in answered[-2:] and time.perf_counter() - sent < _ASK_AGAIN_S:
                executor.spin_once(timeout_sec=_ASK_AGAIN_S)
        latencies_ms.append(1e3 * (time.perf_counter() - begin))
    p50, p99 = np.percentile(latencies_ms[_WARM_UP:], [50, 99])
    found = {"p50_ms": p50, "p99_ms": p99, "discovery_ms": latencies_ms[0], "rounds": ROUNDS - _WARM_UP}
    print(json.dumps(found | {"middleware": get_rmw_implementation_identifier()}), flush=True)


if __name__ == "__main__":
    rclpy.init()
    {"serve": serve, "ask": ask}[sys.argv[1]](rclpy.create_node(f"tandem_echo_{sys.argv[1]}"))
