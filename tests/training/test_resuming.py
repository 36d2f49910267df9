"""`tandem train --resume`: which folder, its configuration, and what may change."""

import os
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tandem_datasets.errors import TandemError
from tandem_training.cli import main
from tandem_training.config import compose, recompose
from tandem_training.engine.folder import replace_config
from tandem_training.resuming import FOLDER, find
from tandem_training.train import run


@pytest.fixture(scope="module")
def begun(tmp_path_factory, record, tiny):
    """A folder to work in with a store and two trainings in outputs/train, the newest of which is b."""
    folder = tmp_path_factory.mktemp("begun")
    record(folder / "a.zarr", ["eeee", "eeNNnee", "eeee"] * 3)
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, seed in (("b", 1), ("a", 0)):
            run(compose("train", ["data=a.zarr", *tiny, f"out=outputs/train/{name}", f"seed={seed}"]))
    finally:
        os.chdir(before)
    mark = folder / "outputs/train/b/last/progress.json"
    os.utime(mark, ns=(mark.stat().st_atime_ns, mark.stat().st_mtime_ns + 10**12))
    (folder / "outputs/train/else").mkdir()  # no training
    return folder


@pytest.fixture
def folder(begun, tmp_path, monkeypatch):
    shutil.copytree(begun, tmp_path / "begun")
    monkeypatch.chdir(tmp_path / "begun")
    return tmp_path / "begun"


def test_resume_alone_takes_the_newest(folder, capsys):
    before = load_file("outputs/train/b/final/model.safetensors")
    for name in ("a", "b"):
        (folder / "outputs/train" / name / "metrics.json").unlink()
    assert main(["train", "--resume"]) == 0
    told = capsys.readouterr().out
    assert "resuming outputs/train/b\n" in told
    assert "at step 6/6" in told
    after = load_file("outputs/train/b/final/model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert (folder / "outputs/train/b/metrics.json").exists()


def test_resume_alone_leaves_what_is_finished(folder, capsys, refused):
    """The newest one is: what was interrupted is the other."""
    (folder / "outputs/train/a/metrics.json").unlink()
    assert main(["train", "--resume"]) == 0
    assert "resuming outputs/train/a\n" in capsys.readouterr().out
    assert "--resume: no unfinished training in outputs/train (allowed: out=" in refused("train", "--resume")


def test_resume_alone_takes_what_was_killed_before_its_first_checkpoint(folder, capsys):
    killed = folder / "outputs/train/killed"
    killed.mkdir()
    shutil.copy("outputs/train/a/config.yaml", killed)
    (folder / "outputs/train/a/metrics.json").unlink()
    assert main(["train", "--resume"]) == 0
    assert "resuming outputs/train/killed: no checkpoint yet, begins at step 0\n" in capsys.readouterr().out
    final = "final/model.safetensors"
    assert (killed / final).read_bytes() == (folder / "outputs/train/a" / final).read_bytes()


def test_a_finished_training_that_is_made_longer_is_not_finished(folder, monkeypatch, tiny):
    arguments = ["data=a.zarr", *tiny, "trainer.schedule=constant", "out=outputs/train/c"]
    run(compose("train", arguments))

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tandem_training.engine.loop.Engine.fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(compose("train", [*arguments, "resume=true", "trainer.max_steps=9"]))
    assert find(None) == FOLDER / "c"


def test_resume_of_a_named_one(folder, capsys):
    assert main(["train", "--resume", "out=outputs/train/a", "seed=0", "trainer.log_every=1"]) == 0
    assert "resuming outputs/train/a\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=2", "resume: seed is 2, but outputs/train/b was begun with 1 (allowed: the same)"),
        ("trainer.lr=0.1", "resume: trainer.lr is 0.1"),
        ("preset=demo", "resume: trainer.batch_size is 64, but"),
        ("policy=tinyvla/nano", "resume: policy.chunk_size is 4, but"),
        (
            "trainer.max_steps=8",
            "trainer.max_steps is 8, but outputs/train/b was begun with 6 (allowed: the same; more",
        ),
        ("out=nowhere", "--resume: out=nowhere is no training to resume (it has no config.yaml)"),
        ("trainer.lt=1", "did you mean 'trainer.lr'?"),
    ],
)
def test_resume_with_what_does_not_agree(folder, refused, override, message):
    named = [] if override.startswith("out=") else ["out=outputs/train/b"]
    assert message in refused("train", "--resume", *named, override)


def test_nothing_to_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TandemError, match=r"--resume: no unfinished training in outputs/train .allowed: out="):
        find(None)


def test_a_constant_rate_can_be_trained_on(folder, tiny):
    """The longer run's first steps are the shorter one's."""
    arguments = ["data=a.zarr", *tiny, "trainer.schedule=constant"]
    run(compose("train", [*arguments, "out=short"]))
    run(compose("train", [*arguments, "out=short", "resume=true", "trainer.max_steps=9"]))
    run(compose("train", [*arguments, "out=long", "trainer.max_steps=9"]))
    short, long = (load_file(f"{name}/final/model.safetensors") for name in ("short", "long"))
    assert all(torch.equal(value, long[name]) for name, value in short.items())
    with pytest.raises(TandemError, match=r"trainer.max_steps is 6, but short was begun with 9"):
        run(compose("train", [*arguments, "out=short", "resume=true"]))


def test_a_configuration_from_before_a_key_was_there(folder):
    saved = OmegaConf.load("outputs/train/b/config.yaml")
    for name in ("groups", "compile", "early_stop_after"):
        del saved.trainer[name]
    del saved["init"]
    assert recompose("train", saved, []).trainer.groups == []
    replace_config(folder / "outputs/train/b", OmegaConf.to_yaml(saved))
    assert main(["train", "--resume", "out=outputs/train/b"]) == 0


@pytest.mark.parametrize("more", [[], ["resume=true"]])
def test_a_kill_before_the_configuration_was_whole(folder, more, tiny):
    """What a kill between its writing and its renaming left was refused by a new run and by a resume."""
    (folder / "new").mkdir()
    (folder / "new" / ".config.yaml.new").write_text("data:")
    (folder / "new" / ".lock").touch()
    assert run(compose("train", ["data=a.zarr", *tiny, "out=new", *more])).metrics["steps"] == 6


def test_a_damaged_configuration_is_one_line(folder, refused):
    (folder / "outputs/train/b/config.yaml").write_text("a: [")
    assert "config.yaml: unreadable" in refused("train", "--resume", "out=outputs/train/b")


def test_a_store_that_may_not_be_read_is_named(folder, monkeypatch, tiny):
    """Every error of the file system was said to be one of out."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "a.zarr/data")

    monkeypatch.setattr("tandem_training.stages.build_stage", refuse)
    with pytest.raises(TandemError, match=r"^tandem train: a.zarr/data: Permission denied$"):
        run(compose("train", ["data=a.zarr", *tiny, "out=new"]))
    assert not (folder / "new").exists()


def test_a_training_without_a_hint_tells_none(folder, capsys, monkeypatch, tiny):
    """The demo's trainings are begun anew: there is nothing to resume by hand."""
    from tandem_training.stages.policy import PolicyStage

    batch = PolicyStage.batch

    def interrupting(self, index, shard):
        if index == 3:
            os.kill(os.getpid(), 2)
        return batch(self, index, shard)

    monkeypatch.setattr(PolicyStage, "batch", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(compose("train", ["data=a.zarr", *tiny, "out=new"]))
    assert "stopped at step 4\n" in capsys.readouterr().out
