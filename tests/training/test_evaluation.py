import json
import subprocess
import sys

import pytest
from PIL import Image

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_training.cli import main
from tandem_training.evaluation import evaluate

BLOCKFIND = "tandem/BlockFind-v0"


def request(**changes) -> RolloutRequest:
    return RolloutRequest(EnvSpec(BLOCKFIND, changes.pop("options", {})), EXPERT, 6, 500_000, **changes)


def test_an_evaluation_writes_figures_films_and_a_plot(tmp_path):
    # a horizon of 4 steps is too short for some of the boards: successes and failures both
    found = evaluate(request(options={"horizon": 4}), "inprocess", tmp_path, films=2)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["episodes"] == 6
    assert metrics["successes"] == sum(found.successes)
    assert 0 < metrics["successes"] < 6
    assert sum(metrics["failures"].values()) == 6 - metrics["successes"]
    assert metrics["seeds"] == [500_000, 500_005]
    low, high = metrics["success_ci95"]
    assert low < metrics["success_rate"] < high
    for name in metrics["films"]:
        with Image.open(tmp_path / name) as film:
            assert film.n_frames <= 4
            assert film.size[0] >= 256
    assert {name.split("/")[1].split("_seed")[0] for name in metrics["films"]} > {"success"}
    with Image.open(tmp_path / "episodes.png") as plot:
        assert len(plot.convert("L").getcolors(maxcolors=256)) > 10


def test_nothing_is_recorded_unless_asked_for(tmp_path):
    out = tmp_path / "without"
    out.mkdir()
    evaluate(request(), "inprocess", out, films=1)
    assert {path.name for path in out.iterdir()} == {"metrics.json", "films", "episodes.png"}
    evaluate(request(record=tmp_path / "kept.zarr"), "inprocess")
    assert Store(tmp_path / "kept.zarr").n_episodes == 6


def test_the_command_reports_and_refuses(tmp_path, capsys, refused):
    assert main(["eval", "policy=expert", "episodes=3", f"out={tmp_path / 'new'}", "record=true", "films=1"]) == 0
    assert "100.0%" in capsys.readouterr().out
    assert Store(tmp_path / "new" / "episodes.zarr").n_episodes == 3
    for argument, said in [
        (f"out={tmp_path / 'new'}", "is not empty"),
        ("backend=rso2", "did you mean 'ros2'"),
        ("env=blokfind", "did you mean 'blockfind'"),
        ("episodes=0", "episodes=0 (allowed: a whole number from 1)"),
        ("backend=7", "backend: unknown name '7'"),
        ("out=true", "out is True (allowed: a path)"),
        (f"policy={tmp_path / 'nowhere'}", "holds no model.safetensors"),
    ]:
        assert said in refused("eval", "policy=expert", argument)


def test_episodes_can_be_added_to_a_store_elsewhere(tmp_path, capsys):
    """`record=<path>` was refused, since the default was a bool."""
    store = tmp_path / "kept.zarr"
    for number in (1, 2):
        arguments = [f"record={store}", f"out={tmp_path / str(number)}", "films=0", "episodes=2"]
        assert main(["eval", "policy=expert", *arguments]) == 0
        assert Store(store).n_episodes == 2 * number
    assert main(["eval", "policy=expert", "record=[a]", f"out={tmp_path / '3'}"]) == 2
    assert "record is" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path):
    """Half a plot stayed, and a traceback was all that was said."""
    code = (
        "import resource, signal, sys; from tandem_training.cli import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "eval", "policy=expert", "episodes=2", "films=0", f"out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: tandem eval: File too large\n")
    assert not (tmp_path / "out").exists()


def test_a_failed_evaluation_leaves_no_folder(tmp_path, capsys):
    out = tmp_path / "failed"
    assert main(["eval", "policy=expert", "episodes=2", "env.options.wordings=odd", f"out={out}"]) == 2
    assert "wordings" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_backend_is_named():
    with pytest.raises(TandemError, match="did you mean 'inprocess'"):
        evaluate(request(), "inproces")
