"""`tandem try` as a picture without a display, and typed on a real pseudo-terminal."""

import numpy as np
import pytest
import torch
from PIL import Image

from tandem_datasets.errors import TandemError
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_sim.blockfind.task import EMBODIMENT
from tandem_training.commands.trying import main


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    torch.manual_seed(0)
    return save(create("tinyvla", EMBODIMENT, dim=32, head_dim=32), tmp_path_factory.mktemp("try") / "policy")


def test_a_picture_has_a_row_for_everything_that_is_asked(policy, tmp_path, capsys):
    common = [f"policy={policy}", "view=picture", "seed=5", "env.options.horizon=3"]
    assert main([*common, f"out={tmp_path / 'all.png'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("find the") >= 3
    assert main([*common, f"out={tmp_path / 'two.png'}", "instruction=[find the red block,sing]"]) == 0
    assert "sing: the environment knows no such task here: not judged after 3 steps" in capsys.readouterr().out
    every, two = (np.asarray(Image.open(tmp_path / name)) for name in ("all.png", "two.png"))
    assert every.shape[0] / two.shape[0] == printed.count("find the") / 2
    assert every.std() > 10
    assert {path.name for path in tmp_path.iterdir()} == {"all.png", "two.png"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out=x.jpg"], "allowed: a name that ends in .png"),
        (["view=pictur"], "did you mean 'picture'"),
        (["view=window"], "no display"),
        (["instruction=3"], "instruction is 3"),
        (["instruction=[a,7]"], "instruction is 7"),
        (["seed=-1"], "seed=-1"),
    ],
)
def test_bad_arguments_are_one_line(policy, arguments, words, monkeypatch, tmp_path):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TandemError, match=words):
        main([f"policy={policy}", *(["view=picture"] if "view" not in arguments[0] else []), *arguments])
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_left_alone(policy, tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    with pytest.raises(TandemError, match=r"mine\.png exists \(allowed: a new file\)"):
        main([f"policy={policy}", "view=picture", f"out={tmp_path / 'mine.png'}"])
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_instructions_are_typed_on_a_terminal(policy, on_terminal):
    player = on_terminal("try", f"policy={policy}", "seed=3", "env.options.horizon=2")
    player.until("such as: find the green block; ")
    player.press("dance\r")
    player.until("'dance': the environment knows no such task here: not judged after 2 steps")
    player.press("\t")
    player.until("seed 4")
    player.press("\x1b")
    assert player.end() == 0
    assert "1 trial" in player.said
