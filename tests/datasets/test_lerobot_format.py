"""LeRobotDatasets written and read without LeRobot; what LeRobot itself makes of them is in test_lerobot_itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tandem_datasets.embodiment import Camera, Embodiment, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import columns, open_source, recognise
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.formats.lerobot import EMBODIMENT_FILE, claims, export, writing
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

LENGTHS = (5, 1, 8)


@pytest.fixture(scope="module")
def store(tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("lerobot") / "episodes.zarr"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for seed, length in enumerate(LENGTHS):
            info = EpisodeInfo(
                seed, "find it", "rig/Find-v0", "success", bool(seed), 1000, provenance={"operator": "me"}
            )
            recorder.write_episode(info, make_frames(embodiment, length, seed, begin_ns=10_000))
    return Store(path)


@pytest.fixture(scope="module")
def dataset(store, tmp_path_factory):
    return export(store, tmp_path_factory.mktemp("lerobot") / "dataset")


@pytest.fixture
def copy(dataset, tmp_path):
    """A dataset to be broken."""
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


@pytest.fixture
def foreign(copy):
    """The same as anybody's: nothing of ours beside it."""
    (copy / EMBODIMENT_FILE).unlink()
    shutil.rmtree(copy / "tandem")
    return copy


def change_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_features(root: Path, **changes) -> None:
    known = json.loads((root / "meta/info.json").read_text())["features"]
    change_info(root, features={**known, **{key.replace("__", "."): item for key, item in changes.items()}})


def change_column(path: Path, key: str, values: pa.Array | None) -> None:
    table = pq.read_table(path)
    index = table.column_names.index(key)
    table = table.remove_column(index) if values is None else table.set_column(index, key, values)
    pq.write_table(table, path)


def data(root: Path) -> Path:
    return root / "data/chunk-000/file-000.parquet"


def read_all(root: Path, **options) -> list:
    source = open_source(str(root), "lerobot", options)
    return [(info, list(frames)) for info, frames in map(source.episode, range(source.n_episodes))]


def test_with_images_everything_comes_back(store, dataset, tmp_path, assert_same_frames):
    assert recognise(str(dataset)) == "lerobot"
    found = import_episodes(open_source(str(dataset)), tmp_path / "back", codec="raw")
    assert found.embodiment == store.embodiment
    assert found.infos() == store.infos()
    for episode in range(store.n_episodes):
        assert_same_frames(found.frames(episode), store.frames(episode))


def test_some_episodes_in_another_order(store, tmp_path, assert_same_frames):
    told = []
    root = export(store, tmp_path / "some", episodes=[2, 0], progress=lambda *said: told.append(said))
    assert told == [(1, 2, "episodes"), (2, 2, "episodes")]
    (first, frames), (second, _) = read_all(root)
    assert (first, second) == (store.info(2), store.info(0))
    assert_same_frames(frames, store.frames(2))


def test_the_files_do_not_depend_on_the_number_of_workers(store, tmp_path, monkeypatch, assert_same_frames):
    monkeypatch.setattr(writing, "_FILE_ROWS", 6)  # 5 + 1 and 8 frames: two files
    one, two = export(store, tmp_path / "one"), export(store, tmp_path / "two", workers=2)
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert Path("data/chunk-000/file-001.parquet") in names
    assert names == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    back = import_episodes(open_source(str(one)), tmp_path / "back", workers=2)
    for episode in range(store.n_episodes):
        assert_same_frames(back.frames(episode), store.frames(episode))


