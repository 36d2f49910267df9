"""Start a ROS 2 graph without a ROS installation: tandem launch blockfind policy:=<dir>

Takes the name of a launch file and name:=value arguments, as `ros2 launch` does, and runs until the
episodes are done or Ctrl-C. --show-args lists the arguments with their defaults.
"""

import os
import sys
from typing import TYPE_CHECKING

from tandem_datasets.errors import TandemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem_ros.graph import Graph, LaunchFile

_SHOW = ("-s", "--show-args", "--show-arguments")
_HELP = ("-h", "--help")


def main(argv: list[str]) -> int:
    """Runs a launch file; returns 0 when its work is done."""
    from tandem_ros import graph

    names = [text for text in argv if not text.startswith("-") and ":=" not in text]
    if any(text in _HELP for text in argv) or not argv:
        print(_usage(graph.LAUNCH_FILES))
        return 0
    for text in argv:
        if text.startswith("-") and text not in _SHOW:
            raise TandemError(f"tandem launch: unknown option '{text}' (allowed: --show-args, --help)")
    if len(names) != 1:
        came = ", ".join(f"'{name}'" for name in names) or "none"
        raise TandemError(f"tandem launch: one launch file, got {came} (arguments are given as name:=value)")
    file = graph.launch_file(names[0])
    if any(text in _SHOW for text in argv):
        print(_show(file))
        return 0
    given = {name: value for name, sign, value in (text.partition(":=") for text in argv) if sign}
    return _run(file.name, file.graph(given))


def _run(name: str, graph: "Graph") -> int:
    from tandem_ros.domain import claim
    from tandem_ros.supervisor import Supervisor

    with claim(_domain(graph), graph.namespace) as domain_id:
        print(f"{name}: {', '.join(node.name for node in graph.nodes)}; ROS_DOMAIN_ID={domain_id}", file=sys.stderr)
        with Supervisor(graph, domain_id=domain_id, echo=sys.stderr) as supervisor:
            supervisor.wait()
    return 0


def _domain(graph: "Graph") -> int | None:
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if graph.domain is not None or not text:
        return graph.domain
    if not text.isdecimal():
        raise TandemError(f"ROS_DOMAIN_ID: '{text}' (allowed: 0..232)")
    return int(text)


def _usage(files: "Mapping[str, LaunchFile]") -> str:
    lines = [f"  {name:<12} {file.summary}" for name, file in sorted(files.items())]
    return "\n".join(["usage: tandem launch FILE [name:=value ...] [--show-args]", "", __doc__.strip(), "", *lines])


def _show(file: "LaunchFile") -> str:
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for argument in file.arguments:
        choices = f". Valid choices are: {list(argument.choices)}" if argument.choices else ""
        lines += ["", f"    '{argument.name}':", f"        {argument.help}{choices}"]
        if argument.default is not None:
            lines.append(f"        (default: '{argument.default}')")
    return "\n".join(lines)
