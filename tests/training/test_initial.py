"""`tandem train init=<policy directory>`: fine-tuning."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tandem_datasets.errors import TandemError
from tandem_training.cli import main
from tandem_training.config import compose
from tandem_training.train import run


@pytest.fixture(scope="module")
def store(tmp_path_factory, record):
    return record(tmp_path_factory.mktemp("store") / "a.zarr", ["eeee", "eeNNnee", "eeee"] * 3)


@pytest.fixture(scope="module")
def arguments(store, tiny_training):
    """Of any training here; they say nothing of the policy."""
    return [f"data={store}", *tiny_training, "trainer.max_steps=4", "trainer.warmup_steps=0"]


@pytest.fixture(scope="module")
def small(tiny_policy):
    return [*tiny_policy, "policy.dropout=0.1"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory, arguments, small):
    """A policy whose settings are not the defaults."""
    out = tmp_path_factory.mktemp("policy") / "out"
    run(compose("train", [*arguments, *small, f"out={out}"]))
    return out / "best"


@pytest.fixture
def tuned(tmp_path, arguments):
    """Trains ``init`` on, into ``out``; the final weights."""

    def tune(init, *more):
        result = run(compose("train", [*arguments, f"init={init}", f"out={tmp_path / 'out'}", *more]))
        return load_file(result.final / "model.safetensors")

    return tune


@pytest.fixture
def error_of(tmp_path, tuned):
    """The line that :func:`tuned` ends with; it leaves nothing."""

    def message(init, *more):
        with pytest.raises(TandemError) as error:
            tuned(init, *more)
        assert not (tmp_path / "out").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    return message


def test_weights_and_settings_come_from_the_checkpoint(tmp_path, tuned, policy):
    """At a learning rate of 0 nothing else happens to them."""
    after = tuned(policy, "trainer.lr=0")
    before = load_file(policy / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    saved = (tmp_path / "out" / "config.yaml").read_text()
    assert "dropout: 0.1" in saved
    assert f"init: {policy}" in saved


def test_a_tuned_policy_resumes_exactly(tmp_path, arguments, policy, capsys):
    changed = [*arguments, f"init={policy}", "trainer.lr=0.01", "seed=5", "trainer.schedule=constant"]
    run(compose("train", [*changed, f"out={tmp_path / 'a'}"]))
    assert main(["train", "--resume", f"out={tmp_path / 'a'}", "trainer.max_steps=6"]) == 0
    assert "resumed from" in capsys.readouterr().out
    whole = run(compose("train", [*changed, "trainer.max_steps=6", f"out={tmp_path / 'b'}"]))
    resumed, wanted = (load_file(path / "final/model.safetensors") for path in (tmp_path / "a", whole.out))
    assert all(torch.equal(value, wanted[name]) for name, value in resumed.items())
    assert any(not torch.equal(value, load_file(policy / "model.safetensors")[name]) for name, value in wanted.items())


def test_what_does_not_change_the_weights_may_differ(tmp_path, tuned, policy):
    tuned(policy, "policy.dropout=0.3")
    assert "dropout: 0.3" in (tmp_path / "out" / "config.yaml").read_text()


def test_another_architecture(error_of, policy):
    message = error_of(policy, "policy.head_dim=32")
    assert f"init={policy} is of another architecture: policy.head_dim is 32, not 16 (allowed: leave" in message


def test_a_chosen_policy_that_says_otherwise(tmp_path, arguments, policy, capsys):
    chosen = [f"init={policy}", f"out={tmp_path / 'out'}", "policy=tinyvla/nano"]
    assert main(["train", *arguments, *chosen]) == 2
    assert "is of another architecture than policy=tinyvla/nano: chunk_size is 2, not 4" in capsys.readouterr().err


def test_another_embodiment(tmp_path, record, error_of, policy, small_embodiment):
    faster = replace(small_embodiment, rate_hz=20)
    other = record(tmp_path / "other", ["eeee"] * 3, faster)
    assert "is of another embodiment than the data: rate_hz is 10" in error_of(policy, f"data={other}")


@pytest.mark.parametrize(
    ("quantity", "change"),
    [
        ("mean", lambda value: value + torch.tensor([0.0, 40.0])),
        ("std", lambda value: value * torch.tensor([1.0, 0.05])),
        ("std", lambda value: value * torch.tensor([1.0, 200.0])),
    ],
    ids=["far", "wider", "narrower"],
)
def test_statistics_that_do_not_fit(tmp_path, tuned, error_of, policy, quantity, change):
    weights = load_file(policy / "model.safetensors")
    weights[f"action_{quantity}"] = change(weights[f"action_{quantity}"])
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in policy.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    message = error_of(moved)
    assert "its statistics do not fit the data: action agent/dy has mean" in message
    assert "(allowed: init_statistics=data" in message
    after = tuned(moved, "init_statistics=data", "trainer.lr=0")
    original = load_file(policy / "model.safetensors")
    for name in ("action_mean", "action_std"):
        assert np.array_equal(after[name].numpy(), original[name].numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("init=nowhere", "nowhere: does not exist (wanted: a policy directory"),
        ("init=old.pt", "old.pt: pickled weights are never opened"),
        ("init=[a]", "init is ['a']"),
        ("init_statistics=dat", "init_statistics: unknown name 'dat'; did you mean 'data'?"),
    ],
)
def test_bad_values(error_of, policy, change, message):
    assert message in error_of(policy, change)


def test_a_training_in_place_of_its_policy(error_of, policy):
    out = policy.parent
    assert f"init={out} is a training, no policy (allowed: init={out / 'best'})" in error_of(out)


def test_a_setting_that_is_the_default_is_asked_for_all_the_same(tmp_path, arguments, policy):
    assert compose("train", []).policy.dropout == 0
    asked = [f"init={policy}", f"out={tmp_path / 'out'}", "policy.dropout=0.0"]
    assert main(["train", *arguments, *asked]) == 0
    assert "\n  dropout: 0.0\n" in (tmp_path / "out" / "config.yaml").read_text()


@pytest.mark.parametrize("key", ["tokenizer", "vision_backbone", "language_backbone"])
def test_another_tokenizer_or_backbone(error_of, policy, key):
    """What a network reads and sees with comes from the checkpoint: a KeyError, or silently none of it."""
    message = error_of(policy, f"policy.{key}=some/model")
    assert f"is of another architecture: policy.{key} is some/model, not None (allowed: leave" in message


@pytest.mark.parametrize("again", [["--resume"], ["resume=true"]])
def test_a_tuned_policy_goes_on_without_its_beginning(tmp_path, arguments, policy, again, monkeypatch):
    shutil.copytree(policy, tmp_path / "first")
    tuning = [*arguments, f"init={tmp_path / 'first'}", "policy.dropout=0.0"]
    assert main(["train", *tuning, f"out={tmp_path / 'out'}"]) == 0
    before = load_file(tmp_path / "out/final/model.safetensors")
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "out/best")
    monkeypatch.setattr("tandem_training.stages.policy.start_statistics", pytest.fail)
    named = [f"out={tmp_path / 'out'}", *(tuning if again == ["resume=true"] else [])]
    assert main(["train", *again, *named]) == 0
    after = load_file(tmp_path / "out/final/model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_fresh_policy_goes_on_from_its_own_texts(tmp_path, arguments, small, monkeypatch):
    """A network made anew would fetch its backbones by name."""
    run(compose("train", [*arguments, *small, f"out={tmp_path / 'out'}"]))
    monkeypatch.setattr("tandem_policies.network.create", pytest.fail)
    assert main(["train", "--resume", f"out={tmp_path / 'out'}"]) == 0
