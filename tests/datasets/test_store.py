"""What was recorded comes back byte for byte, quickly, and while it is still being recorded."""

import pickle
import shutil
import threading
import time
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from tandem_datasets.codecs import CODECS
from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.ops import changing
from tandem_datasets.ops.choosing import Choice
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

LENGTHS = (3, 250, 1, 300, 2, 4000)  # over the bounds of shards (256) and chunks (4096)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, embodiment, make_frames):
    """(path, infos, frames by episode) of a store that fills several shards and chunks."""
    path = tmp_path_factory.mktemp("recorded") / "store"
    infos, episodes = [], []
    for k, length in enumerate(LENGTHS):
        with Recorder(path, embodiment, fsync=False) as recorder:  # reopened each time
            frames = make_frames(embodiment, length, seed=k, begin_ns=k * 10**9 + 9)
            info = EpisodeInfo(
                seed=k - 2,
                instruction="find the red block",
                env="tandem/Rig-v0",
                begin_ns=k * 10**9,
                success=k % 2 == 0,
                outcome="ö\n" if k == 1 else "success",
                failure_reason="slipped" if k % 2 else "",
                deleted=k in (2, 4),
                provenance={"step": k, "nested": {"x": [1.5, None, True]}},
            )
            infos.append(recorder.write_episode(info, frames))
            episodes.append(frames)
    return path, infos, episodes


def test_frames_come_back_byte_for_byte(recorded, assert_same_frames):
    path, infos, episodes = recorded
    store = Store(path)
    for k, frames in enumerate(episodes):
        assert_same_frames(store.frames(k), frames)
        assert store.info(k) == infos[k]
    assert store.infos() == infos
    assert store.kept.tolist() == [0, 1, 3, 5]
    assert store.episode_texts("outcome") == [info.outcome for info in infos]
    assert store.episode_texts("failure_reason") == [info.failure_reason for info in infos]
    assert store.episode_texts("task") == [info.instruction for info in infos]


def test_columns_are_all_episodes_in_a_row(recorded, embodiment):
    path, infos, episodes = recorded
    store = Store(path)
    frames = [frame for episode in episodes for frame in episode]
    assert store.embodiment == embodiment
    assert store.n_episodes == len(LENGTHS)
    assert store.n_frames == sum(LENGTHS)
    assert store.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert store.load("top").tobytes() == b"".join(frame.observation.images["top"].tobytes() for frame in frames)
    assert store.load("data/action").tobytes() == b"".join(frame.action.tobytes() for frame in frames)
    assert store.load("reward").tolist() == [frame.reward for frame in frames]
    assert store.load("stamp_deep").tolist() == [f.observation.stream_stamps_ns["deep"] for f in frames]
    assert store.load("has_label").tolist() == [frame.label is not None for frame in frames]
    wordings = [store.instructions[code] for code in store.load("instruction")]
    assert wordings == [frame.observation.instruction for frame in frames]
    assert store.load_episodes("seed").tolist() == [info.seed for info in infos]


def test_any_range_of_rows_is_what_it_is_in_the_whole(recorded):
    store = Store(recorded[0])
    rng = np.random.default_rng(0)
    for key in ("top", "deep", "state", "stamp", "success"):
        whole = store.load(key)
        for _ in range(20):
            start, stop = sorted(rng.integers(0, store.n_frames + 1, 2).tolist())
            assert store.load(key, start, stop).tobytes() == whole[start:stop].tobytes()
    rows = store.episode_slice(3)
    assert (rows.start, rows.stop) == (254, 554)


def test_what_is_not_there_is_named(recorded):
    store = Store(recorded[0])
    with pytest.raises(TandemError, match="did you mean 'reward'"):
        store.load("rewards")
    with pytest.raises(TandemError, match="unknown name 'uid'; did you mean 'uuid'"):
        store.load_episodes("uid")
    with pytest.raises(TandemError, match=r"no episode 6 \(allowed: 0..5\)"):
        store.info(6)
    with pytest.raises(TandemError, match="no episode -1"):
        store.frames(-1)
    with pytest.raises(TandemError, match=r"rows 5\.\.9999"):
        store.load("state", 5, 9999)


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(tmp_path, embodiment, make_frames, assert_same_frames, codec):
    frames = make_frames(embodiment, 300)
    with Recorder(tmp_path / "a", embodiment, codec=codec) as recorder:
        recorder.write_episode(EpisodeInfo(0, ""), frames[:100])
        recorder.write_episode(EpisodeInfo(0, ""), frames[100:])
    store = Store(tmp_path / "a")
    assert store.codec == codec
    expected = [_through(frame, CODECS[codec]) for frame in frames]
    unchanged = expected[0].observation.images["top"].tobytes() == frames[0].observation.images["top"].tobytes()
    assert CODECS[codec].lossless == unchanged
    assert_same_frames(store.frames(0) + store.frames(1), expected)