def test_statistics_are_the_datas(store, dataset):
    stats = json.loads((dataset / "meta/stats.json").read_text())
    for key, ours in (("observation.state", "state"), ("action", "action")):
        values = store.load(ours)
        np.testing.assert_allclose(stats[key]["mean"], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(stats[key]["std"], values.std(0), rtol=1e-5)
        np.testing.assert_array_equal(np.float32(stats[key]["max"]), values.max(0))
    pixels = store.load("top") / 255
    assert np.shape(stats["observation.images.top"]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(stats["observation.images.top"]["mean"]), pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(stats["observation.images.top"]["std"]), pixels.std((0, 1, 2)))
    np.testing.assert_array_equal(np.ravel(stats["observation.images.deep"]["max"]), store.load("deep").max())


@pytest.fixture(scope="module")
def films(tmp_path_factory, embodiment, make_frames):
    """A store whose pictures survive a video: smooth, and of another brightness at each frame."""
    body = replace(embodiment, cameras=(Camera("left", 64, 96), Camera("right", 64, 64), embodiment.cameras[1]))
    path = tmp_path_factory.mktemp("films") / "episodes.zarr"
    with Recorder(path, body, fsync=False) as recorder:
        for seed in range(3):
            frames = []
            for t, frame in enumerate(make_frames(body, 6, seed)):
                level = np.uint8(20 + 60 * seed + 9 * t)
                images = dict(frame.observation.images)
                images["left"] = np.full((64, 96, 3), level, np.uint8)
                images["right"] = np.full((64, 64, 3), 250 - level, np.uint8)
                frames.append(replace(frame, observation=replace(frame.observation, images=images)))
            recorder.write_episode(EpisodeInfo(seed, "look"), frames)
    return Store(path)


@pytest.mark.parametrize("options", [{}, {"vcodec": "h264", "crf": 18, "preset": "fast", "g": 3}])
def test_videos_lose_little_and_nothing_else(films, options, tmp_path):
    root = export(films, tmp_path / "films", video=True, **options)
    info = json.loads((root / "meta/info.json").read_text())["features"]["observation.images.left"]
    assert (info["dtype"], info["info"]["video.codec"]) == ("video", "h264" if options else "av1")
    back = import_episodes(open_source(str(root)), tmp_path / "back", codec="raw")
    assert back.infos() == films.infos()
    for key in films.keys:
        found, wanted = back.load(key), films.load(key)
        if key in ("left", "right"):
            assert np.abs(found.astype(int) - wanted).max() <= 3, key
        else:
            assert found.tobytes() == wanted.tobytes(), key


# -- data sets of others


def test_an_embodiment_is_made_from_the_features(store, foreign):
    source = open_source(str(foreign))
    body = source.embodiment
    assert (body.name, body.rate_hz, body.hears_instruction) == ("rig", 30.0, True)
    assert [camera.shape for camera in body.cameras] == [camera.shape for camera in store.embodiment.cameras]
    assert [scalar.name for scalar in body.state] == ["state_0", "state_1", "state_2"]  # two were called elbow
    assert [scalar.name for scalar in body.action] == ["elbow", "tcp/dx"]
    np.testing.assert_array_equal(np.float32([s.low for s in body.state]), store.load("state").min(0))
    (foreign / "meta/stats.json").unlink()
    assert open_source(str(foreign)).embodiment == body  # counted anew

    info, frames = source.episode(2)
    assert (info.seed, info.instruction) == (2, "find the red block")
    frames, wanted = list(frames), store.frames(2)
    assert [frame.observation.instruction for frame in frames] == [f.observation.instruction for f in wanted]
    assert [frame.observation.stamp_ns for frame in frames] == [round(t * 1e9 / 30) for t in range(LENGTHS[2])]
    assert [frame.success for frame in frames] == [frame.success for frame in wanted]
    assert {frame.source for frame in frames} == {Source.PERSON}
    np.testing.assert_array_equal(frames[3].action, wanted[3].action)
    np.testing.assert_array_equal(frames[3].observation.images["deep"], wanted[3].observation.images["deep"])


def test_names_are_made_to_fit_and_kept_beside(foreign):
    names = ["Shoulder.pos", "Wrist Roll.vel", "force"]
    change_features(foreign, observation__state={"dtype": "float32", "shape": [3], "names": names})
    source = open_source(str(foreign), options={"map": {"force": "wrench"}, "actor": "expert"})
    assert [(scalar.name, scalar.source) for scalar in source.embodiment.state] == [
        ("shoulder", StateSource.JOINT_POSITION),
        ("wrist_roll", StateSource.JOINT_VELOCITY),
        ("force", StateSource.WRENCH),
    ]
    info, frames = source.episode(0)
    assert info.provenance["imported"]["names"]["Wrist Roll.vel"] == "wrist_roll"
    assert {frame.source for frame in frames} == {Source.EXPERT}


def test_other_features_are_left_out_by_name_or_made_state(foreign):
    table = pq.read_table(data(foreign))
    rows = pa.array([[float(t), 1.0] for t in range(len(table))], pa.list_(pa.float64()))
    pq.write_table(table.append_column("observation.environment_state", rows), data(foreign))
    change_features(foreign, observation__environment_state={"dtype": "float64", "shape": [2], "names": None})
    info, _ = open_source(str(foreign)).episode(0)
    assert info.provenance["imported"]["left_out"] == ["observation.environment_state"]
    keys = ["observation.state", "observation.environment_state"]
    (foreign / "meta/stats.json").unlink()
    source = open_source(str(foreign), options={"state": keys, "map": {keys[1]: "joint_position"}})
    assert [scalar.name for scalar in source.embodiment.state][3:] == ["state_3", "state_4"]  # elbow again
    assert source.embodiment.state[4].source is StateSource.JOINT_POSITION
    assert (source.embodiment.state[4].low, source.embodiment.state[4].high) == (0.5, 1.5)  # it never moved
    assert [frame.observation.state[3] for frame in source.episode(1)[1]] == [5.0]


def test_grey_pictures_become_three_channels_and_none_is_resized(foreign, embodiment):
    from io import BytesIO

    from PIL import Image

    def column(picture: Image.Image) -> pa.Array:
        blob = BytesIO()
        picture.save(blob, "PNG")
        return pa.array([{"bytes": blob.getvalue(), "path": None}] * sum(LENGTHS))

    change_column(data(foreign), "observation.images.top", column(Image.new("L", (8, 6), 77)))
    assert np.unique(read_all(foreign)[0][1][0].observation.images["top"]) == 77
    change_column(data(foreign), "observation.images.top", column(Image.new("RGB", (8000, 8000))))
    with pytest.raises(TandemError, match=r"top: frame 0: a picture of 8000x8000 \(allowed: 8x6\)"):
        read_all(foreign)
    change_column(data(foreign), "observation.images.top", column(Image.new("I;16", (8, 6))))
    with pytest.raises(TandemError, match=r"a picture of mode I;16 \(allowed: rgb8\)"):
        read_all(foreign)


# -- what is wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v2.1"}, r"a LeRobotDataset v2.1 \(allowed: v3.0; convert it with .*convert_dataset_v21"),
        ({"codebase_version": "v4.0"}, r"a LeRobotDataset v4.0 \(allowed: v3.0\)"),
        ({"data_path": "../{chunk_index:999999999d}"}, "data_path is"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": "30"}, "fps is '30'"),
        ({"features": []}, "features is no mapping"),
        ({"features": {"../../x": {"dtype": "video", "shape": [3, 4, 4]}}}, "names without slashes"),
        ({"features": {"x": {"dtype": "float32", "shape": [2**40]}}}, "feature 'x' is"),
        ({"features": {"x": 3}}, "feature 'x' is 3"),
    ],
)
def test_an_info_that_makes_no_sense_is_refused(copy, changes, message):
    change_info(copy, **changes)
    with pytest.raises(TandemError, match=message):
        open_source(str(copy), "lerobot")


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("action", None, "file-000.parquet: no column action"),
        ("action", pa.array([[0.0, np.nan]] * 14), "action is not finite in row 0"),
        ("action", pa.array([[0.0]] * 14), "action has not 2 numbers in each row"),
        ("action", pa.array(["x"] * 14), "column action holds string"),
        ("task_index", pa.array([9] * 14), "episode 0: task_index 9"),
        ("task_index", pa.array([None] * 14, pa.int64()), "task_index"),
        ("episode_index", pa.array([0, 1] * 7), "not together"),
        ("observation.images.top", pa.array([{"bytes": b"GIF89a", "path": ""}] * 14), "frame 0: damaged picture"),
        ("observation.images.top", pa.array([{"bytes": None, "path": "/etc/passwd"}] * 14,
                                            pa.struct({"bytes": pa.binary(), "path": pa.string()})), "no picture"),
        ("observation.images.top", pa.array([{"path": "/etc/passwd"}] * 14), "has no bytes"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_refused_by_name(foreign, key, values, message):
    change_column(data(foreign), key, values)
    with pytest.raises(TandemError, match=message):
        read_all(foreign)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meta/info.json", "cannot read info.json"),
        ("meta/tasks.parquet", "meta/tasks.parquet: there is no such file"),
        ("meta/episodes/chunk-000/file-000.parquet", "no episodes in meta/episodes"),
        ("data/chunk-000/file-000.parquet", "there is no such file"),
        ("tandem/chunk-000/file-000.parquet", "there is no such file"),
    ],
)
def test_a_missing_file_is_named(copy, name, message):
    (copy / name).unlink()
    with pytest.raises(TandemError, match=message):
        read_all(copy)


