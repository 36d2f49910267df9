import pytest

from tandem_datasets.errors import TandemError
from tandem_training.cli import main
from tandem_training.config import compose, given, parse, quoted, recompose

BAD = [
    (["trainer.max_stpes=3"], "unknown name 'trainer.max_stpes'; did you mean 'trainer.max_steps'?"),
    (["max_steps=3"], "did you mean 'trainer.max_steps'?"),
    (["polcy=tinyvla/nano"], "unknown name 'polcy'; did you mean 'policy'?"),
    (["policy.hedas=3"], "did you mean 'policy.heads'?"),
    (["preset=debgu"], "preset: unknown name 'debgu'; did you mean 'debug'? (allowed: debug, demo, "),
    (["policy=tinyvla/nani"], "did you mean 'tinyvla/nano'?"),
    (["preset="], "preset: unknown name ''"),
    (["ros=default"], "unknown name 'ros'"),  # a group of other commands
    (["trainer.max_steps=abc"], "trainer.max_steps is 'abc' (allowed: a whole number"),
    (["trainer.max_steps=1.5"], "trainer.max_steps is '1.5' (allowed: a whole number"),
    (["trainer.max_steps=null"], "trainer.max_steps is null (allowed: a whole number"),
    (["trainer.max_steps=true"], "trainer.max_steps is 'True' (allowed: a whole number"),
    (["trainer.lr=fast"], "trainer.lr is 'fast' (allowed: a number"),
    (["resume=ture"], "resume is 'ture' (allowed: true or false"),
    (["trainer.schedule=[a]"], "trainer.schedule is ['a'] (allowed: a text"),
    (["stage.name=null"], "stage.name is null (allowed: a text"),
    (["trainer={max_stpes: 3}"], "trainer: unknown name 'max_stpes'; did you mean 'max_steps'?"),
    (["trainer={max_steps: abc}"], "trainer.max_steps is 'abc'"),
    (["trainer"], "'trainer' is not of the form key=value"),
    (["=3"], "'=3' is not of the form key=value"),
    (["~trainer.lr"], "'~trainer.lr' is not of the form key=value"),
    (["~trainer.lr=3"], "'~trainer.lr=3' is not of the form key=value"),
    (["--trainer.lr=3"], "'--trainer.lr=3' is not of the form key=value"),
    (["+nothing=3"], "unknown name 'nothing'"),
    (["hydra.run.dir=x"], "unknown name 'hydra.run.dir'"),
    (["data=a=b"], "'data=a=b' cannot be read"),
    (["data=[a,b"], "'data=[a,b' cannot be read"),
    (["seed=1,2"], "'seed=1,2' holds several values"),
    (["data=${nowhere}"], "'nowhere' not found"),
    ([], "missing data=..."),
    (["--cfg"], "--cfg takes 'job'"),
    (["--cfg", "hydra"], "--cfg takes 'job'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(pair[0]) or "nothing" for pair in BAD])
def test_bad_arguments_are_one_line(arguments, message):
    given = arguments if any("data" in part for part in arguments) or not arguments else ["data=x", *arguments]
    with pytest.raises(TandemError) as error:
        parse("train", given, "doc")
    assert message in str(error.value)
    assert str(error.value).startswith("tandem train: ")
    assert "\n" not in str(error.value)


def test_overrides_win_over_presets():
    config = compose("train", ["trainer.max_steps=7", "preset=debug", "data=[a,b c]", "trainer.lr=1"])
    assert config.trainer.max_steps == 7
    assert config.trainer.batch_size == compose("train", ["preset=debug"]).trainer.batch_size
    assert list(config.data) == ["a", "b c"]
    assert config.trainer.lr == 1


def test_over_a_saved_configuration_a_preset_sets_its_own_keys_alone():
    """Regression: it set all of the trainer's, most of them back to their defaults; in quotes it was not found."""
    saved = compose("train", ["trainer.lr=0.5", "trainer.ema=0.9", "policy=lerobot/act", "data=x"])
    for name in ("debug", quoted("debug")):
        config = recompose("train", saved, [f"preset={name}"])
        assert (config.trainer.lr, config.trainer.ema, config.trainer.max_steps) == (0.5, 0.9, 30)
    static = recompose("train", saved, ["preset=static"])
    assert static.policy == {**saved.policy, "chunk_size": 1}


def test_what_may_be_null_can_be_again():
    """Regression: a number that a saved configuration had, or an override before it, counted as the default."""
    key = "trainer.early_stop_after"
    saved = compose("train", [f"{key}=5", "data=x"])
    assert recompose("train", saved, [f"{key}=null"]).trainer.early_stop_after is None
    assert compose("train", [f"{key}=5", f"{key}=null"]).trainer.early_stop_after is None
    with pytest.raises(TandemError, match="max_steps is null"):
        recompose("train", saved, ["trainer.max_steps=null"])


def test_a_key_is_given_one_value():
    """Regression: `--multirun out=a,b` wrote into a folder "ChoiceSweep(...)", and `+out=a` was overlooked."""
    assert given("train", ["out=a", "seed=1,2"], "out") == "a"
    assert given("train", ["+out=a"], "out") == "a"
    assert given("train", ["outer=a"], "out") is None
    with pytest.raises(TandemError, match="'out=a,b' holds several values"):
        given("train", ["out=a,b"], "out")


@pytest.mark.parametrize("name", ["007", "it's", "a b=c, [d]", r"it\s"])
def test_what_is_a_text_stays_as_it_was_written(name):
    assert compose("demo", ["out=007"]).out == "007"
    assert compose("collect", [f"out={quoted(name)}"]).out == name


def test_a_key_may_share_its_name_with_a_group_of_another_command():
    """Hydra takes `policy=<dir>` for a choice in the group `policy`, which only `tandem train` has."""
    assert compose("eval", ["policy=outputs/nano/best"]).policy == "outputs/nano/best"


def test_mappings_merge():
    config = compose("train", ["trainer={lr: 0.5, ema: 0.9}", "+policy.extra=3"])
    assert (config.trainer.lr, config.trainer.ema, config.policy.extra) == (0.5, 0.9, 3)


def test_cfg_job_prints_instead_of_running(capsys):
    assert parse("train", ["--cfg", "job", "preset=debug"], "doc") is None
    out = capsys.readouterr().out
    assert "data: ???" in out
    assert "max_steps: 30" in out


def test_help_shows_doc_and_defaults(capsys):
    assert parse("train", ["--help"], "What it does.") is None
    out = capsys.readouterr().out
    assert "What it does." in out
    assert "resume: false" in out


def test_cli_says_one_line_and_exits_2(capsys):
    assert main(["train", "preset=debgu"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: tandem train: preset: unknown name 'debgu'")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_broken_disk_is_one_line_too(monkeypatch, capsys):
    def full(argv):
        raise OSError(28, "No space left on device", "some/file")

    monkeypatch.setattr("tandem_training.commands.listing.main", full)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "error: tandem list: some/file: No space left on device\n"


def test_a_wrong_override_for_the_demos_trainings_is_told_at_once(tmp_path, capsys):
    assert main(["demo", f"out={tmp_path / 'out'}", 'train=["preset=dmo"]']) == 2
    assert "did you mean 'demo'" in capsys.readouterr().err
    assert not (tmp_path / "out" / "demonstrations.zarr").exists()


def test_the_demos_seeds_never_meet(capsys):
    assert main(["demo", "seed=199990"]) == 2
    assert "seeds 199990 to 200049 would meet those of the rollouts" in capsys.readouterr().err


def test_cli_suggests_commands(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


def test_cli_help_and_version(capsys):
    assert main([]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["--version"]) == 0
