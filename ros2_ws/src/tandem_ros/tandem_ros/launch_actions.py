"""Builds what the real ``ros2 launch`` runs from the same graph that ``tandem launch`` starts.

Needs the packages ``launch`` and ``launch_ros`` of a ROS 2 installation; nothing else here imports it. Type checkers at
the repository's root take its folder ``launch`` for the package, hence the ignored attributes.
"""

import sys
from functools import partial
from typing import TYPE_CHECKING

from tandem_datasets.errors import TandemError
from tandem_ros.environment import ros_settings
from tandem_ros.graph import Argument, Graph, LaunchFile, Node, Value, launch_file

if TYPE_CHECKING:
    from launch.events.process import ProcessExited
    from launch_ros.parameter_descriptions import ParameterValue

    from launch import Action, LaunchContext, LaunchDescription  # type: ignore[attr-defined]


def describe(name: str) -> "LaunchDescription":
    """The launch description of the launch file called ``name``: its arguments, then its nodes."""
    from launch.actions import OpaqueFunction

    from launch import LaunchDescription  # type: ignore[attr-defined]

    file = launch_file(name)
    declared = [_declare(argument) for argument in file.arguments]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[file])])


def _declare(argument: Argument) -> "Action":
    from launch.actions import DeclareLaunchArgument

    return DeclareLaunchArgument(
        argument.name,
        default_value=argument.default,
        description=argument.help,
        choices=list(argument.choices) or None,
    )


def _start(context: "LaunchContext", file: LaunchFile) -> "list[Action]":
    given = context.launch_configurations
    graph = file.graph({argument.name: given[argument.name] for argument in file.arguments})
    return [*_environment(context, graph), *(_node(node) for node in graph.nodes)]


def _environment(context: "LaunchContext", graph: Graph) -> "list[Action]":
    from launch.actions import SetEnvironmentVariable

    settings = ros_settings(context.environment)
    if graph.domain is not None:
        settings["ROS_DOMAIN_ID"] = str(graph.domain)
    return [SetEnvironmentVariable(name, value) for name, value in settings.items()]


def _node(node: Node) -> "Action":
    """A node that runs in this Python, so that it is found with and without an ament index."""
    from launch_ros.actions import LifecycleNode
    from launch_ros.actions import Node as RosNode

    kind = LifecycleNode if node.lifecycle else RosNode
    return kind(
        executable=sys.executable,
        arguments=["-m", node.module],
        exec_name=node.name,
        name=node.name,
        namespace=node.namespace.removeprefix("/"),  # relative: a surrounding PushRosNamespace holds
        parameters=[{name: _typed(value) for name, value in node.parameters.items()}],
        remappings=list(node.remappings),
        output="screen",
        on_exit=partial(_on_exit, node),
    )


def _typed(value: Value) -> "Value | ParameterValue":
    """Texts keep their type: launch would read JSON in them as YAML."""
    from launch_ros.parameter_descriptions import ParameterValue

    return ParameterValue(value, value_type=str) if isinstance(value, str) else value


def _on_exit(node: Node, event: "ProcessExited", context: "LaunchContext") -> "list[Action]":
    """Ends the launch with the node that completes it; raises, and so fails the launch, if a required one dies."""
    from launch.actions import Shutdown

    if context.is_shutdown:
        return []
    if node.ends and event.returncode == 0:
        return [Shutdown(reason=f"{node.name} has finished")]
    if node.required:
        raise TandemError(f"node '{node.name}' ended with status {event.returncode}")
    return []