def test_a_cut_off_file_is_named(copy):
    data(copy).write_bytes(data(copy).read_bytes()[:-100])
    with pytest.raises(TandemError, match=r"file-000\.parquet: damaged"):
        read_all(copy)


def test_changed_by_others_since_our_export(copy):
    facts = copy / "tandem/episodes.jsonl"
    lines = facts.read_text().splitlines()
    facts.write_text("\n".join(lines[:2]))
    with pytest.raises(TandemError, match="tells of 2 episodes, LeRobot of 3"):
        open_source(str(copy))
    facts.write_text("\n".join(['{"__class__": "x"}', *lines[1:]]))
    with pytest.raises(TandemError, match=r"episodes\.jsonl has"):
        read_all(copy)
    facts.write_text("\n".join(["{", *lines[1:]]))
    with pytest.raises(TandemError, match="line 1"):
        open_source(str(copy))
    change_info(copy, fps=20)
    facts.write_text("\n".join(lines))
    with pytest.raises(TandemError, match="fps is 20"):
        open_source(str(copy))


def test_a_video_that_ends_early_or_is_none(films, tmp_path):
    root = export(films, tmp_path / "films", video=True)
    episodes = root / "meta/episodes/chunk-000/file-000.parquet"
    change_column(episodes, "videos/observation.images.left/from_timestamp", pa.array([0.0, 0.2, 0.5]))
    with pytest.raises(TandemError, match=r"observation.images.left: file-000.mp4: no picture at 0.600 s"):
        read_all(root)
    video = root / "videos/observation.images.left/chunk-000/file-000.mp4"
    video.write_bytes(b"no video at all" * 10)
    with pytest.raises(TandemError, match=r"file-000\.mp4: damaged video"):
        read_all(root)
    video.unlink()
    with pytest.raises(TandemError, match=r"file-000\.mp4: there is no such file"):
        read_all(root)