def _through(frame, codec):
    """The frame with its images as they come out of the codec."""
    images = {}
    for name, image in frame.observation.images.items():
        images[name] = np.empty_like(image)
        codec.decode(memoryview(codec.encode(image)), images[name])
    return replace(frame, observation=replace(frame.observation, images=images))


def test_without_cameras_or_without_state(tmp_path, embodiment, blind, make_frames, assert_same_frames):

    only_images = replace(embodiment, state=())
    for rig in (blind, only_images):
        frames = [replace(f, observation=replace(f.observation, stream_stamps_ns={})) for f in make_frames(rig, 5)]
        with Recorder(tmp_path / rig.name, rig) as recorder:
            recorder.write_episode(EpisodeInfo(0, ""), frames)
        store = Store(tmp_path / rig.name)
        assert store.load("state").shape == (5, rig.state_dim)
        streams = [key.removeprefix("stamp_") for key in store.keys if key.startswith("stamp_")]
        told = [
            replace(
                f, observation=replace(f.observation, stream_stamps_ns=dict.fromkeys(streams, f.observation.stamp_ns))
            )
            for f in frames
        ]
        assert_same_frames(store.frames(0), told)


def test_episodes_without_actions(tmp_path, embodiment, make_frames, assert_same_frames):
    watched = replace(embodiment, state=(), action=())
    frames = make_frames(watched, 5)
    frames = [
        replace(
            f,
            requested=None,
            label=None,
            observation=replace(f.observation, stream_stamps_ns=dict.fromkeys(("top", "deep"), f.observation.stamp_ns)),
        )
        for f in frames
    ]
    with Recorder(tmp_path / "a", watched) as recorder:
        recorder.write_episode(EpisodeInfo(0, ""), frames)
    store = Store(tmp_path / "a")
    assert store.load("action").shape == (5, 0)
    assert_same_frames(store.frames(0), frames)
    store.verify(0)


def test_an_empty_store(tmp_path, embodiment):
    Recorder(tmp_path / "a", embodiment).close()
    store = Store(tmp_path / "a")
    assert (store.n_episodes, store.n_frames, store.instructions, store.infos()) == (0, 0, [], [])
    assert store.load("top").shape == (0, 6, 8, 3)
    assert store.load("stamp").dtype == np.int64
    assert len(store.digest) == 16


def test_refresh_shows_what_was_committed_since(tmp_path, embodiment, make_frames, assert_same_frames):
    frames = make_frames(embodiment, 5)
    with Recorder(tmp_path / "a", embodiment) as recorder:
        store = Store(tmp_path / "a")
        digest = store.digest
        recorder.write_episode(EpisodeInfo(0, ""), frames)
        assert (store.n_episodes, store.digest) == (0, digest)
        assert store.refresh() == 1
        assert store.digest != digest
        assert_same_frames(store.frames(0), frames)
        recorder.write_episode(EpisodeInfo(0, ""), make_frames(embodiment, 300, seed=1))
        assert store.load("top").shape[0] == 5  # the view is the old one until it is refreshed
        assert store.refresh() == 1
        assert store.refresh() == 0


def test_reading_while_a_recorder_writes(tmp_path, embodiment, make_frames, assert_same_frames):
    episodes = [make_frames(embodiment, 11, seed=k) for k in range(60)]  # they fill two shards and share a third
    recorder = Recorder(tmp_path / "a", embodiment, fsync=False)

    def write() -> None:
        with recorder:
            for frames in episodes:
                recorder.write_episode(EpisodeInfo(0, ""), frames)

    store = Store(tmp_path / "a")
    writer = threading.Thread(target=write)
    writer.start()
    while store.n_episodes < len(episodes):
        alive = writer.is_alive()
        if store.refresh():
            assert_same_frames(store.frames(store.n_episodes - 1), episodes[store.n_episodes - 1])
            assert len(store.load("top")) == store.n_frames
        assert alive or store.n_episodes == len(episodes) or store.refresh(), "the writer died"
    writer.join()


