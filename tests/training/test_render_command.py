"""`tandem render` into tiny films that are read back."""

import av
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_sim.blockfind.task import EMBODIMENT
from tandem_training.commands.render import main


def film_of(path):
    """Frames (N, H, W, 3), and the seconds that it plays."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        assert stream.codec_context.name == "h264"
        return np.stack(frames), len(frames) / float(stream.average_rate)


def test_a_film_of_the_h1_lasts_as_long_as_the_episode_and_shows_every_camera(tmp_path, capsys):
    out = tmp_path / "new" / "reach.mp4"
    common = ["env=h1_reach", "seed=5", "env.options.horizon=20", f"out={out}"]
    assert main([*common, "cameras=[front,left_wrist,head]", "size=[48,65]"]) == 0
    frames, seconds = film_of(out)
    assert frames.shape[1:] == (48 + 34, 3 * 65 + 2 * 2 + 1, 3)
    assert seconds == pytest.approx(20 / 50 + 1, abs=0.05)  # a second of the last picture
    assert capsys.readouterr().out == f"seed 5: not_reached\n35 frames written to {out}\n"
    views = [frames[0, :48, k * 67 : k * 67 + 65].astype(int) for k in range(3)]
    assert all(view.std() > 10 for view in views)
    assert np.abs(views[0] - views[1]).mean() > 10
    assert np.abs(views[0] - views[2]).mean() > 10
    assert np.abs(frames[8, :48].astype(int) - frames[0, :48]).max() > 50  # the expert moves
    captions = frames[:, 48:].astype(int)
    assert captions[0].max() > 150
    assert np.abs(captions[0] - captions[-1]).max() > 100  # time, subgoal, outcome
    assert [path.name for path in out.parent.iterdir()] == ["reach.mp4"]


def test_who_holds_does_not_move_in_either_mode(tmp_path):
    for mode in ("joint", "ee_delta"):
        out = tmp_path / f"{mode}.mp4"
        mode_options = ["env.options.horizon=30", f"env.options.action_mode={mode}"]
        assert (
            main(["env=h1_reach", "policy=hold", "cameras=front", "size=64", "fps=5", f"out={out}", *mode_options]) == 0
        )
        frames, _ = film_of(out)
        assert len(frames) == 3 + 5
        assert np.abs(frames[0, :64].astype(int) - frames[-1, :64]).mean() < 3


def test_episodes_of_a_policy_directory_in_blockfind(tmp_path, capsys):
    policy = save(create("tinyvla", EMBODIMENT, dim=32, head_dim=32), tmp_path / "policy")
    out = tmp_path / "film.mp4"
    common = ["env=blockfind", "env.options.horizon=4", "episodes=2", "size=64"]
    assert main([*common, f"policy={policy}", f"out={out}"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["seed 0", "seed 1"]
    frames, _ = film_of(out)
    assert frames.shape[1:] == (64 + 34, 64, 3)
    assert 2 * (30 + 1) <= len(frames) <= 2 * (30 + 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cameras=[frnt]"], r"camera: unknown name 'frnt'; did you mean 'front'"),
        (["cameras=[]"], r"cameras is \[\] \(allowed: names"),
        (["cameras=[front,front]"], "each once"),
        (["fps=51"], r"fps=51 \(allowed: 1 to 50"),
        (["fps=0"], "fps=0"),
        (["size=7"], "size is 7"),
        (["size=big"], "size is 'big'"),
        (["episodes=0"], "episodes=0"),
        (["out=x/film.avi"], r"allowed: a name that ends in \.mp4"),
        (["policy=nowhere"], "nowhere: does not exist"),
        (["env=blockfind", "cameras=[head]"], r"unknown name 'head'.*allowed: top"),
        (["env.options.horizon=0"], "horizon is 0"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(arguments, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TandemError, match=words) as caught:
        main(["env=h1_reach", "out=x/film.mp4", *arguments])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_breaks_midway_leaves_nothing(monkeypatch, tmp_path):
    from tandem_sim.performing import Performance

    whole = Performance.play

    def broken(self, seed):
        for instant in whole(self, seed):
            if instant.step == 1:
                raise KeyboardInterrupt
            yield instant

    monkeypatch.setattr(Performance, "play", broken)
    with pytest.raises(KeyboardInterrupt):
        main(["env=blockfind", f"out={tmp_path / 'a' / 'b' / 'film.mp4'}"])
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_left_alone(tmp_path):
    (tmp_path / "mine.mp4").write_text("mine")
    with pytest.raises(TandemError, match=r"mine\.mp4 exists \(allowed: a new file\)"):
        main(["env=blockfind", f"out={tmp_path / 'mine.mp4'}"])
    assert (tmp_path / "mine.mp4").read_text() == "mine"