def test_nothing_stays_of_an_export_that_fails(store, tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_BLOCK_BYTES", 1)

    def broken(done: int, total: int, unit: str) -> None:
        raise TandemError("enough")

    with pytest.raises(TandemError, match="enough"):
        export(store, tmp_path / "dataset", progress=broken)
    assert not list(tmp_path.iterdir())


def test_what_lerobot_cannot_say_is_refused(store, films, dataset, embodiment, make_frames, tmp_path):
    with pytest.raises(TandemError, match="is in use"):
        export(store, dataset)
    with pytest.raises(TandemError, match="no episode 3"):
        export(store, tmp_path / "a", episodes=[3])
    with pytest.raises(TandemError, match="no episodes"):
        export(store, tmp_path / "a", episodes=[])
    with pytest.raises(TandemError, match="vcodec is 'gif99'"):
        export(store, tmp_path / "a", video=True, vcodec="gif99")
    with pytest.raises(TandemError, match="pix_fmt is 'yuv999'"):
        export(store, tmp_path / "a", video=True, pix_fmt="yuv999")
    odd = replace(embodiment, rate_hz=29.97, cameras=(Camera("odd", 5, 6),))
    with Recorder(tmp_path / "odd.zarr", odd, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, ""), make_frames(odd, 2))
    with pytest.raises(TandemError, match=r"rate_hz is 29\.97"):
        export(Store(tmp_path / "odd.zarr"), tmp_path / "a")
    even: Embodiment = replace(odd, rate_hz=30.0)
    with Recorder(tmp_path / "even.zarr", even, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, ""), make_frames(even, 2))
    with pytest.raises(TandemError, match="camera 'odd' is 6x5"):
        export(Store(tmp_path / "even.zarr"), tmp_path / "a", video=True)
    assert not (tmp_path / "a").exists()


def test_only_datasets_are_claimed(tmp_path, dataset):
    assert claims(str(dataset))
    assert not claims(str(tmp_path))
