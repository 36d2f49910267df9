import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_policies import load
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_sim.blockfind.static import EMBODIMENT
from tandem_training.ablation import ablated
from tandem_training.cli import main
from tandem_training.data import load_frames, statistics
from tandem_training.named_data import ready
from tandem_training.offline import Offline, break_down, evaluate_offline, measures

PNGS = {"predictions.png", "errors.png", "groups.png", "worst.png", "random.png"}


@pytest.fixture
def policy_for():
    """Makes a policy directory with random weights for a store."""

    def make(path, store, **config):
        frames, _ = load_frames([store])
        network = create("tinyvla", frames.embodiment, dim=32, fusion_heads=4, patch=8, **config)
        network.set_statistics(statistics(frames, frames.usable))
        return save(network, path)

    return make


@pytest.fixture
def found():
    """Six samples with known answers, two of them without a direction."""
    theirs = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0], [0, 0]], np.float32)[:, None]
    ours = theirs.copy()
    ours[3] = [[1, 0]]  # a wrong direction, 2 ** 0.5 off
    ours[5] = [[0.9, 0]]  # a direction where there is none
    zero = np.zeros(6, np.int64)
    from tandem_training.data import Frames

    frames = Frames(EMBODIMENT, {}, np.zeros((6, 0)), theirs[:, 0], zero, zero, zero, zero, ("",), zero)
    groups = {"colour": np.array(["red", "red", "blue", "blue", "red", "red"])}
    return Offline(frames, np.arange(6), ours, theirs, np.ones((6, 1), bool), groups, [1.0])


def test_targets_in_the_centre_are_left_out(found):
    figures = measures(found)
    assert figures["direction_accuracy"] == 0.75
    assert figures["l2"] == pytest.approx(2**0.5 / 4)
    assert (figures["samples"], figures["samples_centre"], figures["centre_accuracy"]) == (6, 2, 0.5)


def test_figures_are_broken_down(found):
    table = break_down(found)["colour"]
    assert table["red"] == {"samples": 2, "l2": 0.0, "direction_accuracy": 1.0}
    assert table["blue"]["direction_accuracy"] == 0.5


def test_where_no_target_has_a_direction_none_is_judged(found):
    """Regression: figures by group told how many stood still under the name of the direction's accuracy."""
    still = replace(found, theirs=np.zeros_like(found.theirs))
    figures = measures(still)
    assert figures["direction_accuracy"] is None
    assert figures["l2"] == pytest.approx(still.errors.mean())
    assert break_down(still)["colour"]["blue"].keys() == {"samples", "l2"}


def test_padded_actions_count_for_nothing(found):
    long = np.repeat(found.ours, 2, axis=1)
    long[:, 1] += 5
    there = np.array([[True, False]] * 6)
    padded = replace(found, ours=long, theirs=np.repeat(found.theirs, 2, axis=1), there=there)
    np.testing.assert_array_equal(padded.errors, found.errors)


def test_the_command_evaluates_on_the_test_split(small_static, policy_for, capsys):
    ready(small_static)
    directory = policy_for("policy", small_static.store("train"), chunk_size=1)
    assert main(["eval", f"policy={directory}", "data=blockfind_static", "out=out", "frames=30"]) == 0
    assert "written to out" in capsys.readouterr().out
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["data"] == [str(small_static.store("test"))]
    assert (metrics["samples"], metrics["backend"]) == (30, "offline")
    assert set(metrics["groups"]) == {"blocks", "colour", "distance (cells)"}
    assert metrics["latency_ms"]["p50"] > 0
    store = Store(small_static.store("test"))
    policy = load(directory, device="cpu")
    indices = np.linspace(0, 39, 30).round().astype(int)
    ours = np.concatenate([policy.infer([[store.frames(int(i))[0].observation]], [(0, 0)])[:, 0] for i in indices])
    theirs = store.load("action")[indices]
    moves = (theirs != 0).any(1)
    assert metrics["l2"] == pytest.approx(np.linalg.norm(ours - theirs, axis=1)[moves].mean(), abs=1e-4)
    for name in PNGS:
        with Image.open(f"out/{name}") as picture:
            assert len(picture.convert("RGB").getcolors(maxcolors=1 << 20)) > 10


def test_any_store_and_any_policy_that_fits(tmp_path, record, policy_for, monkeypatch):
    store = record(tmp_path / "a", ["eeeee", "ee|ee"])
    directory = policy_for(tmp_path / "policy", store, chunk_size=3, n_action_steps=2)
    out = tmp_path / "out"
    assert main(["eval", f"policy={directory}", f"data={store}", f"out={out}"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["samples"] == 9
    assert set(metrics["groups"]) == {"instruction"}
    assert {path.name for path in out.iterdir()} - {".lock"} == PNGS | {"metrics.json"}


def test_what_is_refused(tmp_path, record, small_embodiment, small_static, policy_for, refused):
    store = record(tmp_path / "a", ["eeeee"])
    directory = policy_for(tmp_path / "policy", store, chunk_size=1)
    for arguments, said in [
        ([f"policy={directory}", "data=blockfind_static"], "made for 'small', does not fit 'blockfind_static'"),
        (["policy=expert", f"data={store}"], "policy=expert with data="),
        ([f"policy={directory}", f"data={store}", "backend=ros2"], "backend=ros2 with data="),
        ([f"policy={directory}", f"data={store}", "record=true"], "record=True with data="),
        ([f"policy={directory}", f"data={store}", "frames=0"], "frames=0 (allowed: a whole number from 1)"),
        ([f"policy={directory}", f"data={store}", "split=tset"], "did you mean 'test'"),
        ([f"policy={directory}", "data=nowhere.zarr"], "nowhere.zarr"),
    ]:
        out = tmp_path / "out"
        assert said in refused("eval", *arguments, f"out={out}")
        assert not out.exists()


def test_controls_take_away_what_they_say(tmp_path, record, policy_for):
    store = record(tmp_path / "a", ["ee|ee", "e|e", "ee"])
    frames, _ = load_frames([store])
    assert ablated(frames, None, 0) is frames
    blank = ablated(frames, "vision_only", 0)
    assert {blank.instructions[code] for code in blank.instruction} == {""}
    assert not ablated(frames, "language_only", 0).images["top"].any()
    shuffled = ablated(frames, "shuffled", 0)
    assert sorted(shuffled.instruction) == sorted(frames.instruction)
    assert shuffled.instruction.tolist() != frames.instruction.tolist()
    with pytest.raises(TandemError, match="did you mean 'shuffled'"):
        ablated(frames, "shufled", 0)
    policy = load(policy_for(tmp_path / "policy", store, chunk_size=1), device="cpu")
    whole, dark = (evaluate_offline(policy, [store], ablate=kind) for kind in (None, "language_only"))
    assert (whole.ours != dark.ours).any()
    np.testing.assert_array_equal(whole.theirs, dark.theirs)
