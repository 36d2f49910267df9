import itertools

import numpy as np
import pytest

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.frames import Source
from tandem_datasets.wire import StepOutcome
from tandem_ros.gate import Chunk
from tandem_ros.messages import Translator
from tandem_ros.streams import FrameMatcher, ObservationMatcher, Stream, TickQueue

MS = 1_000_000


def test_a_stream_gives_the_newest_message_at_or_before_the_tick():
    stream = Stream(period_ns=100 * MS, tick_ns=33 * MS)
    stream.put(100 * MS, "b")
    stream.put(0, "a")
    assert stream.at(0) == (0, "a")
    assert stream.at(66 * MS) == (0, "a")
    assert stream.at(99 * MS) is None, "at that age, a newer one is due"
    assert stream.at(133 * MS) == (100 * MS, "b")
    assert stream.at(-1) is None
    assert stream.forget_before(100 * MS) == 1
    assert stream.at(66 * MS) is None


def test_a_stream_keeps_the_last_of_two_with_one_stamp_and_forgets_the_oldest():
    stream = Stream(10, 10, depth=2)
    for stamp in (10, 20, 20, 30):
        stream.put(stamp, stamp)
    stream.put(30, "again")
    assert stream.at(30) == (30, "again")
    assert stream.at(10) is None
    assert stream.at(20) == (20, 20)


def puts(embodiment: Embodiment, frame, stamp: int) -> dict:
    """What has to be put into a matcher for one frame, by stream."""
    translator, seen = Translator(embodiment), frame.observation
    state = translator.read_state(translator.state(seen.state, stamp, seen.instruction))
    joints = translator.read_joint_states(translator.joint_states(seen.state, stamp))
    calls = {
        "state": lambda m: m.put_state(*state),
        "joints": lambda m: m.put_joints(*joints),
    }
    for camera in embodiment.cameras:
        calls[camera.name] = lambda m, name=camera.name: m.put_image(name, stamp, seen.images[name])
    return calls


def frame_puts(embodiment: Embodiment, frame, stamp: int) -> dict:
    outcome = StepOutcome(frame.reward, frame.terminated, frame.truncated, frame.success)
    return puts(embodiment, frame, stamp) | {
        "action": lambda m: m.put_action(Chunk(stamp, frame.action[None], frame.source)),
        "requested": lambda m: m.put_requested(Chunk(stamp, frame.requested[None], frame.source)),
        "label": lambda m: m.put_label(Chunk(stamp, frame.label[None], Source.EXPERT)),
        "step": lambda m: m.put_step(stamp, outcome),
    }


def test_an_observation_is_complete_in_whatever_order_its_parts_come(arm, make_frame):
    frame = make_frame(arm, np.random.default_rng(0), 7)
    calls = puts(arm, frame, 7)
    for order in itertools.permutations(calls):
        matcher = ObservationMatcher(arm)
        ticks = TickQueue(matcher)
        for count, name in enumerate(order, 1):
            calls[name](matcher)
            if name == "state":
                ticks.add(7)
            assert bool(found := ticks.take()) == (count == len(order))
        assert found[0].state.tobytes() == frame.observation.state.tobytes()
        assert found[0].instruction == "go"
        assert found[0].stream_stamps_ns == {"state": 7, "wrist": 7, "depth": 7}


def test_a_slow_camera_keeps_its_own_stamp(arm, make_frame):
    import dataclasses

    slow = dataclasses.replace(arm.cameras[0], rate_hz=10.0)
    half = dataclasses.replace(arm, cameras=(slow,))
    matcher, tick = ObservationMatcher(half), half.period_ns
    rng = np.random.default_rng(0)
    frames = [make_frame(half, rng, k * tick) for k in range(3)]
    for k, frame in enumerate(frames):
        for name, call in puts(half, frame, k * tick).items():
            if name != "wrist" or k == 0:
                call(matcher)
    assert matcher.at(tick).stream_stamps_ns == {"state": tick, "wrist": 0}
    assert matcher.at(2 * tick) is None, "its next image is due"
    puts(half, frames[2], 2 * tick)["wrist"](matcher)
    assert matcher.at(2 * tick).stream_stamps_ns["wrist"] == 2 * tick


def episode(arm, make_frame, count: int, begin: int = 1000):
    rng = np.random.default_rng(3)
    stamps = [begin + k * arm.period_ns for k in range(count)]
    return stamps, [make_frame(arm, rng, stamp) for stamp in stamps]


@pytest.mark.parametrize("seed", range(5))
def test_frames_come_out_in_order_from_any_order_of_arrival(arm, make_frame, seed):
    stamps, frames = episode(arm, make_frame, 4)
    pairs = zip(stamps, frames, strict=True)
    calls = [call for stamp, frame in pairs for call in frame_puts(arm, frame, stamp).values()]
    np.random.default_rng(seed).shuffle(calls)
    matcher = FrameMatcher(arm, begin_ns=1000, wants_label=True)
    for call in calls:
        call(matcher)
    taken = matcher.take()
    assert [frame.observation.stamp_ns for frame in taken] == stamps
    assert matcher.is_complete(stamps[-1])
    assert not matcher.is_complete(stamps[-1] + arm.period_ns)
    assert matcher.take_rest(stamps[0], stamps[-1]) == ([], [])
    for mine, theirs in zip(taken, frames, strict=True):
        assert mine.action.tobytes() == theirs.action.tobytes()
        assert mine.requested.tobytes() == theirs.requested.tobytes()
        assert mine.label.tobytes() == theirs.label.tobytes()
        assert mine.reward == theirs.reward


@pytest.mark.parametrize("lost", ["step", "requested", "label", "wrist", "joints"])
@pytest.mark.parametrize("where", [0, 1, 3])
def test_a_frame_of_which_something_got_lost_is_missing(arm, make_frame, lost, where):
    stamps, frames = episode(arm, make_frame, 4)
    matcher = FrameMatcher(arm, begin_ns=1000, wants_label=True)
    taken = []
    for k, (stamp, frame) in enumerate(zip(stamps, frames, strict=True)):
        for name, call in frame_puts(arm, frame, stamp).items():
            if not (name == lost and k == where):
                call(matcher)
        if where:  # an unseen begin is only known at the end
            taken += matcher.take()
    rest, missing = matcher.take_rest(stamps[0], stamps[-1])
    assert missing == [stamps[where]]
    assert [frame.observation.stamp_ns for frame in taken + rest] == [s for s in stamps if s not in missing]


def test_a_held_frame_has_no_request(arm, make_frame):
    import dataclasses

    frame = dataclasses.replace(make_frame(arm, np.random.default_rng(0), 0), source=Source.HOLD)
    calls = frame_puts(arm, frame, 0)
    matcher = FrameMatcher(arm, 0, wants_label=False)
    for name in set(calls) - {"requested", "label"}:
        calls[name](matcher)
    (taken,) = matcher.take()
    assert taken.requested is None
    assert taken.label is None


def test_what_is_from_before_the_begin_is_dropped_and_counted(arm, make_frame):
    stamps, frames = episode(arm, make_frame, 2)
    matcher = FrameMatcher(arm, begin_ns=stamps[1], wants_label=True)
    for stamp, frame in zip(stamps, frames, strict=True):
        for call in frame_puts(arm, frame, stamp).values():
            call(matcher)
    assert [frame.observation.stamp_ns for frame in matcher.take()] == stamps[1:]
    assert matcher.dropped == 8
