import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tandem_datasets.embodiment import ActionKind, Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_ros.gate import Chunk, ControlGate, Count


def chunk(stamp: int, *rows: tuple[float, ...], source: Source = Source.POLICY) -> Chunk:
    return Chunk(stamp, np.array(rows, np.float32), source)


@pytest.fixture
def gate(blockfind: Embodiment) -> ControlGate:
    gate = ControlGate(blockfind)
    gate.observe(0, np.zeros(2, np.float32))
    return gate


@pytest.fixture
def tick(blockfind: Embodiment) -> int:
    return blockfind.period_ns


def at(gate: ControlGate, stamp: int) -> None:
    gate.observe(stamp, np.zeros(2, np.float32))


def test_executes_the_answer_within_limits_and_keeps_what_was_asked(gate):
    assert not gate.answered(0)
    assert gate.offer(chunk(0, (0.25, -3.0)))
    assert gate.answered(0)
    decision = gate.decide(0)
    assert decision.action.tolist() == [0.25, -1.0]
    assert decision.requested.tolist() == [0.25, -3.0]
    assert decision.source is Source.POLICY
    assert gate.counts[Count.CLIPPED] == 1


def test_holds_when_nobody_answers(gate):
    decision = gate.decide(0)
    assert decision.action.tolist() == [0.0, 0.0]
    assert decision.requested is None
    assert decision.source is Source.HOLD
    assert gate.counts[Count.STARVED] == 1


def test_plays_the_point_of_an_older_chunk_that_belongs_to_the_tick(gate, tick):
    gate.offer(chunk(0, (0.1, 0), (0.2, 0), (0.3, 0)))
    at(gate, 2 * tick)
    assert gate.decide(2 * tick).action[0] == np.float32(0.3)
    assert gate.decide(3 * tick).source is Source.HOLD


def test_in_lockstep_only_the_answer_to_the_very_observation_counts(blockfind, tick):
    gate = ControlGate(blockfind, lockstep=True)
    at(gate, 0)
    gate.offer(chunk(0, (0.1, 0), (0.2, 0)))
    assert gate.decide(0).source is Source.POLICY
    at(gate, tick)
    assert not gate.answered(tick)
    assert not gate.offer(chunk(0, (0.1, 0), (0.2, 0), (0.3, 0)))
    assert gate.decide(tick).source is Source.HOLD


def test_nonsense_now_also_withdraws_what_was_said_before(gate, tick):
    gate.offer(chunk(0, (0.1, 0), (0.2, 0)))
    at(gate, tick)
    gate.offer(chunk(tick, (np.nan, 0)))
    assert gate.decide(tick).source is Source.HOLD


def test_drops_and_counts_what_comes_too_late_twice_or_too_early(gate, tick):
    at(gate, 5 * tick)
    assert gate.offer(chunk(4 * tick, (0, 0), (0, 0)))
    assert not gate.offer(chunk(4 * tick, (1, 1), (1, 1)))
    assert not gate.offer(chunk(3 * tick, (1, 1), (1, 1), (1, 1)))
    assert not gate.offer(chunk(6 * tick, (1, 1)))
    at(gate, 9 * tick)
    assert not gate.offer(chunk(8 * tick, (1, 1)))
    assert gate.counts == {
        Count.ACCEPTED: 1, Count.DUPLICATED: 1, Count.OUT_OF_ORDER: 1, Count.FUTURE: 1, Count.STALE: 1,
    }  # fmt: skip


