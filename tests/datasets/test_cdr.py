import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.cdr import parse_definition
from tandem_datasets.formats.ros_messages import IMAGE, TRAJECTORY, definition, definition_text

MIXED = """\
# a comment
uint8 ONE=1
string WORD="a # no comment"
bool flag
int64 big 7
string<=8 name "x#y"
float32[3] three
Inner[] many
uint16[<=4] some
============================================
MSG: test_msgs/Inner
int8 a
float64 b
Empty nothing
===
MSG: test_msgs/msg/Empty
"""
VALUES = {
    "flag": True,
    "big": -5,
    "name": "Würfel",
    "three": [1, 2, 3],
    "many": [{"a": -1, "b": 0.5}, {"a": 2, "b": 1.5}],
    "some": [7, 8],
}


@pytest.fixture
def mixed():
    return parse_definition("test_msgs/msg/Mixed", MIXED, "test")


def test_what_is_encoded_is_decoded(mixed):
    found = mixed.decode(mixed.encode(VALUES), "test")
    assert found["many"] == [inner | {"nothing": {}} for inner in VALUES["many"]]
    for key in ("flag", "big", "name"):
        assert found[key] == VALUES[key]
    assert found["three"].tolist() == [1, 2, 3]
    assert found["some"].dtype == np.uint16


def test_rosbags_reads_and_writes_the_same_bytes():
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.EMPTY)
    text = definition_text(TRAJECTORY)
    types.register(get_types_from_msg(text, "trajectory_msgs/msg/JointTrajectory"))
    values = {
        "header": {"stamp": {"sec": 3, "nanosec": 9}, "frame_id": "expert"},
        "joint_names": ["a", "bcd"],
        "points": [{"positions": [1.0, 2.0], "effort": [3.0], "time_from_start": {"sec": 1}}],
    }
    data = definition(TRAJECTORY).encode(values)
    message = types.deserialize_cdr(data, "trajectory_msgs/msg/JointTrajectory")
    assert message.points[0].positions.tolist() == [1.0, 2.0]
    assert bytes(types.serialize_cdr(message, "trajectory_msgs/msg/JointTrajectory")) == data
    turned = bytes(types.serialize_cdr(message, "trajectory_msgs/msg/JointTrajectory", little_endian=False))
    assert definition(TRAJECTORY).decode(turned, "test")["points"][0]["effort"].tolist() == [3.0]


def test_every_cut_of_a_message_is_refused(mixed):
    data = mixed.encode(VALUES)
    for size in range(len(data)):
        with pytest.raises(TandemError, match=r"cut short|begins with"):
            mixed.decode(data[:size], "test")


def test_a_length_beyond_the_data_takes_no_memory():
    data = bytearray(definition(IMAGE).encode({"data": np.zeros(4, np.uint8)}))
    data[-8:-4] = b"\xff\xff\xff\xff"
    with pytest.raises(TandemError, match="cut short: 4294967295 bytes"):
        definition(IMAGE).decode(data, "test")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os", "lacks test_msgs/import"),
        ("uint8 x; y", "has the line 'uint8 x; y'"),
        ("this is no field", "lacks test_msgs/this"),
        ("Top again", "contains itself"),
        ("wstring x", "wstring"),
        ("uint8[0] x", "length 0"),
        ("uint8", "has the line 'uint8'"),
        ("uint8 x\n====\nno head", "without 'MSG: type'"),
        ("x" * (1 << 20 | 1), "1048577 characters"),
    ],
)
def test_bad_definitions_are_refused(text, told):
    with pytest.raises(TandemError, match=told):
        parse_definition("test_msgs/Top", text, "test")


def test_a_web_of_types_is_checked_in_time():
    layers = "".join(f"===\nMSG: p/T{k}\n" + "".join(f"p/T{k + 1} f{i}\n" for i in range(9)) for k in range(25))
    parse_definition("p/Top", f"p/T0 x\n{layers}===\nMSG: p/T25\nuint8 x\n", "test")


def test_other_encapsulations_are_refused(mixed):
    with pytest.raises(TandemError, match="begins with 0007"):
        mixed.decode(b"\0\x07\0\0" + bytes(64), "test")
