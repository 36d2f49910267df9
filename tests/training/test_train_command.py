import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tandem_policies
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_training.cli import main
from tandem_training.config import compose
from tandem_training.engine.folder import locked
from tandem_training.engine.report import read_history
from tandem_training.train import run


@pytest.fixture(scope="module")
def tiny(tiny):
    return [*tiny, "trainer.max_steps=10", "trainer.checkpoint_every=3"]


@pytest.fixture(scope="module")
def store(tmp_path_factory, record):
    return record(tmp_path_factory.mktemp("store") / "a.zarr", ["eee|eeee", "eeNNnee", "eeee", "eeeee"] * 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store, tiny):
    """A finished tiny training: its folder, and the arguments that it had."""
    out = tmp_path_factory.mktemp("trained") / "out"
    arguments = [f"data={store}", *tiny]
    run(compose("train", [*arguments, f"out={out}"]))
    return out, arguments


def test_blockfind_end_to_end(tmp_path, capsys):
    """Expert demonstrations in, a policy directory out that answers an observation of the environment."""
    from tandem_sim.rollout import run as roll_out

    env = EnvSpec("tandem/BlockFind-v0", {})
    data, out = tmp_path / "demos.zarr", tmp_path / "out"
    roll_out(RolloutRequest(env=env, policy=EXPERT, episodes=20, seed=0, record=data), lambda result: None)
    capsys.readouterr()
    assert main(["train", f"data={data}", f"out={out}", "preset=debug", "device=cpu", "trainer.threads=1"]) == 0
    assert f"policy: {out / 'best'}" in capsys.readouterr().out

    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["stage"], metrics["steps"], metrics["device"]) == ("policy", 30, "cpu")
    assert {"loss", "action_l2", "direction_accuracy", "direction_cosine"} == metrics["val"].keys()
    assert metrics["seconds"] > 0
    assert metrics["first_step_s"] > 0
    assert metrics["frames"] == Store(data).n_frames
    assert {path.name for path in out.iterdir()} >= {"best", "final", "last", "config.yaml", "tensorboard"}
    assert list((out / "tensorboard").glob("events*"))
    losses = [record["loss"] for record in read_history(out) if "loss" in record]
    assert losses[-1] < losses[0]

    policy = tandem_policies.load(out / "best", "cpu")
    frame = Store(data).frames(0)[0]
    assert policy.infer([[frame.observation]], [(0, 0)]).shape == (1, policy.chunk_size, 2)
    assert policy.embodiment == Store(data).embodiment


def test_kill_9_and_resume_equal_an_uninterrupted_run(tmp_path, trained):
    straight, arguments = trained
    out = tmp_path / "out"
    patience = "trainer.checkpoint_every=1"  # may differ from run to run
    command = [sys.executable, "-m", "tandem_training.cli", "train", *arguments, f"out={out}", patience]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not (out / "last").exists() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        _, errors = process.communicate()
    assert (out / "last").exists(), errors
    result = run(compose("train", [*arguments, f"out={out}", "resume=true"]))
    for name in ("best", "final"):
        ours, theirs = (load_file(folder / name / "model.safetensors") for folder in (out, straight))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items()), name
    assert read_history(out, clock=False) == read_history(straight, clock=False)
    wanted = json.loads((straight / "metrics.json").read_text())
    assert (result.metrics["val"], result.metrics["best"]) == (wanted["val"], wanted["best"])


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, trained, capsys):
    _, arguments = trained
    out = tmp_path / "out"

    def interrupt():
        while not (out / "last").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main(["train", *arguments, f"out={out}", "trainer.max_steps=100000"]) == 130
    thread.join()
    captured = capsys.readouterr()
    assert f"tandem train --resume out={out} goes on from there" in captured.out
    assert "Traceback" not in captured.err
    progress = json.loads((out / "last" / "progress.json").read_text())
    assert progress["step"] >= 3


def test_what_training_imports(tmp_path):
    """Each of these costs seconds before the first step; torch._dynamo and sympy came with torch's own optimizer."""
    code = """if True:
        import sys
        from pathlib import Path
        import tandem_training.stages.policy
        import tiny_stage
        tiny_stage.train(Path(sys.argv[1]), max_steps=4)
        heavy = ("lerobot", "torchvision", "transformers", "datasets", "tensorflow", "torch._dynamo", "sympy", "pandas")
        sys.exit(", ".join(name for name in heavy if name in sys.modules) or None)
    """
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", code, tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


DIFFERENT = ["seed=1", "trainer.batch_size=4", "trainer.max_steps=12", "policy.head_dim=32", "stage.val_fraction=0.5"]


@pytest.mark.parametrize("change", DIFFERENT)
def test_resume_with_another_configuration_names_the_key(trained, change):
    out, arguments = trained
    kept = [argument for argument in arguments if argument.split("=")[0] != change.split("=")[0]]
    with pytest.raises(TandemError) as error:
        run(compose("train", [*kept, change, f"out={out}", "resume=true"]))
    key, value = change.split("=")
    assert f"resume: {key} is {value}, but {out} was begun with" in str(error.value)


