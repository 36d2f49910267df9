"""`tandem train --multirun`."""

import csv
import json

import pytest

from tandem_datasets.errors import TandemError
from tandem_training.cli import main
from tandem_training.config import expand


@pytest.fixture(scope="module")
def tiny(tiny):
    return [*tiny, "trainer.max_steps=3"]


@pytest.fixture(scope="module")
def store(tmp_path_factory, record):
    return record(tmp_path_factory.mktemp("store") / "a.zarr", ["eeee", "eeNNnee", "eeee"] * 2)


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["a=1,2", "b=x"], [["a=1", "b=x"], ["a=2", "b=x"]]),
        (["a=1e-3,1", "b=0,1"], [["a=0.001", "b=0"], ["a=0.001", "b=1"], ["a=1", "b=0"], ["a=1", "b=1"]]),
        (["a=range(0,3)"], [["a=0"], ["a=1"], ["a=2"]]),
        (["a=choice(x,y)", "d='[1,2]'"], [["a=x", "d='[1,2]'"], ["a=y", "d='[1,2]'"]]),
        (["a=[1,2]"], [["a=[1,2]"]]),
        (["a=[1],[2,3]"], [["a=[1]"], ["a=[2,3]"]]),
    ],
)
def test_the_grid(overrides, jobs):
    assert expand("train", overrides) == jobs


@pytest.mark.parametrize("text", ["a=interval(0,1)", "a=1,,2", "nothing"])
def test_what_is_no_list_of_values(text):
    with pytest.raises(TandemError, match="tandem train: ") as error:
        expand("train", [text])
    assert "\n" not in str(error.value)


def test_jobs_run_and_a_broken_one_loses_no_other(tmp_path, store, monkeypatch, capsys, tiny):
    monkeypatch.chdir(tmp_path)
    arguments = [f"data={store}", *tiny, "--multirun", "stage.val_frames=0,8", "seed=0,1"]
    assert main(["train", *arguments]) == 1
    (root,) = (tmp_path / "outputs/multirun").iterdir()
    jobs = json.loads((root / "sweep.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["failed", "failed", "done", "done"]
    assert [job["changed"] for job in jobs[1:3]] == [
        {"stage.val_frames": "0", "seed": "1"},
        {"stage.val_frames": "8", "seed": "0"},
    ]
    assert "stage.val_frames is 0" in jobs[0]["error"]
    assert jobs[2]["figures"]["steps"] == 3
    assert (root / "2" / "best" / "model.safetensors").is_file()
    rows = list(csv.DictReader((root / "sweep.csv").open()))
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"]
    assert float(rows[3]["action_l2"]) == jobs[3]["figures"]["action_l2"]
    told = capsys.readouterr().out
    assert "job 4/4: stage.val_frames=8 seed=1" in told
    assert f"{root.relative_to(tmp_path)}/sweep.csv" in told


def test_a_wrong_key_is_told_before_the_first_job(tmp_path, store, capsys, tiny):
    arguments = [f"data={store}", *tiny, "-m", "trainer.lr=0.1,-1", f"out={tmp_path / 'out'}"]
    assert main(["train", *arguments]) == 2
    assert "trainer.lr is -1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sweep_wants_an_empty_folder_and_no_resume(tmp_path, store, capsys, tiny):
    (tmp_path / "x").touch()
    assert main(["train", f"data={store}", *tiny, "-m", "seed=0,1", f"out={tmp_path}"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["train", "-m", "--resume"]) == 2
    assert "--multirun with --resume" in capsys.readouterr().err
