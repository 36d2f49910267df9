import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem_datasets.errors import TandemError
from tandem_ros.graph import Graph, Node
from tandem_ros.supervisor import Supervisor

MakeNode = Callable[..., Node]

STAYS = """
    import time
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""
STUBBORN = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("started", child.pid, flush=True)
    time.sleep(60)
"""
SUPERVISES = """
    import sys
    from tandem_ros.graph import Graph, Node
    from tandem_ros.supervisor import Supervisor
    nodes = tuple(Node(f"fake_{name}", name) for name in sys.argv[1:])
    with Supervisor(Graph(nodes), domain_id=1) as supervisor:
        print(*supervisor.pids.values(), flush=True)
        supervisor.wait()
"""


@pytest.fixture
def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeNode:
    """Writes a script where children find it as a module, and gives the node that runs it."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def make(name: str, script: str, **fields: object) -> Node:
        (folder / f"fake_{name}.py").write_text(textwrap.dedent(script))
        return Node(f"fake_{name}", name, **fields)  # type: ignore[arg-type]

    return make


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_within(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def heard(text: io.StringIO, words: str) -> bool:
    end = time.monotonic() + 10
    while words not in text.getvalue():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def supervising_process(*names: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with a supervisor in it, and the pids of the nodes once they are ready."""
    command = [sys.executable, "-c", textwrap.dedent(SUPERVISES), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == len(names)
    return process, pids


def test_the_graph_is_done_when_the_node_that_ends_it_leaves_cleanly(make_node: MakeNode) -> None:
    echo = io.StringIO()
    nodes = (make_node("stays", STAYS), make_node("works", "print('worked')", ends=True))
    with Supervisor(Graph(nodes), domain_id=1, echo=echo) as supervisor:
        pids = list(supervisor.pids.values())
        assert supervisor.wait(20)
    assert "[works] worked\n" in echo.getvalue()
    assert not any(alive(pid) for pid in pids)


def test_a_required_node_that_dies_stops_all_and_is_named(make_node: MakeNode) -> None:
    script = "import sys; print('error: policy: no such folder', file=sys.stderr); print('bye'); sys.exit(2)"
    with Supervisor(Graph((make_node("stays", STAYS), make_node("dies", script))), domain_id=1) as supervisor:
        pids = list(supervisor.pids.values())
        with pytest.raises(TandemError) as error:
            supervisor.wait(20)
        assert not any(alive(pid) for pid in pids)
    assert str(error.value) == "node 'dies' ended with status 2: policy: no such folder"


def test_a_traceback_and_a_signal_are_told(make_node: MakeNode) -> None:
    with (
        Supervisor(Graph((make_node("raises", "raise ValueError('wheel off')"),)), domain_id=1) as supervisor,
        pytest.raises(TandemError, match="'raises' ended with status 1: ValueError: wheel off"),
    ):
        supervisor.wait(20)
    with Supervisor(Graph((make_node("shot", STAYS),)), domain_id=1) as supervisor:
        os.kill(supervisor.pids["shot"], signal.SIGKILL)
        with pytest.raises(TandemError, match="'shot' was killed by SIGKILL"):
            supervisor.wait(20)


def test_a_node_that_is_not_required_may_leave(make_node: MakeNode) -> None:
    nodes = (make_node("stays", STAYS), make_node("viewer", "import sys; sys.exit(1)", required=False))
    with Supervisor(Graph(nodes), domain_id=1) as supervisor:
        assert gone_within([supervisor.pids["viewer"]], 10)
        assert supervisor.poll()


def test_a_node_that_will_not_stop_is_killed_with_its_children(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem_ros.supervisor._INTERRUPT_S", 0.5)
    monkeypatch.setattr("tandem_ros.supervisor._TERMINATE_S", 0.3)
    echo = io.StringIO()
    with Supervisor(Graph((make_node("stubborn", STUBBORN),)), domain_id=1, echo=echo) as supervisor:
        assert heard(echo, "started")
        pids = [supervisor.pids["stubborn"], int(echo.getvalue().split()[-1])]
        began = time.monotonic()
    assert 0.8 <= time.monotonic() - began < 3
    assert gone_within(pids, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_supervisor_leaves_no_node(make_node: MakeNode, number: signal.Signals) -> None:
    make_node("one", STAYS)
    make_node("two", STAYS)
    process, pids = supervising_process("one", "two")
    process.send_signal(number)
    assert process.wait(10) != 0
    assert not any(alive(pid) for pid in pids)


def test_a_killed_supervisor_leaves_no_node_and_no_folder(
    make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 lets nothing be tidied up: the nodes notice by themselves, also one that ignores Ctrl-C."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    make_node("one", STAYS)
    make_node("deaf", "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)")
    process, pids = supervising_process("one", "deaf")
    assert list(temporary.glob("tandem-graph-*"))
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert gone_within(pids, 2)
    assert not list(temporary.glob("tandem-graph-*"))


def test_nodes_get_their_domain_and_a_private_parameter_file(make_node: MakeNode) -> None:
    script = """
        import os, pathlib, sys
        file = pathlib.Path(sys.argv[sys.argv.index("--params-file") + 1])
        mode = oct(file.parent.stat().st_mode)[-3:]
        print(os.environ["ROS_DOMAIN_ID"], mode, file.read_text(), sys.stdin.read() == "")
        print(file)
    """
    echo = io.StringIO()
    node = make_node("looks", script, parameters={"seed": 7}, ends=True)
    with Supervisor(Graph((node,)), domain_id=42, echo=echo) as supervisor:
        supervisor.wait(20)
    lines = [line.removeprefix("[looks] ") for line in echo.getvalue().splitlines()]
    assert lines[0] == '42 700 {"/**": {"ros__parameters": {"seed": 7}}} True'
    assert not Path(lines[1]).parent.exists()


def test_a_graph_that_cannot_start_leaves_nothing(make_node: MakeNode) -> None:
    began = []

    class Watched(Supervisor):
        def stop(self) -> None:
            began.extend(self.pids.values())
            super().stop()

    bad = Node("fake_bad", "bad", parameters={"rate": float("nan")})
    with pytest.raises(ValueError, match="JSON"), Watched(Graph((make_node("stays", STAYS), bad)), domain_id=1):
        pass
    assert len(began) == 1
    assert not alive(began[0])
