import json
import subprocess
import sys
from pathlib import Path

import pytest

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, EnvSpec
from tandem_ros.graph import LAUNCH_FILES, Argument, Graph, Node, launch_file, normal_namespace, rollout
from tandem_sim.registry import embodiment

BLOCKFIND = LAUNCH_FILES["blockfind"]
SPEC = EnvSpec("tandem/BlockFind-v0")


def named(graph: Graph) -> dict[str, Node]:
    return {node.name: node for node in graph.nodes}


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_policy_gets_the_whole_graph(policy_folder: Path, tmp_path: Path) -> None:
    graph = BLOCKFIND.graph(
        {"policy": str(policy_folder), "record": str(tmp_path / "r.zarr"), "episodes": "7", "seed": "5", "threads": "2"}
    )
    nodes = named(graph)
    assert list(nodes) == ["simulation", "policy", "recorder", "episodes"]
    assert [node.module for node in graph.nodes] == [f"tandem_ros.nodes.{name}" for name in nodes]
    assert nodes["policy"].parameters["path"] == str(policy_folder)
    assert nodes["policy"].parameters["threads"] == 2
    assert nodes["policy"].lifecycle
    assert nodes["recorder"].parameters["store"] == str(tmp_path / "r.zarr")
    assert (nodes["episodes"].parameters["episodes"], nodes["episodes"].parameters["seed"]) == (7, 5)
    assert [node.name for node in graph.nodes if node.ends] == ["episodes"]


def test_the_expert_needs_no_policy_node_and_no_record_no_recorder() -> None:
    nodes = named(BLOCKFIND.graph({"policy": EXPERT}))
    assert list(nodes) == ["simulation", "episodes"]
    assert nodes["simulation"].parameters["expert"] is True
    assert nodes["episodes"].parameters["record"] is False


def test_policy_and_recorder_hear_of_the_environments_own_embodiment(policy_folder: Path, tmp_path: Path) -> None:
    nodes = named(rollout(SPEC, str(policy_folder), record=tmp_path / "r.zarr"))
    for name in ("policy", "recorder"):
        text = nodes[name].parameters["embodiment"]
        assert isinstance(text, str)
        assert Embodiment.from_dict(json.loads(text)) == embodiment(SPEC)


@pytest.mark.parametrize(("text", "normal"), [("", ""), ("/", ""), ("left", "/left"), ("/a/b/", "/a/b")])
def test_a_namespace_holds_every_node(text: str, normal: str) -> None:
    graph = BLOCKFIND.graph({"policy": EXPERT, "namespace": text})
    assert graph.namespace == normal
    assert {node.namespace for node in graph.nodes} == {normal}
    assert f"__ns:={normal or '/'}" in graph.nodes[0].ros_arguments(None)


@pytest.mark.parametrize("text", ["a b", "1a", "a//b", "a-b"])
def test_a_bad_namespace_is_refused(text: str) -> None:
    with pytest.raises(TandemError, match="namespace"):
        normal_namespace(text)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "missing policy:="),
        ({"policy": ""}, "missing policy:="),
        ({"policy": EXPERT, "episode": "3"}, "did you mean 'episodes'"),
        ({"policy": "nowhere"}, "'nowhere' holds no config.json"),
        ({"policy": EXPERT, "mode": "lockstp"}, "did you mean 'lockstep'"),
        ({"policy": EXPERT, "label": "yes"}, "allowed: false, true"),
        ({"policy": EXPERT, "episodes": "0"}, "episodes '0'"),
        ({"policy": EXPERT, "seed": "x"}, "seed 'x'"),
        ({"policy": EXPERT, "domain": "233"}, "allowed: 0..232"),
        ({"policy": EXPERT, "options": "{"}, "no JSON"),
        ({"policy": EXPERT, "options": "[]"}, "a JSON object"),
        ({"policy": EXPERT, "options": '{"wheels": 4}'}, "wheels"),
    ],
)
def test_bad_arguments_are_one_line(given: dict[str, str], words: str) -> None:
    with pytest.raises(TandemError) as error:
        BLOCKFIND.graph(given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_launch_files_are_found_by_name_and_by_file_name() -> None:
    assert launch_file("blockfind") is launch_file("launch/blockfind.launch.py") is BLOCKFIND
    with pytest.raises(TandemError, match="did you mean 'blockfind'"):
        launch_file("blockfnd")


def test_every_launch_file_has_its_file_with_one_call_in_it() -> None:
    """`ros2 launch` and `tandem launch` start the same: the file may do nothing but ask for the shared description."""
    folder = Path(__file__).parents[2] / "launch"
    assert {path.name for path in folder.glob("*.py")} == {f"{name}.launch.py" for name in LAUNCH_FILES}
    for name in LAUNCH_FILES:
        source = (folder / f"{name}.launch.py").read_text()
        lines = [line.strip() for line in source.split('"""', 2)[2].splitlines() if line.strip()]
        assert lines == [
            "from tandem_ros.launch_actions import describe",
            "def generate_launch_description():",
            f'return describe("{name}")',
        ]


def test_every_argument_is_explained_and_its_default_is_allowed() -> None:
    def fine(argument: Argument) -> bool:
        return bool(argument.help) and (not argument.choices or argument.default in argument.choices)

    for file in LAUNCH_FILES.values():
        assert all(fine(argument) for argument in file.arguments)
        assert file.graph({"policy": EXPERT}) == file.graph(
            {"policy": EXPERT} | {item.name: item.default for item in file.arguments if item.default is not None}
        )


def test_parameters_reach_a_ros_node_with_value_and_type(tmp_path: Path) -> None:
    """Through the files and arguments that the supervisor passes, read by rclpy itself."""
    parameters = {
        "text": 'a "quoted" ü {"b": [1, 2]}',
        "none": "",
        "digits": "12",
        "count": 3,
        "rate": 2.0,
        "yes": True,
    }
    node = Node("none", "probe", "/left", parameters, (("chunk", "other/chunk"),))
    file = tmp_path / "p.yaml"
    file.write_text(node.parameter_text(), encoding="utf-8")
    script = (
        "import sys, json, rclpy\n"
        "rclpy.init(args=sys.argv[1:])\n"
        "node = rclpy.create_node('x', automatically_declare_parameters_from_overrides=True)\n"
        f"values = {{name: node.get_parameter(name).value for name in {list(parameters)}}}\n"
        "print(json.dumps([node.get_fully_qualified_name(), node.resolve_topic_name('chunk'), values]))\n"
    )
    command = [sys.executable, "-c", script, *node.ros_arguments(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    name, topic, values = json.loads(done.stdout)
    assert (name, topic) == ("/left/probe", "/left/other/chunk")
    assert values == parameters
    assert {key: type(value) for key, value in values.items()} == {key: type(v) for key, v in parameters.items()}


def test_describing_a_graph_needs_no_ros_and_no_torch() -> None:
    script = (
        "import sys, tandem_ros.graph, tandem_ros.supervisor, tandem_ros.commands.launch\n"
        "print('rclpy' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["False", "False"]
