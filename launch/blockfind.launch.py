"""Rolls out a policy in BlockFind: ros2 launch tandem_bringup blockfind.launch.py policy:=<dir>"""

from tandem_ros.launch_actions import describe


def generate_launch_description():
    return describe("blockfind")