def test_resume_with_other_data_is_refused(tmp_path, record, small_embodiment, tiny):
    data, out = record(tmp_path / "a", ["eee"] * 3), tmp_path / "out"
    run(compose("train", [f"data={data}", f"out={out}", *tiny]))
    frame = Store(data).frames(0)[0]
    with Recorder(data, small_embodiment) as recorder:
        recorder.begin(EpisodeInfo(seed=9, instruction="find red", begin_ns=10**12))
        moved = type(frame.observation)(frame.observation.images, frame.observation.state, "find red", 10**12)
        recorder.add(type(frame)(moved, frame.action, frame.source))
        recorder.commit()
    with pytest.raises(TandemError, match="content of data has changed"):
        run(compose("train", [f"data={data}", f"out={out}", "resume=true", *tiny]))


def test_resume_of_a_finished_training_keeps_its_policy(trained):
    out, arguments = trained
    before = load_file(out / "final" / "model.safetensors")
    metrics = run(compose("train", [*arguments, f"out={out}", "resume=true"])).metrics
    after = load_file(out / "final" / "model.safetensors")
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert metrics["steps"] == 10


def test_resume_of_nothing_begins(tmp_path, store, capsys, tiny):
    run(compose("train", [f"data={store}", f"out={tmp_path / 'new'}", "resume=true", *tiny]))
    assert "begins at step 0" in capsys.readouterr().out


def test_out_that_is_not_empty(trained, refused):
    out, arguments = trained
    message = refused("train", *arguments, f"out={out}")
    assert "is not empty (allowed: a new or empty folder, or resume=true)" in message


def test_out_that_is_no_training(tmp_path, store, refused, tiny):
    (tmp_path / "notes.txt").touch()
    message = refused("train", f"data={store}", f"out={tmp_path}", "resume=true", *tiny)
    assert "is no training to resume" in message
    assert sorted(os.listdir(tmp_path)) == [".lock", "notes.txt"]


def test_out_in_use(tmp_path, store, refused, tiny):
    with locked(tmp_path / "out", "x"):
        message = refused("train", f"data={store}", f"out={tmp_path / 'out'}", *tiny)
    assert f"in use by process {os.getpid()}" in message


BAD = [
    (["policy.chunk_size=8"], "policy.chunk_size is 8 (allowed: 1..5, the longest stretch of targets in the data)"),
    (["policy.patch=5"], "(allowed: multiples of the patch, 5)"),
    (["policy.dim=17"], "dim is 17"),
    (["stage.val_fraction=1.5"], "stage.val_fraction is 1.5"),
    (["stage.val_frames=0"], "stage.val_frames is 0"),
    (["trainer.lr=-1"], "trainer.lr is -1"),
    (["trainer.max_steps=0"], "trainer.max_steps is 0"),
    (["seed=-1"], "seed is -1"),
    (["device=tpu"], "device: unknown name 'tpu'"),
    (["stage.name=polcy"], "stage: unknown name 'polcy'; did you mean 'policy'?"),
    (["data=nowhere.zarr"], "nowhere.zarr"),
    (["data=[]"], "no store"),
    (["data=3"], "data is 3"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[pair[0][0] for pair in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, store, refused, changes, message, tiny):
    keys = {change.split("=")[0] for change in changes}
    kept = [argument for argument in [f"data={store}", *tiny] if argument.split("=")[0] not in keys]
    assert message in refused("train", *kept, *changes, f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_device_that_is_not_there(tmp_path, store, refused, tiny):
    absent = "mps" if torch.cuda.is_available() else "cuda"  # no machine has both
    arguments = [f"data={store}", f"out={tmp_path / 'out'}", *tiny, f"device={absent}"]
    assert f"device={absent} is not on this machine (allowed here: auto, cpu" in refused("train", *arguments)


def test_notes_on_the_data(tmp_path, record, capsys, tiny):
    data = record(tmp_path / "a", ["nnn", "NNNN"])
    run(compose("train", [f"data={data}", f"out={tmp_path / 'out'}", *tiny]))
    out = capsys.readouterr().out
    assert "3 frames have no target" in out
    assert "validated on what it learns from" in out


def test_default_out_and_two_stores(tmp_path, monkeypatch, record, tiny):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "a", ["eee"] * 2)
    record(tmp_path / "b", ["NNN"] * 2)
    result = run(compose("train", ["data=[a,b]", *tiny]))
    assert result.out.parent.as_posix() == "outputs/train"
    assert result.out.name.startswith("tinyvla-")
    assert (result.metrics["frames"], result.metrics["frames_labelled"]) == (12, 6)
    assert np.isfinite(result.metrics["val"]["loss"])
