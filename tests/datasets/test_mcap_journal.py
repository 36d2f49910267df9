"""Journals of killed processes, and files that lie."""

import os
import pickle
import signal
import struct
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.formats import export, open_source
from tandem_datasets.formats.bags import Bag
from tandem_datasets.formats.mcap_file import McapFile
from tandem_datasets.formats.mcap_journal import McapJournal
from tandem_datasets.formats.ros_messages import STRING, definition
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

ENDLESS = """
import json, sys
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.formats.mcap_export import _items
from tandem_datasets.formats.mcap_journal import McapJournal
from tandem_datasets.formats.ros_messages import topic_types
from tandem_datasets.store import Store

store = Store(sys.argv[1])
types = {"/" + topic: kind for topic, kind in topic_types(store.embodiment).items()}
metadata = {"tandem": {"embodiment": json.dumps(store.embodiment.to_dict())}}
journal = McapJournal(sys.argv[2], flush_s=0.0, metadata=metadata)
for item in list(_items(store, "/", (0, 1000)))[:-1]:  # it dies before the episode's end is told
    journal.write(item.topic, types[item.topic], item.data, item.log_ns, item.publish_ns)
    print(item.topic, flush=True)
sys.stdin.read()
"""


@contextmanager
def one_line():
    """Lets nothing through but an error of one line."""
    try:
        yield
    except TandemError as error:
        told = str(error)
        assert "\n" not in told


@pytest.fixture
def store(tmp_path, embodiment, make_frames) -> Store:
    with Recorder(tmp_path / "a.zarr", embodiment) as recorder:
        recorder.write_episode(EpisodeInfo(4, "find"), make_frames(embodiment, 20))
    return Store(tmp_path / "a.zarr")


@pytest.fixture
def recording(tmp_path, store):
    """An uncompressed recording in one chunk."""
    return export(store, "mcap", tmp_path / "a.mcap", options={"compression": "none"})


def test_a_killed_journal_keeps_every_whole_frame(tmp_path, store, assert_same_frames):
    command = [sys.executable, "-c", ENDLESS, str(store.path), str(tmp_path / "journal")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        steps = 0
        for line in writer.stdout:
            steps += line.strip() == "/step"
            if steps == 12:
                break
        writer.send_signal(signal.SIGKILL)
    file = tmp_path / "journal/journal_0.mcap"
    with file.open("r+b") as torn:  # and the file system lost some of the last chunk
        torn.truncate(os.path.getsize(file) - 7)
    assert Bag(file).truncated
    source = open_source(str(tmp_path / "journal"), "mcap")
    info, frames = source.episode(0)
    assert (info.outcome, info.seed, info.uuid) == ("interrupted", 4, store.info(0).uuid)
    kept = list(frames)
    assert len(kept) >= 11
    assert_same_frames(kept, store.frames(0)[: len(kept)])
    assert open_source(str(tmp_path / "journal"), "mcap", {"unfinished": False}).n_episodes == 0
    with McapJournal(tmp_path / "journal") as journal:  # the next process goes on in the next file
        journal.write("/words", STRING, definition(STRING).encode({"data": "hello"}), 7)
    assert sorted(os.listdir(tmp_path / "journal")) == ["journal_0.mcap", "journal_1.mcap"]
    assert "/words" in Bag(tmp_path / "journal").topics


def test_every_cut_is_read_or_refused_in_one_line(tmp_path, recording):
    data = recording.read_bytes()
    cut = tmp_path / "cut.mcap"
    counts = set()
    for size in range(0, len(data), max(len(data) // 60, 1)):
        cut.write_bytes(data[:size])
        with one_line():
            counts.add(sum(1 for _ in McapFile(cut).scan(["/step"])))
    assert counts == {0, 20}


def test_flipped_bytes_are_refused_in_one_line(tmp_path, recording):
    data = bytearray(recording.read_bytes())
    spoiled = tmp_path / "spoiled.mcap"
    for at in range(8, len(data), max(len(data) // 150, 1)):
        data[at] ^= 0xFF
        spoiled.write_bytes(data)
        data[at] ^= 0xFF
        with one_line():
            list(open_source(str(spoiled), "mcap").episode(0)[1])


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_bomb_is_refused(tmp_path, compression):
    import lz4.frame
    import zstandard

    big = bytes(64 << 20)
    body = zstandard.compress(big) if compression == "zstd" else lz4.frame.compress(big)
    name = compression.encode()
    chunk = (
        struct.pack("<QQQI", 0, 0, 100, 0) + struct.pack("<I", len(name)) + name + struct.pack("<Q", len(body)) + body
    )
    (tmp_path / "a.mcap").write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(chunk)) + chunk)
    with pytest.raises(TandemError, match="chunk 0 is damaged"):
        McapFile(tmp_path / "a.mcap")


def test_other_files_are_no_recordings(tmp_path):
    for name, content in (("a.mcap", b""), ("b.mcap", b"hello world"), ("c.db3", b"SQLite format 3\0" + bytes(99))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TandemError, match=r"cannot be read|not an MCAP file"):
            open_source(str(tmp_path / name), "mcap")
    (tmp_path / "d.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(TandemError, match=r"a '.bag' file .*rosbags-convert"):
        open_source(str(tmp_path / "d.bag"), "mcap")
    with pytest.raises(TandemError, match="files of two kinds"):
        open_source(str(tmp_path), "mcap")


def test_a_journal_says_what_it_cannot_take(tmp_path):
    with McapJournal(tmp_path / "a.mcap") as journal:
        with pytest.raises(TandemError, match="the definition of my_msgs/Force is wanted"):
            journal.write("/force", "my_msgs/msg/Force", b"", 0)
        journal.add_topic("/force", "my_msgs/msg/Force", "float64 x")
        journal.write("/force", "my_msgs/msg/Force", b"\0\1\0\0" + struct.pack("<d", 2.5), 5)
        with pytest.raises(TandemError, match="/force is std_msgs/String"):
            journal.add_topic("/force", STRING)
        with pytest.raises(TandemError, match="stamped -1 ns"):
            journal.write("/force", "my_msgs/msg/Force", b"", -1)
    journal.close()
    bag = Bag(tmp_path / "a.mcap")
    ((ref, logged),) = bag.scan(["/force"])
    assert (logged.log_ns, bag.definition("/force").decode(bag.read(ref), "test")) == (5, {"x": 2.5})
    assert not bag.truncated
    with pytest.raises(TandemError, match="File exists"):
        McapJournal(tmp_path / "a.mcap")


def test_a_source_goes_to_other_processes(recording, assert_same_frames):
    source = open_source(str(recording), "mcap")
    again = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert_same_frames(list(again.episode(0)[1]), list(source.episode(0)[1]))
