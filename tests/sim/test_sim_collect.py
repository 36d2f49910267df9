"""The command `tandem collect`, through its main and as a process."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_training.commands.collect import main


def test_demonstrations_are_recorded_added_to_and_never_overwritten(tmp_path, capsys):
    out = tmp_path / "demos"
    assert main(["episodes=6", f"out={out}", "seed=10"]) == 0
    said = capsys.readouterr().out
    store = Store(out)
    assert store.n_episodes == 6
    assert f"6 episodes: {store.n_frames} frames, 100.0% success" in said
    assert str(out) in said
    assert store.load("has_label").all()
    assert [info.seed for info in store.infos()] == list(range(10, 16))
    with pytest.raises(TandemError, match=f"out={out} exists"):
        main(["episodes=1", f"out={out}"])
    assert main(["episodes=2", f"out={out}", "append=true", "noise=0.2", "env.options.wordings=varied"]) == 0
    store.refresh()
    assert store.n_episodes == 8
    assert (np.diff(store.load("stamp")) > 0).all()
    assert (store.load("action_requested")[store.episode_ends[5] :] != store.load("action_label")[-1]).any()


def test_a_store_without_episodes_is_no_obstacle(tmp_path, capsys):
    """A command that broke before its first episode left one, and could not be repeated."""
    out = tmp_path / "demos"
    with pytest.raises(TandemError, match="64 bits"):
        main(["episodes=1", f"out={out}", f"seed={2**63}"])
    assert main(["episodes=1", f"out={out}"]) == 0
    assert Store(out).n_episodes == 1


@pytest.mark.parametrize("value", ["true", "[a]", ""])
def test_a_place_that_is_no_path_is_told(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TandemError, match="out is"):
        main([f"out={value}"])
    assert main(["out=7", "episodes=1"]) == 0
    assert Store("7").n_episodes == 1


def test_the_same_seed_records_the_same(tmp_path):
    for name in ("a", "b"):
        main(["episodes=3", f"out={tmp_path / name}"])
    one, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    for key in one.keys:
        assert (one.load(key) == other.load(key)).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["episodes=0"], "episodes=0"),
        (["noise=-1"], "noise=-1"),
        (["seed=-1"], "seed=-1"),
        (["policy=nowhere"], "nowhere holds no model.safetensors"),
        (["env=blokfind"], "did you mean 'blockfind'"),
        (["env.options.wordings=vary"], "did you mean 'varied'"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(tmp_path, arguments, words):
    with pytest.raises(TandemError, match=words):
        main([f"out={tmp_path / 'demos'}", *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_stopped_at_any_point_the_store_keeps_what_was_finished(tmp_path, how, status):
    out = tmp_path / "demos"
    command = [sys.executable, "-m", "tandem_training.cli", "collect", "episodes=100000", f"out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    end = time.monotonic() + 60
    while not (out / "zarr.json").exists() or Store(out).n_episodes < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(how)
    said, complained = process.communicate(timeout=30)
    assert process.returncode == status
    store = Store(out)
    assert store.n_episodes >= 3
    assert len(store.load("action")) == store.n_frames
    if how is signal.SIGINT:
        assert f"{store.n_episodes} episodes of 100000, then stopped" in said
        assert complained == "tandem collect: interrupted\n"
    assert main([f"out={out}", "append=true", "episodes=1"]) == 0
