"""The simulated robot behind its gate does what a rollout in one process does, bit for bit."""

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.rollout import EnvSpec
from tandem_ros.gate import Chunk
from tandem_ros.robot import SimulatedRobot
from tandem_sim import registry
from tandem_sim.episodes import Episode

SPEC = EnvSpec("tandem/BlockFind-v0", {"wordings": "varied"})


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and a.tobytes() == b.tobytes())


@pytest.mark.parametrize("seed", range(3))
def test_executes_the_same_as_an_episode_in_process(seed):
    rng = np.random.default_rng(seed)
    robot = SimulatedRobot(registry.make(SPEC), labels=True)
    period = robot.embodiment.period_ns
    episode = Episode(registry.make(SPEC), SPEC.id, seed)
    robot.reset(seed, 5 * period)
    while not episode.done:
        asked = rng.normal(0, 0.8, 2).astype(np.float32)  # often over the limits
        label = episode.expert_action()
        expected = episode.step(asked, Source.POLICY, label)
        stamp = robot.observation.stamp_ns
        assert not robot.answered()
        robot.gate.offer(Chunk(stamp, asked[None], Source.POLICY))
        assert robot.answered()
        frame = robot.step(stamp + period)
        assert stamp == expected.observation.stamp_ns + 5 * period
        assert same(frame.observation.images["top"], expected.observation.images["top"])
        assert same(frame.observation.state, expected.observation.state)
        assert frame.observation.instruction == expected.observation.instruction
        for part in ("action", "requested", "label"):
            assert same(getattr(frame, part), getattr(expected, part)), part
        for part in ("reward", "terminated", "truncated", "success", "source"):
            assert getattr(frame, part) == getattr(expected, part), part
    info = episode.info(5 * period)
    stats = robot.stats
    assert robot.is_over
    assert (stats.outcome, stats.success, stats.steps) == (info.outcome, info.success, len(episode.frames))
    assert (stats.begin_ns, stats.end_ns, stats.instruction) == (info.begin_ns, info.end_ns, info.instruction)


def test_the_expert_asks_like_a_policy():
    robot = SimulatedRobot(registry.make(SPEC), expert_acts=True)
    robot.reset(0, 0)
    while robot.observation is not None:
        frame = robot.step(robot.observation.stamp_ns + robot.embodiment.period_ns)
        assert frame.source is Source.EXPERT
    assert robot.stats.success


def test_a_changed_instruction_holds_from_the_next_observation_to_the_episodes_end():
    robot = SimulatedRobot(registry.make(SPEC))
    first = robot.reset(0, 0)
    robot.instruct("never mind")
    assert robot.observation.instruction == first.instruction
    frame = robot.step(robot.embodiment.period_ns)
    assert frame.observation.instruction == first.instruction
    assert robot.observation.instruction == "never mind"
    assert robot.reset(1, 10**9).instruction != "never mind"


def test_an_episode_can_begin_later_than_it_was_reset():
    robot = SimulatedRobot(registry.make(SPEC), expert_acts=True)
    robot.reset(0, 0)
    assert robot.restamp(10**9).stamp_ns == 10**9
    assert robot.step(2 * 10**9).source is Source.EXPERT
    assert robot.stats.begin_ns == 10**9


def test_an_environment_without_expert_has_no_labels():
    env = registry.make(SPEC)

    class NoExpert:
        unwrapped = type("Bare", (), {"embodiment": env.unwrapped.embodiment})()

    with pytest.raises(TandemError, match="no expert"):
        SimulatedRobot(NoExpert(), labels=True)
