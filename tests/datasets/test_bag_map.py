"""Any recording by a map: a bag as a lab records it, with messages late, of different rates, and in other encodings."""

import io
import pickle
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tandem_datasets.embodiment import ActionKind, Encoding, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import open_source
from tandem_datasets.formats.bag_map import read_map
from tandem_datasets.formats.cdr import parse_definition
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.formats.mcap_journal import McapJournal
from tandem_datasets.formats.pictures import raw_picture
from tandem_datasets.formats.ros_messages import (
    COMPRESSED,
    DIAGNOSTICS,
    IMAGE,
    JOINT_STATE,
    STRING,
    definition,
    ros_name,
)

MS = 1_000_000
START = 1_700_000_000 * 1000 * MS
POSE_TEXT = """\
std_msgs/Header header
Pose pose
===
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
===
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
===
MSG: geometry_msgs/Pose
Point position
float64[4] turn
===
MSG: geometry_msgs/Point
float64 x
float64 y
"""
POSE = parse_definition("geometry_msgs/PoseStamped", POSE_TEXT, "test")
MAP = {
    "rate_hz": 10,
    "name": "lab arm",
    "cameras": {"front": "/front/compressed", "depth": {"topic": "/depth", "size": [2, 3]}},
    "state": [
        {"topic": "/joint_states", "field": "position"},
        {"topic": "/pose", "field": "pose", "prefix": "tcp", "unit": "m"},
    ],
    "action": {"topic": "/command", "field": "data", "kind": "delta_step"},
    "instruction": {"topic": "/words"},
}


def header(ms):
    ns = START + ms * MS
    return {"stamp": {"sec": ns // 10**9, "nanosec": ns % 10**9}, "frame_id": "base"}


def jpeg(value):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), value, np.uint8)).save(file, "JPEG", quality=95)
    return np.frombuffer(file.getvalue(), np.uint8)


