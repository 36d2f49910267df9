import json
import math
import subprocess
import sys

import pytest
import tiny_stage
import torch
from safetensors.torch import load_file
from tiny_stage import settings

from tandem_datasets.errors import TandemError
from tandem_training.data import Order
from tandem_training.engine.checkpoint import read_checkpoint
from tandem_training.engine.report import read_history
from tandem_training.engine.settings import TrainerSettings


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: its folder and final weights."""
    out = tmp_path_factory.mktemp("straight")
    return out, tiny_stage.train(out)


def assert_same_run(out, weights, straight):
    other, wanted = straight
    assert weights.keys() == wanted.keys()
    for name, value in weights.items():
        assert torch.equal(value, wanted[name]), name
    assert read_history(out, clock=False) == read_history(other, clock=False)
    best = load_file(out / "best" / "model.safetensors")
    for name, value in load_file(other / "best" / "model.safetensors").items():
        assert torch.equal(value, best[name]), name


def test_learns(straight):
    out, _ = straight
    losses = [record["val"]["loss"] for record in read_history(out) if "val" in record]
    assert losses[-1] < 0.9 * losses[0]
    assert [path.name for path in sorted(out.iterdir()) if path.is_dir()] == ["best", "final", "last", "tensorboard"]


def test_resume_after_kill_9_is_exact(straight, tmp_path):
    done = subprocess.run(
        [sys.executable, tiny_stage.__file__, tmp_path, "24", "kill", "17"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert read_checkpoint(tmp_path)[0].step == 15
    assert read_history(tmp_path)[-1]["step"] > 0
    assert_same_run(tmp_path, tiny_stage.train(tmp_path), straight)


def test_resume_after_ctrl_c_is_exact(straight, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        tiny_stage.train(tmp_path, tiny_stage.make_stage("interrupt", 7))
    assert "stopped at step 8\n" in capsys.readouterr().out
    assert read_checkpoint(tmp_path)[0].step == 8  # the running step was finished
    assert_same_run(tmp_path, tiny_stage.train(tmp_path), straight)


def test_sigterm_saves_too(tmp_path):
    with pytest.raises(SystemExit) as error:
        tiny_stage.train(tmp_path, tiny_stage.make_stage("terminate", 7))
    assert error.value.code == 143
    assert read_checkpoint(tmp_path)[0].step == 8


def test_the_seed_and_the_step_decide_what_is_drawn(straight, tmp_path):
    """The order of samples is the stage's; dropout and noise are the engine's."""
    other = tiny_stage.train(tmp_path, seed=4)
    assert any(not torch.equal(value, straight[1][name]) for name, value in other.items())
    drawn = [record["noise"] for out in (straight[0], tmp_path) for record in read_history(out) if "noise" in record]
    assert len(set(drawn)) == len(drawn) == 16


def test_a_best_policy_is_kept_by_a_worse_one_after_a_resume(tmp_path):
    stage = tiny_stage.make_stage()
    stage.validate = lambda: {"loss": 1.0}
    tiny_stage.train(tmp_path, stage, max_steps=6, schedule="constant")
    before = load_file(tmp_path / "best" / "model.safetensors")
    for steps, loss, best in ((12, 2.0, 6), (18, 0.5, 18)):
        stage = tiny_stage.make_stage()
        stage.validate = lambda loss=loss: {"loss": loss}
        tiny_stage.train(tmp_path, stage, max_steps=steps, schedule="constant")
        assert read_checkpoint(tmp_path)[0].best_step == best
        after = load_file(tmp_path / "best" / "model.safetensors")
        assert all(torch.equal(value, after[name]) for name, value in before.items()) == (best == 6)


def test_resume_of_a_finished_run_changes_nothing(straight, tmp_path):
    tiny_stage.train(tmp_path)
    before = read_checkpoint(tmp_path)[0]
    assert_same_run(tmp_path, tiny_stage.train(tmp_path), straight)
    assert read_checkpoint(tmp_path)[0] == before


def test_not_a_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TandemError, match=r"loss nan.* at step 13; stopped, .*last is kept"):
        tiny_stage.train(tmp_path, tiny_stage.make_stage("nan", 12))
    progress, tensors = read_checkpoint(tmp_path)
    assert progress.step == 10
    assert all(torch.isfinite(value).all() for value in tensors["module"].values())
    assert not (tmp_path / "final").exists()


def test_not_a_number_before_any_checkpoint(tmp_path):
    with pytest.raises(TandemError, match="no checkpoint was written yet"):
        tiny_stage.train(tmp_path, tiny_stage.make_stage("nan", 1))


@pytest.mark.parametrize("damage", ["resume.pt", "progress.json"])
def test_damaged_checkpoint_is_one_clear_line(tmp_path, damage):
    tiny_stage.train(tmp_path, max_steps=5)
    path = tmp_path / "last" / damage
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TandemError, match="last: damaged checkpoint") as error:
        tiny_stage.train(tmp_path, max_steps=5)
    assert "\n" not in str(error.value)


def test_checkpoint_holds_no_pickled_code(tmp_path):
    tiny_stage.train(tmp_path, max_steps=5)
    torch.load(tmp_path / "last" / "resume.pt", weights_only=True)  # would refuse any other class


def test_checkpoint_of_another_network_is_refused(tmp_path):
    tiny_stage.train(tmp_path, max_steps=5)
    stage = tiny_stage.make_stage()
    stage.module = torch.nn.Linear(8, 2)
    with pytest.raises(TandemError, match="does not fit this training"):
        tiny_stage.train(tmp_path, stage, max_steps=5)


def test_checkpoint_of_other_data_is_refused(tmp_path):
    stage = tiny_stage.make_stage()
    stage.fingerprint = {"data": "one"}
    tiny_stage.train(tmp_path, stage, max_steps=5)
    stage = tiny_stage.make_stage()
    stage.fingerprint = {"data": "two"}
    with pytest.raises(TandemError, match="content of data has changed"):
        tiny_stage.train(tmp_path, stage, max_steps=10)


def test_gradient_accumulation_equals_one_large_batch(tmp_path):
    """Without dropout two micro-batches of 8 are one batch of 16."""
    weights = []
    for name, size, accumulate in (("one", 16, 1), ("two", 8, 2)):
        stage = tiny_stage.make_stage()
        stage.module[2].p = 0.0
        stage.order = Order(stage.order._samples, size, seed=3)
        weights.append(tiny_stage.train(tmp_path / name, stage, accumulate=accumulate, batch_size=size, max_steps=6))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


def test_history_has_rates_and_norms(straight):
    records = [record for record in read_history(straight[0]) if "loss" in record]
    assert [record["step"] for record in records] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert {"loss", "lr", "grad_norm", "noise"} <= records[0].keys()


def test_learning_rate_schedules():
    cosine = settings(max_steps=103, warmup_steps=3, lr=1.0, final_lr=0.1)
    assert [cosine.learning_rate(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert cosine.learning_rate(53) == pytest.approx(0.55)
    assert cosine.learning_rate(103) == pytest.approx(0.1)
    constant = settings(schedule="constant", lr=1.0, warmup_steps=0)
    assert {constant.learning_rate(step) for step in range(30)} == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, r"trainer.max_steps is 0 \(allowed: a whole number, 1\.\."),
        ({"lr": math.nan}, "trainer.lr is nan"),
        ({"lr": "fast"}, "trainer.lr is 'fast'"),
        ({"max_steps": True}, "trainer.max_steps is True"),
        ({"batch_size": 1.5}, "trainer.batch_size is 1.5"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"precision": "fp8"}, "allowed: bf16, fp16, fp32"),
        ({"threads": 0}, "trainer.threads is 0"),
        ({"leraning": 1}, "unknown name 'leraning'"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(TandemError, match=message):
        settings(**changes)


def test_missing_setting():
    values = dict(tiny_stage.SETTINGS)
    del values["lr"]
    with pytest.raises(TandemError, match="trainer: missing lr"):
        TrainerSettings.from_mapping(values)


def test_progress_is_readable_json(straight):
    progress = json.loads((straight[0] / "last" / "progress.json").read_text())
    assert progress["step"] == 24
    assert progress["best_step"] in (6, 12, 18, 24)
    assert progress["first_step_s"] > 0
