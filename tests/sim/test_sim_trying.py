"""Trying a policy by hand: any scene, any instruction, and a fair verdict."""

import gymnasium
import numpy as np
import pytest

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EnvSpec
from tandem_sim import registry
from tandem_sim.blockfind import task
from tandem_sim.pictures import spotlight
from tandem_sim.play import Event
from tandem_sim.trying import Tryout, converse

SPEC = EnvSpec("tandem/BlockFind-v0")


class Seeker:
    """Heads for the colour that the instruction names, by its pixels; stands still where it sees none."""

    embodiment: Embodiment = task.EMBODIMENT
    n_obs_steps, chunk_size, n_action_steps, identity, speaks = 1, 2, 2, "seeker", True

    def infer(self, histories, keys):
        return np.stack([self._chunk(history[-1]) for history in histories])

    def say(self, histories, keys):
        return [f"hears '{history[-1].instruction}'" for history in histories]

    def look(self, histories):
        return np.tile(np.eye(8, dtype=np.float32), (len(histories), 1, 1))

    def _chunk(self, seen):
        gap = np.zeros(2, np.float32)
        for name, rgb in task.PALETTE.items():
            rows, columns = np.nonzero((seen.images["top"] == rgb).all(axis=2))
            if name in seen.instruction and len(rows):
                gap = np.array([columns.mean() + 0.5, rows.mean() + 0.5], np.float32) / task.CELL_PX - seen.state
        step = gap / max(1.0, float(np.linalg.norm(gap)))
        return np.tile(step, (2, 1)).astype(np.float32)


@pytest.fixture
def tryout():
    policy = Seeker()
    with Tryout(SPEC, policy, policy.look) as made:
        made.lay_out(3)
        yield made


def test_everything_that_a_scene_suggests_can_be_asked_and_is_judged(tryout):
    assert tryout.suggestions[0] == "find the green block"
    assert len(set(tryout.suggestions)) == len(tryout.suggestions) >= 3
    for words in tryout.suggestions:
        moments = list(tryout.ask(words))
        assert tryout.verdict.startswith("success after"), words
        assert {moment.observation.instruction for moment in moments[:-1]} == {words}
        assert all(moment.words == f"hears '{words}'" for moment in moments[:-1])
        assert all(moment.attention.shape == (8, 8) for moment in moments[:-1])
        assert moments[-1].attention is None
        assert (moments[0].image == tryout.lay_out(3).images["top"]).all(), "every trial starts from the scene"


def test_own_words_for_a_block_are_judged_and_others_are_not(tryout):
    colour = tryout.suggestions[1].split()[2]
    list(tryout.ask(f"Where is that {colour.upper()} thing?"))
    assert tryout.verdict.startswith("no block after 32"), "the seeker is case-sensitive, the judge is not"
    for words in ("find the pink block", "sing", "the white or the green one"):
        list(tryout.ask(words))
        assert "not judged" in tryout.verdict, words


def test_a_policy_of_another_robot_is_refused():
    policy = Seeker()
    policy.embodiment = registry.embodiment(SPEC)
    policy.embodiment = Embodiment(**{**vars(policy.embodiment), "rate_hz": 5.0})
    with pytest.raises(TandemError, match="rate 5 Hz, not 30 Hz"):
        Tryout(SPEC, policy)


def test_asking_changes_what_counts_as_success():
    env = gymnasium.make("tandem_sim:tandem/BlockFind-v0").unwrapped
    env.reset(seed=3)
    before = env.layout
    other = next(colour for colour in before.colours if colour != before.colours[before.named])
    assert env.ask(f"go to the {other} one")
    assert (env.task_description, env.layout.colours[env.layout.named]) == (f"go to the {other} one", other)
    assert np.array_equal(env.expert_action(), task.expert(before.start, env.layout.goal))
    assert not env.ask("find the white block")
    assert env.task_description == f"go to the {other} one"
    env.reset(seed=3)
    assert env.task_description == before.instruction


class Typist:
    """A person with keys to press, one after another, then gone."""

    def __init__(self, *keys):
        self.keys = list(keys)
        self.shown = []

    def show(self, image, lines):
        assert image.shape == (64, 128, 3)
        self.shown.append(lines)

    def wait(self):
        return Event(self.keys.pop(0) if self.keys else "Escape")


def test_typing_edits_a_line_and_enter_runs_it(tryout):
    typist = Typist(*"find q", "BackSpace", *"the", "space", *"red!", "BackSpace", "Left", "Return", "Return", "Tab")
    assert converse(tryout, typist, seed=3, pause_s=0) == 2
    prompts = [lines for lines in typist.shown if len(lines) == 4]
    assert "> find the red_" in {lines[1] for lines in prompts}
    said = [lines[0] for lines in prompts]
    assert any(text.startswith("'find the red': ") for text in said)
    assert any(text.startswith("'find the green block': success") for text in said)
    assert said[-1] == "seed 4"


def test_the_spotlight_keeps_what_is_looked_at():
    image = np.full((8, 8, 3), 200, np.uint8)
    attention = np.zeros((2, 2), np.float32)
    attention[0, 1] = 0.3
    lit = spotlight(image, attention)
    assert (lit[0, 7] == 200).all()
    assert lit[7, 0].max() < 80
    assert spotlight(image, np.zeros((2, 2), np.float32)).max() < 80, "looking nowhere lights nothing"
