from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_sim.blockfind import task
from tandem_sim.rollout import run

SPEC = EnvSpec("tandem/BlockFind-v0")


class ColourSeeker:
    """Looks for the named colour in the image and heads for its middle; answers with chunks of three."""

    embodiment = task.EMBODIMENT
    n_obs_steps, chunk_size, n_action_steps, identity, speaks = 1, 3, 2, "seeker", False

    def __init__(self, gain=1.0):
        self.gain = gain
        self.keys = []

    def infer(self, histories, keys):
        self.keys += keys
        return np.stack([self._chunk(history[-1]) for history in histories])

    def say(self, histories, keys):
        return [""] * len(histories)

    def _chunk(self, observation):
        colour = next(rgb for name, rgb in task.PALETTE.items() if name in observation.instruction)
        rows, columns = np.nonzero((observation.images["top"] == colour).all(axis=2))
        seen = np.array([columns.mean() + 0.5, rows.mean() + 0.5], np.float32) / task.CELL_PX
        gap = seen - observation.state
        return np.tile(gap / max(1.0, np.abs(gap).max()) * self.gain, (3, 1)).astype(np.float32)


def request(policy=None, **changes):
    fields = {"env": SPEC, "policy": EXPERT if policy is None else "seeker", "episodes": 20, "seed": 40}
    return RolloutRequest(**{**fields, "load_policy": lambda: policy, **changes})


def roll(policy=None, **changes):
    told = []
    results = run(request(policy, **changes), told.append)
    assert told == results
    assert [result.index for result in results] == list(range(len(results)))
    return results


def frames_of(path):
    store = Store(path)
    return [frame for episode in range(store.n_episodes) for frame in store.frames(episode)]


def test_expert_succeeds_and_its_episodes_are_stored(tmp_path):
    results = roll(record=tmp_path / "store", label=True, provenance={"operator": "nobody"})
    assert [result.info.seed for result in results] == list(range(40, 60))
    assert all(result.info.success and result.info.outcome == "success" for result in results)
    store = Store(tmp_path / "store")
    assert store.n_episodes == 20
    assert store.n_frames == sum(result.steps for result in results)
    assert store.infos() == [result.info for result in results]
    assert store.info(3).provenance == {"policy": "expert", "operator": "nobody"}
    assert store.embodiment == task.EMBODIMENT
    for frame in frames_of(tmp_path / "store"):
        assert frame.source is Source.EXPERT
        assert (frame.label == frame.requested).all()
        np.testing.assert_allclose(frame.action, frame.requested, atol=1e-6)


def test_stamps_are_one_clock_through_all_episodes_and_later_ones(tmp_path):
    roll(record=tmp_path / "store")
    roll(record=tmp_path / "store", episodes=3)
    store, period = Store(tmp_path / "store"), task.EMBODIMENT.period_ns
    assert store.n_episodes == 23
    stamps = store.load("stamp")
    assert stamps[0] == 0
    firsts = np.concatenate([[0], store.episode_ends[:-1]])
    steps = np.diff(stamps)
    assert (np.delete(steps, firsts[1:] - 1) == period).all()
    assert (steps[firsts[1:] - 1] == 2 * period).all()  # the terminal observation has a tick of its own
    for index, info in enumerate(store.infos()):
        assert info.begin_ns == stamps[firsts[index]]
        assert info.end_ns == stamps[store.episode_ends[index] - 1]