def messages(length_ms=1000, begin_ms=0):
    """(log ms, topic, type, definition, values): joints at 50 Hz, pictures at 20 Hz logged 30 ms late, and so on."""
    for ms in range(begin_ms, begin_ms + length_ms, 20):
        names = ["b Joint", "a"] if ms % 40 else ["a", "b Joint"]  # the order changes
        values = {"header": header(ms), "name": names, "position": [ms, -ms] if names[0] == "a" else [-ms, ms]}
        yield ms, "/joint_states", JOINT_STATE, definition(JOINT_STATE), values
    for ms in range(begin_ms, begin_ms + length_ms, 50):
        values = {"header": header(ms), "format": "jpeg", "data": jpeg(ms // 10 % 250)}
        yield ms + 30, "/front/compressed", COMPRESSED, definition(COMPRESSED), values
        metres = np.full((4, 6), ms / 1000, np.float32)
        values = {"header": header(ms), "height": 4, "width": 6, "encoding": "32FC1", "step": 24,
                  "data": metres.reshape(-1).view(np.uint8)}  # fmt: skip
        yield ms + 1, "/depth", IMAGE, definition(IMAGE), values
    for ms in range(begin_ms, begin_ms + length_ms, 100):
        pose = {"position": {"x": ms / 8, "y": 1.0}, "turn": [0, 0, 0, 1]}
        yield ms, "/pose", POSE.name, POSE, {"header": header(ms), "pose": pose}
    floats = parse_definition("lab/Floats", "float32[] data", "test")
    for ms in range(begin_ms, begin_ms + length_ms, 30):
        yield ms, "/command", "lab/Floats", floats, {"data": [ms, 2 * ms]}
    yield begin_ms, "/words", STRING, definition(STRING), {"data": "pick"}
    yield begin_ms + 500, "/words", STRING, definition(STRING), {"data": "place"}


def write(path, *parts):
    with McapJournal(path) as journal:
        texts = {"lab/Floats": "float32[] data", POSE.name: POSE_TEXT, "std_msgs/Bool": "bool data"}
        for ms, topic, kind, form, values in sorted((m for part in parts for m in part), key=lambda m: m[:2]):
            journal.add_topic(topic, kind, texts.get(kind, ""))
            journal.write(topic, kind, form.encode(values), START + ms * MS)
    return str(path)


def mapped(path, **changes):
    return open_source(path, "mcap", {"map": {**MAP, **changes}})


def test_each_tick_has_the_newest_of_every_stream(tmp_path):
    source = mapped(write(tmp_path / "lab.mcap", messages()))
    body = source.embodiment
    assert (body.name, body.rate_hz, body.hears_instruction) == ("lab_arm", 10, True)
    assert [(c.name, c.shape, c.encoding) for c in body.cameras] == [
        ("front", (8, 12, 3), Encoding.RGB8),
        ("depth", (2, 3, 1), Encoding.DEPTH),
    ]
    assert [s.name for s in body.state][:4] == ["a", "b_joint", "tcp/position_x", "tcp/position_y"]
    assert {s.source for s in body.state} == {StateSource.JOINT_POSITION, StateSource.POSE}
    assert (body.state[0].low, body.state[0].high, body.state[2].unit) == (0, 980, "m")
    assert [(a.name, a.kind) for a in body.action] == [("data_0", "delta_step"), ("data_1", ActionKind.DELTA_STEP)]
    info, frames = source.episode(0)
    frames = list(frames)
    assert (info.instruction, info.begin_ns, len(frames)) == ("pick", START, 10)
    assert info.provenance["imported"]["names"]["/joint_states"] == ["a", "b Joint"]
    assert info.provenance["imported"]["gaps"] == {}
    for k, frame in enumerate(frames):
        ms, seen = 100 * k, frame.observation
        assert seen.stamp_ns == START + ms * MS
        assert seen.state[:4].tolist() == [ms, -ms, ms / 8, 1.0]
        assert frame.action.tolist() == [ms // 30 * 30, ms // 30 * 60]
        assert abs(int(seen.images["front"][0, 0, 0]) - ms // 10) <= 2
        assert set(seen.images["depth"].ravel()) == {ms}
        assert seen.instruction == ("pick" if ms < 500 else "place")
        assert frame.truncated == (k == 9)


def test_stamps_of_their_own_are_kept(tmp_path):
    path = write(tmp_path / "lab.mcap", messages())
    seen = list(mapped(path, rate_hz=16).episode(0)[1])[3].observation  # 187.5 ms
    assert (seen.stamp_ns - START) / MS == 187.5
    own = {name: (stamp - START) // MS for name, stamp in seen.stream_stamps_ns.items()}
    assert own == {"front": 150, "depth": 150, "state": 100}
    logged = next(iter(mapped(path, rate_hz=16, stamps="log").episode(0)[1])).observation
    assert logged.stamp_ns == START + 30 * MS  # when the first picture was recorded


def test_actions_may_be_taken_later(tmp_path):
    frames = list(mapped(write(tmp_path / "lab.mcap", messages()), action_lead_s=0.1).episode(0)[1])
    assert frames[2].action[0] == 300


def test_pauses_cut_and_gaps_are_counted(tmp_path):
    late = [m for m in messages(1000, 5000) if m[1] != "/front/compressed" or not 5200 <= m[0] < 5600]
    path = write(tmp_path / "lab.mcap", messages(), late)
    source = mapped(path)
    infos = [source.episode(k)[0] for k in range(source.n_episodes)]
    assert [(info.begin_ns - START) // MS for info in infos] == [0, 5000]
    assert infos[1].provenance["imported"]["gaps"] == {"/front/compressed": 1}
    assert infos[0].uuid != infos[1].uuid
    assert mapped(path).episode(1)[0].uuid == infos[1].uuid
    assert mapped(path, episodes={"gap_s": 10}).n_episodes == 1
    assert mapped(path, episodes={"each": "bag"}).n_episodes == 1


def test_a_topic_cuts(tmp_path):
    flag = parse_definition("std_msgs/Bool", "bool data", "test")
    flags = [
        (ms, "/recording", "std_msgs/Bool", flag, {"data": on}) for ms, on in ((100, True), (310, False), (600, True))
    ]
    source = mapped(write(tmp_path / "lab.mcap", messages(), flags), episodes={"topic": "/recording"})
    spans = [[(f.observation.stamp_ns - START) // MS for f in source.episode(k)[1]] for k in range(source.n_episodes)]
    assert spans == [[100, 200, 300], [600, 700, 800, 900]]


def test_the_episode_topic_cuts_and_tells(tmp_path):
    facts = {"uuid": "5b1d8c52-6b0f-5a0e-9d0e-3a5f3c1e7a11", "seed": 8, "outcome": "dropped", "begin_ns": START,
             "end_ns": START + 300 * MS}  # fmt: skip
    pairs = [{"key": key, "value": str(value)} for key, value in facts.items()]
    message = {"header": header(900), "status": [{"message": "dropped", "values": pairs}]}
    told = (900, "/episode", DIAGNOSTICS, definition(DIAGNOSTICS), message)
    source = mapped(write(tmp_path / "lab.mcap", messages(), [told]), episodes={"topic": "/episode"})
    info, frames = source.episode(0)
    assert (info.seed, info.outcome, info.uuid, len(list(frames))) == (8, "dropped", facts["uuid"], 4)


def test_a_folder_of_bags_is_imported_with_one_embodiment(tmp_path):
    for k in (10, 9):
        write(tmp_path / f"bags/take_{k}", messages(500, 1000 * k))
    source = mapped(str(tmp_path / "bags"), instruction="tidy up")
    assert [(source.episode(k)[0].begin_ns - START) // MS for k in range(2)] == [9000, 10000]
    store = import_episodes(pickle.loads(pickle.dumps(source)), tmp_path / "a.zarr")  # noqa: S301
    assert (store.n_episodes, store.n_frames, store.info(1).instruction) == (2, 10, "tidy up")
    assert store.embodiment.state[0].high == 10480


@pytest.mark.parametrize("with_definitions", [True, False])
def test_sqlite_recordings_are_read(tmp_path, with_definitions):
    base = sqlite3.connect(tmp_path / "lab_0.db3")
    base.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
    base.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)")
    if with_definitions:
        base.execute("CREATE TABLE message_definitions(topic_type, encoding, encoded_message_definition)")
    topics = {}
    point = parse_definition("geometry_msgs/Point", "float64 x\nfloat64 y\nfloat64 z", "test")
    points = [(ms, "/point", point.name, point, {"x": ms, "y": 2, "z": 3}) for ms in range(0, 1000, 100)]
    chosen = [m for m in messages() if m[1] in ("/joint_states", "/depth")]
    for ms, topic, kind, form, values in (*chosen, *points):
        if topic not in topics:
            topics[topic] = len(topics) + 1
            base.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr')", (topics[topic], topic, ros_name(kind)))
            if with_definitions and kind == point.name:
                text = "float64 x\nfloat64 y\nfloat64 z"
                base.execute("INSERT INTO message_definitions VALUES (?, 'ros2msg', ?)", (ros_name(kind), text))
        row = (topics[topic], START + ms * MS, form.encode(values))
        base.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    base.commit()
    base.close()
    plan = {
        "rate_hz": 10,
        "cameras": {"depth": "/depth"},
        "state": [MAP["state"][0]],
        "action": [{"topic": "/point", "field": "x"}],
    }
    frames = list(open_source(str(tmp_path), "mcap", {"map": plan}).episode(0)[1])
    assert [frame.action[0] for frame in frames] == [100 * k for k in range(10)]
    assert frames[3].observation.images["depth"].shape == (4, 6, 1)


def test_a_map_may_be_a_file(tmp_path):
    path = write(tmp_path / "lab.mcap", messages())
    (tmp_path / "map.yaml").write_text(
        "rate_hz: 5\nstate:\n  - {topic: /joint_states, field: 'position[1]', names: [second]}\n"
        "action: {topic: /command, field: data}\n"
    )
    source = open_source(path, "mcap", {"map": str(tmp_path / "map.yaml")})
    assert [scalar.name for scalar in source.embodiment.state] == ["second"]
    (tmp_path / "map.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(TandemError, match="no yaml"):
        open_source(path, "mcap", {"map": str(tmp_path / "map.yaml")})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rate_hz": 0}, "rate_hz is 0"),
        ({"speed": 3}, "unknown name 'speed'"),
        ({"cameras": {"front": "/nothing"}}, r"no topics \['/nothing'\] .*it has: /command"),
        ({"cameras": {"front": "/command"}}, "/command is lab/Floats .*allowed: sensor_msgs/Image"),
        ({"cameras": {"Front!": "/depth"}}, "camera 'Front!'"),
        ({"cameras": {"front": {"topic": "/depth", "size": [0, 4]}}}, "size is"),
        ({"state": [{"topic": "/pose", "field": "pose.z"}]}, "no field 'z' of 'pose.z' .*it has: position, turn"),
        ({"state": [{"topic": "/pose", "field": "pose.turn[7]"}]}, "has no element 7"),
        ({"state": [{"topic": "/pose", "field": "a b"}]}, "field 'a b'"),
        ({"state": [{"topic": "/words", "field": "data"}]}, "has 0 numbers"),
        ({"state": [MAP["state"][0], MAP["state"][0]]}, "names twice"),
        ({"state": [{**MAP["state"][0], "names": ["one"]}]}, "1 names for 2 numbers"),
        ({"action": {"topic": "/command", "field": "data", "kind": "fast"}}, "kind: unknown name 'fast'"),
        ({"episodes": {"gap_s": 1, "topic": "/x"}}, "one of gap_s, topic, each"),
        ({"instruction": 7}, "instruction is 7"),
        ({"cameras": {}, "state": []}, "neither cameras nor state"),
        ({"stamps": "mine"}, "stamps is 'mine'"),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, changes, told):
    path = write(tmp_path / "lab.mcap", messages(300))
    with pytest.raises(TandemError, match=told):
        mapped(path, **changes)


@pytest.mark.parametrize(
    ("encoding", "pixel", "expected"),
    [
        ("rgb8", [1, 2, 3], [1, 2, 3]),
        ("bgr8", [1, 2, 3], [3, 2, 1]),
        ("bgra8", [1, 2, 3, 9], [3, 2, 1]),
        ("mono8", [7], [7, 7, 7]),
        ("mono16", [1, 1], [257]),
    ],
)
def test_encodings_become_ours(encoding, pixel, expected):
    rows = np.zeros((2, 4 * len(pixel) + 5), np.uint8)  # rows may be padded
    rows[:, : 4 * len(pixel)] = pixel * 4
    message = {"encoding": encoding, "height": 2, "width": 4, "step": rows.shape[1], "is_bigendian": 0,
               "data": rows.ravel()}  # fmt: skip
    found = raw_picture(message, "test")
    assert found.shape[:2] == (2, 4)
    assert (found == expected).all()
    with pytest.raises(TandemError, match="4x3"):
        raw_picture({**message, "height": 3}, "test")


def test_the_documented_map_is_one(tmp_path):
    page = Path(__file__).parents[2] / "datasets/FORMATS.md"
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    (tmp_path / "map.yaml").write_text(block)
    found = read_map(str(tmp_path / "map.yaml"))
    assert [camera.size for camera in found.cameras] == [None, (128, 128)]
    assert (found.action[0].field, found.gap_s) == ("points[0].positions", 2.0)