def test_what_is_from_before_the_episode_is_stale(gate, tick):
    gate.begin(10 * tick)
    at(gate, 10 * tick)
    assert not gate.offer(chunk(9 * tick, (1, 1), (1, 1)))
    assert gate.counts == {Count.STALE: 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_the_whole_chunk_if_one_number_is_not_finite(gate, bad):
    assert not gate.offer(chunk(0, (0.5, 0.5), (bad, 0)))
    assert gate.answered(0), "lock-step must not wait for a better answer"
    assert gate.decide(0).source is Source.HOLD
    assert gate.counts[Count.NOT_FINITE] == 1
    assert "not_finite" in gate.complaint


@pytest.mark.parametrize("points", [np.zeros((1, 3), np.float32), np.zeros((0, 2), np.float32), np.zeros((1, 2))])
def test_refuses_another_size_or_type(gate, points):
    assert not gate.offer(Chunk(0, points, Source.POLICY))
    assert gate.counts[Count.MALFORMED] == 1


def test_a_person_comes_before_the_policy_and_lets_go_slowly(gate, tick):
    gate.offer(chunk(0, *[(0.5, 0)] * 30))
    gate.offer(chunk(0, (-0.5, 0), source=Source.PERSON))
    assert gate.decide(0).source is Source.PERSON
    at(gate, tick)
    assert gate.decide(tick).source is Source.HOLD, "the person has only just let go"
    at(gate, 8 * tick)
    assert gate.decide(8 * tick).source is Source.POLICY


def test_absolute_targets_hold_where_they_are(arm):
    gate = ControlGate(arm)
    gate.observe(0, np.array([0.5, 0, -0.25, 0, 0, 0.75], np.float32))
    assert gate.decide(0).action.tolist() == [0.5, -0.25, 0.0]
    gate.executed(np.array([0.6, -0.2, 0.3], np.float32))
    assert gate.decide(arm.period_ns).action.tolist() == pytest.approx([0.6, -0.2, 0.0])


def test_nothing_to_hold_is_an_error(arm):
    gate = ControlGate(arm)
    with pytest.raises(TandemError, match="nothing to hold for 'elbow'"):
        gate.decide(0)


def test_a_rate_limit_holds_a_target_back(arm):
    gate = ControlGate(arm)
    gate.observe(0, np.zeros(6, np.float32))
    gate.offer(Chunk(0, np.array([[2.0, 2.0, 0.0]], np.float32), Source.POLICY))
    assert gate.decide(0).action.tolist() == pytest.approx([4.0 / 20, 2.0, 0.0])


def test_chunk_relative_actions_are_only_played_on_their_own_observation(blockfind, tick):
    scalars = tuple(dataclasses.replace(s, kind=ActionKind.DELTA_OBSERVATION) for s in blockfind.action)
    gate = ControlGate(dataclasses.replace(blockfind, action=scalars))
    at(gate, 0)
    gate.offer(chunk(0, (0.5, 0), (0.5, 0)))
    assert gate.decide(0).source is Source.POLICY
    assert gate.decide(tick).source is Source.HOLD


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
CHUNKS = st.tuples(
    st.integers(-2, 8),
    hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 4)), elements=FLOATS),
    st.sampled_from(list(Source)),
)


@given(st.lists(st.one_of(CHUNKS, st.none()), max_size=20), st.booleans())
def test_never_lets_anything_through_that_is_not_finite_and_within_limits(arm, stream, is_arm):
    from tandem_sim.blockfind.task import EMBODIMENT

    embodiment = arm if is_arm else EMBODIMENT
    gate = ControlGate(embodiment)
    state = np.zeros(embodiment.state_dim, np.float32)
    gate.observe(0, state)
    tick, previous = 0, np.zeros(embodiment.action_dim)
    for item in stream:
        if item is not None:
            gate.offer(Chunk(item[0] * embodiment.period_ns, item[1], item[2]))
            continue
        action = gate.decide(tick * embodiment.period_ns).action
        assert action.dtype == np.float32
        assert np.isfinite(action).all()
        assert (action >= embodiment.action_low).all()
        assert (action <= embodiment.action_high).all()
        if is_arm:
            assert abs(action[0] - previous[0]) <= 4.0 / 20 + 1e-6, "rate limit"
        previous = action
        tick += 1
        gate.observe(tick * embodiment.period_ns, state)
