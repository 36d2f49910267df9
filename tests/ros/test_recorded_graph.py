"""What ``ros2 bag record`` would keep of a live graph comes back as the frames that the recorder makes."""

from dataclasses import replace

import numpy as np
from rclpy.serialization import serialize_message

from tandem_datasets.formats.bag_episodes import ContractSource
from tandem_datasets.formats.mcap_journal import McapJournal
from tandem_datasets.formats.ros_messages import DIAGNOSTICS, IMAGE, JOINT_STATE, TRAJECTORY, Messages
from tandem_datasets.frames import Source
from tandem_datasets.wire import StepOutcome
from tandem_ros.messages import Translator
from tandem_ros.streams import FrameMatcher

BEGIN = 1_700_000_000_000_000_000
RECEIVED = 40_000_000_000  # the clock of whoever recorded it, which has nothing to do with the stamps


def sent(arm, make_frame, frames):
    """(topic, type, message) of frames, in an order in which they may arrive; the depth camera has half the rate."""
    live, rng = Translator(arm), np.random.default_rng(0)
    depth = None
    for k in range(frames):
        frame = make_frame(arm, rng, BEGIN + k * arm.period_ns)
        seen, stamp = frame.observation, frame.observation.stamp_ns
        messages = [
            ("state", JOINT_STATE, live.state(seen.state, stamp, f"task {k // 3}")),
            ("joint_states", JOINT_STATE, live.joint_states(seen.state, stamp - 7)),
            ("camera/wrist/image_raw", IMAGE, live.image(arm.cameras[0], seen.images["wrist"], stamp - 5)),
            ("action/label", TRAJECTORY, live.chunk(frame.label[None], stamp, Source.EXPERT)),
            ("action", TRAJECTORY, live.chunk(frame.action[None], stamp, frame.source)),
            ("action/requested", TRAJECTORY, live.chunk(frame.requested[None], stamp, frame.source)),
            ("step", JOINT_STATE, live.step(StepOutcome(float(k), k == frames - 1, False, False), stamp)),
        ]
        if k % 2 == 0:
            depth = ("camera/depth/image_raw", IMAGE, live.image(arm.cameras[1], seen.images["depth"], stamp))
            messages.insert(int(rng.integers(3)), depth)
        yield from messages


def matched(arm, messages, begin_ns):
    live = Translator(arm)
    matcher = FrameMatcher(arm, begin_ns, wants_label=True)
    for topic, _, message in messages:
        if topic == "state":
            matcher.put_state(*live.read_state(message))
        elif topic == "joint_states":
            matcher.put_joints(*live.read_joint_states(message))
        elif topic.startswith("camera"):
            camera = arm.camera(topic.split("/")[1])
            matcher.put_image(camera.name, *live.read_image(camera, message))
        elif topic == "step":
            matcher.put_step(*live.read_step(message))
        else:
            put = {"action": matcher.put_action, "action/requested": matcher.put_requested}
            put.get(topic, matcher.put_label)(live.read_chunk(message, topic))
    return matcher.take()


def test_a_recorded_graph_gives_the_recorders_frames(tmp_path, arm, make_frame):
    arm = replace(arm, cameras=(arm.cameras[0], replace(arm.cameras[1], rate_hz=arm.rate_hz / 2)))
    messages = list(sent(arm, make_frame, 8))
    told = {
        "uuid": "5b1d8c52-6b0f-5a0e-9d0e-3a5f3c1e7a11",
        "seed": 6,
        "instruction": "task 0",
        "env": "Arm-v0",
        "begin_ns": BEGIN - 10,
        "end_ns": BEGIN + 7 * arm.period_ns,
        "outcome": "dropped",
        "success": False,
    }
    facts = Messages(arm)
    with McapJournal(tmp_path / "bag") as journal:
        journal.write("/left/episode", DIAGNOSTICS, facts.episode("running", {**told, "end_ns": 0}, 0), RECEIVED)
        for k, (topic, kind, message) in enumerate(messages):
            journal.write(f"/left/{topic}", kind, serialize_message(message), RECEIVED + k)
        journal.write("/left/episode", DIAGNOSTICS, facts.episode("dropped", told, 0), RECEIVED + 10**9)
    source = ContractSource(str(tmp_path / "bag"), embodiment=arm)
    assert source.n_episodes == 1
    info, frames = source.episode(0)
    assert (info.seed, info.outcome, info.env, info.success) == (6, "dropped", "Arm-v0", False)
    found, expected = list(frames), matched(arm, messages, BEGIN - 10)
    assert len(found) == len(expected) == 8
    for a, b in zip(found, expected, strict=True):
        seen, shown = a.observation, b.observation
        assert (seen.stamp_ns, seen.instruction) == (shown.stamp_ns, shown.instruction)
        assert dict(seen.stream_stamps_ns) == dict(shown.stream_stamps_ns)
        assert seen.state.tobytes() == shown.state.tobytes()
        for name, pixels in shown.images.items():
            np.testing.assert_array_equal(seen.images[name], pixels)
        for key in ("action", "requested", "label"):
            assert getattr(a, key).tobytes() == getattr(b, key).tobytes()
        for key in ("source", "reward", "terminated", "truncated", "success"):
            assert getattr(a, key) == getattr(b, key)
    lost = [item for item in messages if item is not [each for each in messages if each[0] == "step"][3]]
    with McapJournal(tmp_path / "lost") as journal:  # nobody told of episodes, and a message was lost
        for k, (topic, kind, message) in enumerate(lost):
            journal.write(f"/left/{topic}", kind, serialize_message(message), RECEIVED + k)
    source = ContractSource(str(tmp_path / "lost"), embodiment=arm)
    info, frames = source.episode(0)
    assert (source.n_episodes, info.end_ns, info.provenance["missing_frames"]) == (1, BEGIN + 7 * arm.period_ns, 1)
    assert [frame.reward for frame in frames] == [0, 1, 2, 4, 5, 6, 7]
