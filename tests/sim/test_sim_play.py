"""Playing through the real command on a real pseudo-terminal, and its parts."""

import io
import re
import signal
import sys

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.rollout import EnvSpec
from tandem_datasets.store import Store
from tandem_sim import registry
from tandem_sim.pictures import enlarge
from tandem_sim.play import Event, play
from tandem_sim.terminal import half_blocks
from tandem_training.commands.play import main

SPEC = EnvSpec("tandem/BlockFind-v0")


def route(seed):
    """Keys that bring the agent from its start to the named block: whole steps, then quarters."""
    env = registry.make(SPEC)
    env.reset(seed=seed)
    gap = env.unwrapped.layout.goal - env.unwrapped.layout.start
    keys = ""
    for axis, (less, more) in enumerate((("a", "d"), ("w", "s"))):
        quarters = round(abs(float(gap[axis])) * 4)
        key = more if gap[axis] > 0 else less
        keys += key * (quarters // 4) + key.upper() * (quarters % 4)
    return keys


def test_a_person_finds_the_block_in_a_terminal_and_it_is_stored(on_terminal, tmp_path):
    player = on_terminal("play", "seed=3", "episodes=2", f"record={tmp_path / 'mine'}")
    player.until("find the green block")
    player.until("step 0")
    player.press(route(3))
    player.until("success after")
    player.press(" ")
    player.until("1 of 1 found so far")
    player.press("q")
    assert player.end() == 0
    assert "1 episodes played, 1 successful; stored in" in player.said
    store = Store(tmp_path / "mine")
    assert store.n_episodes == 1
    assert store.info(0).success
    assert store.info(0).seed == 3
    frames = store.frames(0)
    assert {frame.source for frame in frames} == {Source.PERSON}
    assert len(frames) <= len(route(3))


def test_arrows_are_read_from_their_escape_sequences(on_terminal, tmp_path):
    player = on_terminal("play", "seed=3", "env.options.horizon=5", "episodes=1", f"record={tmp_path / 'mine'}")
    player.until("step 0")
    player.press("\x1b[A\x1b[B\x1bOC\x1b[1;2D\x1b[5~\x1b[1;2A")
    player.until("after 5 steps")
    player.press("\x1b")  # escape alone
    assert player.end() == 0
    asked = Store(tmp_path / "mine").load("action_requested")
    assert asked.tolist() == [[0, -1], [0, 1], [1, 0], [-0.25, 0], [0, -0.25]]


def test_an_interrupt_leaves_the_terminal_as_it_was(on_terminal):
    player = on_terminal("play", "seed=3")
    player.until("step 0")
    player.process.send_signal(signal.SIGINT)
    assert player.end() == 130
    assert "interrupted" in player.said


def test_a_display_that_cannot_be_opened_leaves_the_terminal(on_terminal):
    player = on_terminal("play", "seed=3", DISPLAY=":47")
    player.until("step 0")
    player.press("q")
    assert player.end() == 0


def test_a_terminal_without_colours_is_refused(on_terminal):
    player = on_terminal("play", "seed=3", TERM="dumb")
    player.until("error: tandem play: there is neither a display nor a terminal")
    assert player.process.wait(20) == 2


def test_half_an_episode_is_no_count():
    with pytest.raises(TandemError, match=r"episodes=1\.5 \(allowed: a whole number from 1\)"):
        main(["episodes=1.5"])


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("auto", "neither a display nor a terminal"),
        ("terminal", "not both a terminal"),
        ("window", "no display"),
        ("windo", "did you mean 'window'"),
    ],
)
def test_without_terminal_and_display_there_is_one_clear_line(view, words, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(TandemError, match=words) as caught:
        main([f"view={view}"])
    assert "\n" not in str(caught.value)


class Clicker:
    """A person who clicks on a point of the picture, again and again."""

    def __init__(self, at):
        self.at = at
        self.shown = []

    def show(self, image, lines):
        self.shown.append(lines)

    def wait(self):
        return Event("click", self.at)


def test_clicks_lead_to_where_they_point():
    env = registry.make(SPEC)
    env.reset(seed=3)
    clicker = Clicker(tuple(env.unwrapped.layout.goal / 8))
    (info,) = play(SPEC, clicker, seed=3, episodes=1)
    assert info.success
    assert clicker.shown[0][:2] == ["find the green block", "step 0"]
    assert clicker.shown[-1][1].startswith("success after")


def test_what_cannot_be_steered_is_refused():
    class Unsteered(registry.gymnasium.Env):
        embodiment = registry.embodiment(SPEC)

    registry.gymnasium.register("test/Unsteered-v0", entry_point=Unsteered)
    try:
        with pytest.raises(TandemError, match="cannot steer"):
            play(EnvSpec("test/Unsteered-v0"), Clicker((0, 0)), seed=0)
    finally:
        del registry.gymnasium.registry["test/Unsteered-v0"]


def test_half_blocks_show_every_pixel_where_there_is_room():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    rows = half_blocks(image, 100, 40)
    assert len(rows) == 32
    found = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\u2580", "".join(rows))
    pairs = np.array(found, np.uint8).reshape(32, 64, 2, 3).transpose(0, 2, 1, 3).reshape(64, 64, 3)
    assert (pairs == image).all()
    assert len(half_blocks(image, 80, 20)) == 20
    assert len(half_blocks(image, 300, 70)) == 64


def test_enlarged_pictures_carry_all_captions():
    view = enlarge(np.zeros((64, 32, 3), np.uint8), 64, ["one", "two"])
    assert view.shape == (128 + 2 * 48, 64, 3)
    assert view[128:176].max() > 200
    assert view[176:].max() > 200