def test_a_policy_that_looks_at_the_image_finds_the_blocks(tmp_path):
    policy = ColourSeeker()
    results = roll(policy, record=tmp_path / "store", label=True, episodes=60)
    assert np.mean([result.info.success for result in results]) > 0.9
    for result in results:
        assert len(result.latency_ms) == -(-result.steps // 2)  # every second step bears an inference
        assert min(result.latency_ms) > 0
        assert result.info.provenance["identity"] == "seeker"
    assert policy.keys == [(40 + result.index, k) for result in results for k in range(len(result.latency_ms))]
    assert {frame.source for frame in frames_of(tmp_path / "store")} == {Source.POLICY}


def test_many_environments_give_the_same_episodes_in_order(tmp_path):
    for num_envs in (1, 6, 50):
        roll(ColourSeeker(), num_envs=num_envs, record=tmp_path / f"store{num_envs}", label=True)
    stores = [Store(tmp_path / f"store{num_envs}") for num_envs in (1, 6, 50)]
    for store in stores[1:]:
        assert store.keys == stores[0].keys
        for key in store.keys:
            assert (store.load(key) == stores[0].load(key)).all(), key


def test_requests_beyond_the_limits_are_stored_as_asked_and_as_done(tmp_path):
    roll(ColourSeeker(gain=5.0), record=tmp_path / "store", episodes=3)
    frames = frames_of(tmp_path / "store")
    assert max(np.abs(frame.requested).max() for frame in frames) > 2
    for frame in frames:
        clipped = np.clip(frame.requested, -1, 1)
        assert (frame.action == task.advance(frame.observation.state, clipped)[1]).all()
    for before, after in pairwise(frames):
        if not (before.terminated or before.truncated):
            assert (task.advance(before.observation.state, before.action)[0] == after.observation.state).all()


def test_noise_moves_the_agent_and_leaves_the_label(tmp_path):
    roll(record=tmp_path / "noisy", label=True, options={"noise": 0.3}, num_envs=4)
    roll(record=tmp_path / "again", label=True, options={"noise": 0.3})
    frames = frames_of(tmp_path / "noisy")
    off = np.concatenate([frame.requested - frame.label for frame in frames])
    assert 0.2 < off.std() < 0.4
    for frame in frames:
        np.testing.assert_allclose(np.linalg.norm(frame.label), 1, rtol=1e-6)
    assert (Store(tmp_path / "again").load("action") == Store(tmp_path / "noisy").load("action")).all()


def test_stopped_half_way_the_finished_episodes_stay(tmp_path):
    def stop(result):
        if result.index == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request(record=tmp_path / "store", num_envs=3), stop)
    assert Store(tmp_path / "store").n_episodes == 5


class Broken(ColourSeeker):
    """Answers with ``chunk`` from the second inference on."""

    def __init__(self, chunk):
        super().__init__()
        self.chunk = np.asarray(chunk)

    def infer(self, histories, keys):
        return super().infer(histories, keys) if keys[0][1] < 1 else self.chunk[None]


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.full((3, 2), np.nan, np.float32), "episode with seed 41, step 2: action .* of the policy is not finite"),
        (np.zeros((3, 3), np.float32), r"chunks are float32 \(1, 3, 3\) \(allowed: float32 \(1, 3, 2\)\)"),
        (np.zeros((3, 2)), "chunks are float64"),
    ],
)
def test_a_broken_answer_names_its_place_and_nothing_of_the_episode_stays(tmp_path, chunk, words):
    with pytest.raises(TandemError, match=words):
        run(request(Broken(chunk), record=tmp_path / "store", seed=41), lambda result: None)
    assert Store(tmp_path / "store").n_episodes == 0


def test_a_policy_for_another_robot_is_refused_by_feature():
    policy = ColourSeeker()
    policy.embodiment = replace(task.EMBODIMENT, state=task.EMBODIMENT.state[:1], rate_hz=10.0)
    with pytest.raises(TandemError, match=r"policy seeker: .*rate 10 Hz, not 30 Hz.*state \(agent/x\)"):
        roll(policy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"options": {"noise": -0.1}}, "noise is -0.1"),
        ({"options": {"recovery": True}}, "recovery is True"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 2, "num_envs": 2}, "num_envs is 2 and workers 2"),
        ({"policy": "outputs/none", "load_policy": None}, "cannot be loaded in this process"),
        ({"record": Path("/dev/null/store")}, "store /dev/null/store"),
    ],
)
def test_bad_requests_are_refused(changes, words):
    with pytest.raises(TandemError, match=words):
        roll(**changes)
