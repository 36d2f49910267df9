import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_ros.commands import launch
from tandem_ros.domain import claim
from tandem_ros.graph import LAUNCH_FILES

TANDEM = [sys.executable, "-m", "tandem_training.cli"]


def test_show_args_prints_every_argument_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["blockfind", "--show-args"]) == 0
    shown = capsys.readouterr().out
    for argument in LAUNCH_FILES["blockfind"].arguments:
        default = "" if argument.default is None else f"\n        (default: '{argument.default}')"
        choices = f". Valid choices are: {list(argument.choices)}" if argument.choices else ""
        assert f"\n    '{argument.name}':\n        {argument.help}{choices}{default}\n" in shown


@pytest.mark.parametrize("argv", [[], ["--help"], ["blockfind", "-h"]])
def test_help_names_the_launch_files(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(argv) == 0
    assert "usage: tandem launch FILE" in (shown := capsys.readouterr().out)
    assert all(name in shown for name in LAUNCH_FILES)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["blockfnd"], "did you mean 'blockfind'"),
        (["blockfind"], "missing policy:="),
        (["policy:=expert"], "one launch file, got none"),
        (["blockfind", "policy=expert"], "'blockfind', 'policy=expert'"),
        (["blockfind", "--verbose"], "unknown option '--verbose'"),
        (["blockfind", "policy:=expert", "sed:=1"], "did you mean 'seed'"),
    ],
)
def test_a_bad_command_line_is_one_clear_line(argv: list[str], words: str) -> None:
    with pytest.raises(TandemError) as error:
        launch.main(argv)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_environments_domain_is_taken_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    file = LAUNCH_FILES["blockfind"]
    monkeypatch.setenv("ROS_DOMAIN_ID", "12")
    assert launch._domain(file.graph({"policy": "expert"})) == 12
    assert launch._domain(file.graph({"policy": "expert", "domain": "13"})) == 13
    monkeypatch.delenv("ROS_DOMAIN_ID")
    assert launch._domain(file.graph({"policy": "expert"})) is None
    monkeypatch.setenv("ROS_DOMAIN_ID", "home")
    with pytest.raises(TandemError, match="'home'"):
        launch._domain(file.graph({"policy": "expert"}))


def test_an_occupied_domain_is_refused_before_anything_starts() -> None:
    with claim() as taken:
        command = [*TANDEM, "launch", "blockfind", "policy:=expert", f"domain:={taken}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: ROS domain {taken}: taken by another Tandem graph")
    assert done.stderr.count("\n") == 1


def test_the_expert_rolls_out_and_is_recorded_from_the_command_line(tmp_path: Path) -> None:
    record = tmp_path / "runs.zarr"
    command = [*TANDEM, "launch", "blockfind", "policy:=expert", "episodes:=3", "seed:=7", f"record:={record}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    store = Store(record)
    infos = [store.info(index) for index in range(store.n_episodes)]
    assert [info.seed for info in infos] == [7, 8, 9]
    assert {info.provenance["policy"] for info in infos} == {"expert"}
    for index, info in enumerate(infos):
        assert (
            f"[episodes] episode {index} (seed {info.seed}): success, {len(store.frames(index))} steps" in done.stderr
        )


def test_ctrl_c_ends_the_graph_with_its_own_status_and_leaves_nothing() -> None:
    command = [*TANDEM, "launch", "blockfind", "policy:=expert", "episodes:=100000", "mode:=realtime"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[episodes] "):
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(10) == 130
    assert "Traceback" not in rest
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
