"""A store as a recording and back; other people's readers on what is written."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.compare import episodes_equal
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import export, open_source
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.formats.mcap import claims
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


@pytest.fixture
def store(tmp_path, embodiment, make_frames) -> Store:
    """Three episodes; the first two overlap in time."""
    with Recorder(tmp_path / "a.zarr", embodiment) as recorder:
        for seed, begin in ((1, 0), (2, 0), (3, 10**18)):
            info = EpisodeInfo(seed, "find the red block", "Rig-v0", "success", True, begin, provenance={"by": [seed]})
            recorder.write_episode(info, make_frames(embodiment, 4 + seed, seed, begin))
    return Store(tmp_path / "a.zarr")


def assert_same(found: Store, expected: Store, assert_same_frames):
    assert found.embodiment == expected.embodiment
    assert found.n_episodes == expected.n_episodes
    for index in range(expected.n_episodes):
        assert found.info(index) == expected.info(index)
        assert_same_frames(found.frames(index), expected.frames(index))
        assert episodes_equal(found, index, expected, index) == []


@pytest.mark.parametrize(("target", "compression"), [("a.mcap", "zstd"), ("b.mcap", "lz4"), ("bag", "none")])
def test_a_store_comes_back_exactly(tmp_path, store, assert_same_frames, target, compression):
    place = export(store, "mcap", tmp_path / target, options={"compression": compression})
    assert place == tmp_path / target
    assert claims(str(place))
    found = import_episodes(open_source(str(place), "mcap"), tmp_path / "back.zarr")
    assert_same(found, store, assert_same_frames)


def test_workers_change_nothing(tmp_path, store):
    one = export(store, "mcap", tmp_path / "one.mcap")
    two = export(store, "mcap", tmp_path / "two.mcap", workers=2)
    assert one.read_bytes() == two.read_bytes()


def test_chosen_episodes_under_a_namespace(tmp_path, store, assert_same_frames):
    place = export(store, "mcap", tmp_path / "a.mcap", episodes=[2, 0], options={"namespace": "left"})
    source = open_source(str(place), "mcap", {"namespace": "left"})
    assert [source.episode(index)[0].seed for index in range(2)] == [3, 1]
    assert_same_frames(list(open_source(str(place), "mcap").episode(1)[1]), store.frames(0))


def test_robots_without_joints_cameras_or_instruction(tmp_path, embodiment, blind, make_frames, assert_same_frames):
    bodies = [blind, replace(embodiment, state=()), replace(embodiment, state=embodiment.state[2:])]
    for number, body in enumerate(bodies):
        with Recorder(tmp_path / f"{number}.zarr", body) as recorder:
            recorder.write_episode(EpisodeInfo(5, ""), [_known_stamps(frame, body) for frame in make_frames(body, 3)])
        store = Store(tmp_path / f"{number}.zarr")
        place = export(store, "mcap", tmp_path / f"{number}.mcap")
        assert_same(
            import_episodes(open_source(str(place), "mcap"), tmp_path / f"{number}b.zarr"), store, assert_same_frames
        )


def _known_stamps(frame, body):
    seen = frame.observation
    stamps = {name: stamp for name, stamp in seen.stream_stamps_ns.items() if name != "state" or body.state}
    return replace(frame, observation=replace(seen, stream_stamps_ns=stamps))


def test_a_slow_camera_is_written_once_per_picture(tmp_path, embodiment, make_frames, assert_same_frames):
    frames = make_frames(embodiment, 6)
    for k in (1, 3, 5):  # the depth camera has half the rate
        before, seen = frames[k - 1].observation, frames[k].observation
        images = {**seen.images, "deep": before.images["deep"]}
        stamps = {**seen.stream_stamps_ns, "deep": before.stream_stamps_ns["deep"]}
        frames[k] = replace(frames[k], observation=replace(seen, images=images, stream_stamps_ns=stamps))
    with Recorder(tmp_path / "a.zarr", embodiment) as recorder:
        recorder.write_episode(EpisodeInfo(5, ""), frames)
    place = export(Store(tmp_path / "a.zarr"), "mcap", tmp_path / "bag")
    told = json.loads((place / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    counts = {t["topic_metadata"]["name"]: t["message_count"] for t in told["topics_with_message_count"]}
    assert counts["/camera/deep/image_raw"] == 3
    assert counts["/camera/top/image_raw"] == 6
    assert_same_frames(list(open_source(str(place), "mcap").episode(0)[1]), frames)


def test_rosbags_reads_it(tmp_path, store):
    from rosbags.rosbag2 import Reader
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    place = export(store, "mcap", tmp_path / "bag")
    types = get_typestore(Stores.EMPTY)
    with Reader(place) as reader:
        topics = {connection.topic: connection for connection in reader.connections}
        assert reader.message_count == sum(connection.msgcount for connection in reader.connections)
        for connection in reader.connections:
            types.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        pictures = [
            types.deserialize_cdr(data, connection.msgtype)
            for connection, _, data in reader.messages([topics["/camera/top/image_raw"]])
        ]
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert stamps == sorted(stamps)
    np.testing.assert_array_equal(np.stack([p.data.reshape(6, 8, 3) for p in pictures]), store.load("top"))
    assert pictures[0].header.frame_id == "board"


def test_the_reference_reader_reads_it(tmp_path, store):
    from mcap.reader import make_reader

    place = export(store, "mcap", tmp_path / "a.mcap")
    with place.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        logged = list(reader.iter_messages(topics=["/action"]))
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    assert "sensor_msgs/msg/Image" in {schema.name for schema in summary.schemas.values()}
    assert len(logged) == store.n_frames


def test_what_cannot_be_written_is_said(tmp_path, store):
    (tmp_path / "taken.mcap").write_text("mine")
    with pytest.raises(TandemError, match="in use"):
        export(store, "mcap", tmp_path / "taken.mcap")
    with pytest.raises(
        TandemError, match=r"^export .*/a.zarr: compression: unknown name 'zip'.*allowed: lz4, none, zstd"
    ):
        export(store, "mcap", tmp_path / "a.mcap", options={"compression": "zip"})
    with pytest.raises(TandemError, match="no episodes"):
        export(store, "mcap", tmp_path / "a.mcap", episodes=[])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zarr", "taken.mcap"]


def test_a_recording_without_its_embodiment_takes_one(tmp_path, store, embodiment, assert_same_frames):
    from mcap.reader import make_reader
    from mcap.writer import Writer

    place = export(store, "mcap", tmp_path / "a.mcap")
    with place.open("rb") as file, (tmp_path / "bare.mcap").open("wb") as out:
        writer, channels = Writer(out), {}
        writer.start("ros2", "test")
        for schema, channel, message in make_reader(file).iter_messages():
            if channel.id not in channels:
                number = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", number)
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()
    bare = str(tmp_path / "bare.mcap")
    with pytest.raises(TandemError, match="does not say which embodiment"):
        open_source(bare, "mcap")
    (tmp_path / "body.json").write_text(json.dumps(embodiment.to_dict()))
    for given in (store.path, tmp_path / "body.json"):
        source = open_source(bare, "mcap", {"embodiment": str(given)})
        assert isinstance(source.embodiment, Embodiment)
        assert_same_frames(list(source.episode(0)[1]), store.frames(0))
    with pytest.raises(TandemError, match="damaged JSON"):
        open_source(bare, "mcap", {"embodiment": bare})