def test_refresh_notices_another_store(tmp_path, embodiment, make_frames):
    for name, length in (("a", 2), ("b", 3)):
        with Recorder(tmp_path / name, embodiment) as recorder:
            recorder.write_episode(EpisodeInfo(0, ""), make_frames(embodiment, length))
    store = Store(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    with pytest.raises(TandemError, match="replaced"):
        store.refresh()


def test_another_store_with_episodes_of_the_same_lengths_is_noticed(tmp_path, embodiment, make_frames):
    """Bug: it was known by its inode, and file systems give that of a removed folder to the next one."""
    path = tmp_path / "a"
    for seed in range(2):
        with Recorder(path, embodiment) as recorder:
            recorder.write_episode(EpisodeInfo(0, ""), make_frames(embodiment, 5, seed=seed))
        if seed == 0:
            store = Store(path)
            open_rows = store.rows("top")
            shutil.rmtree(path)
            path.mkdir()  # before anything else takes the number
    for read in (lambda: store.load("state"), store.refresh, lambda: open_rows[0], lambda: store.info(0)):
        with pytest.raises(TandemError, match="replaced by another while it was open"):
            read()


def test_texts_that_were_added_since(tmp_path, embodiment, make_frames):
    """Bug: a reader that had looked at the table of names called a relabelled store damaged."""
    path = tmp_path / "a"
    with Recorder(path, embodiment) as recorder:
        recorder.write_episode(EpisodeInfo(0, "say"), make_frames(embodiment, 3))
    store = Store(path)
    assert store.info(0).outcome == ""
    changing.relabel(path, Choice(episodes="0"), changing.Facts(outcome="dropped"))
    assert store.info(0).outcome == "dropped"
    assert store.episode_texts("outcome") == ["dropped"]


def test_the_digest_names_the_content(tmp_path, embodiment, make_frames):
    info = EpisodeInfo(4, "")
    for name, codec, seed in (("a", "zstd", 0), ("b", "zstd", 0), ("c", "zstd", 1), ("d", "jpeg", 0)):
        with Recorder(tmp_path / name, embodiment, codec=codec) as recorder:
            recorder.write_episode(info, make_frames(embodiment, 3, seed=seed))
    assert Store(tmp_path / "a").digest == Store(tmp_path / "b").digest
    with Recorder(tmp_path / "b", embodiment) as recorder:
        recorder.write_episode(EpisodeInfo(4, ""), make_frames(embodiment, 3))
    assert len({Store(tmp_path / name).digest for name in "abcd"}) == 4


def test_the_digest_covers_what_frames_are_told(tmp_path, embodiment, make_frames):
    """Bug: only the first instruction of an episode was in it; the checksum knows the others by their numbers."""
    for name, later in (("a", "put it left"), ("b", "put it right")):
        frames = [
            replace(f, observation=replace(f.observation, instruction=later if t else "take it"))
            for t, f in enumerate(make_frames(embodiment, 3))
        ]
        with Recorder(tmp_path / name, embodiment) as recorder:
            recorder.write_episode(EpisodeInfo(4, "take it", uuid=str(UUID(int=1))), frames)
    assert Store(tmp_path / "a").load_episodes("checksum") == Store(tmp_path / "b").load_episodes("checksum")
    assert Store(tmp_path / "a").digest != Store(tmp_path / "b").digest


def test_a_store_travels_to_workers(recorded):
    store = Store(recorded[0])
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert again.load("deep").tobytes() == store.load("deep").tobytes()


def test_5000_images_load_well_under_a_second(tmp_path):
    rig = Embodiment(
        "board",
        30.0,
        True,
        (Camera("top", 64, 64),),
        (StateScalar("agent/x", "cell", 0.0, 8.0, StateSource.POSE),),
        (ActionScalar("agent/dx", "cell", -1.0, 1.0, ActionKind.DELTA_STEP),),
    )
    vector = np.zeros(1, np.float32)
    image = np.full((64, 64, 3), 230, np.uint8)
    image[10:20, 30:40] = (200, 30, 40)
    with Recorder(tmp_path / "a", rig, fsync=False) as recorder:
        recorder.begin(EpisodeInfo(0, ""))
        for t in range(5000):
            seen = Observation({"top": np.roll(image, t, axis=1)}, vector, "find it", t * rig.period_ns)
            recorder.add(Frame(seen, vector, Source.EXPERT))
        recorder.commit()
    store = Store(tmp_path / "a")
    begin = time.process_time()
    images = store.load("top")
    assert time.process_time() - begin < 1.0
    assert (images[4999] == np.roll(image, 4999, axis=1)).all()
