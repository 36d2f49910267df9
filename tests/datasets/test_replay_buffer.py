"""Replay buffers of Diffusion Policy and UMI, both ways."""

import json
import shutil
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from imagecodecs.numcodecs import Jpegxl

from tandem_datasets.embodiment import StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import open_source, recognise
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.formats.replay_buffer import claims, export, writing
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

LENGTHS = (5, 1, 7)
ENDS = np.cumsum(LENGTHS)


@pytest.fixture(scope="module")
def store(tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("buffers") / "episodes.zarr"
    with Recorder(path, embodiment, codec="raw", fsync=False) as recorder:
        for seed, length in enumerate(LENGTHS):
            info = EpisodeInfo(seed, "find it", outcome="success", success=True, provenance={"operator": "me"})
            recorder.write_episode(info, make_frames(embodiment, length, seed))
    return Store(path)


def make_umi(path: Path, zipped: bool = False, version: int = 2) -> Path:
    """What UMI's pipeline leaves: a JPEG-XL picture a chunk, poses as floats, no action."""
    rng = np.random.default_rng(0)
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    shape = (int(ENDS[-1]), 16, 24, 3)
    numcodecs.register_codec(Jpegxl)
    lossy = Jpegxl(effort=3, distance=0.3, decodingspeed=1, lossless=False)
    camera = root.create_array("data/camera0_rgb", shape=shape, chunks=(1, *shape[1:]), dtype="u1",
                               compressors=lossy if version == 2 else None)  # fmt: skip
    camera[:] = np.arange(ENDS[-1])[:, None, None, None] * 10
    for key, size, dtype in (
        ("robot0_eef_pos", 3, "f4"),
        ("robot0_eef_rot_axis_angle", 3, "f4"),
        ("robot0_gripper_width", 1, "f4"),
        ("robot0_demo_end_pose", 6, "f8"),
    ):
        values = rng.standard_normal((ENDS[-1], size)).astype(dtype)
        root.create_array(f"data/{key}", shape=values.shape, chunks=(4, size), dtype=dtype)[:] = values
    ends = root.create_array("meta/episode_ends", shape=(3,), chunks=(3,), dtype="i8", compressors=None)
    ends[:] = ENDS
    if not zipped:
        return path
    packed = path.with_suffix(".zarr.zip")
    with zipfile.ZipFile(packed, "w") as file:
        for each in sorted(path.rglob("*")):
            if each.is_file():
                file.write(each, each.relative_to(path).as_posix())
    return packed


@pytest.fixture
def pusht(tmp_path):
    """Diffusion Policy's Push-T: pictures as floats, a state, an action, and more."""
    root = zarr.open_group(str(tmp_path / "pusht.zarr"), mode="w", zarr_format=2)
    rng = np.random.default_rng(1)
    for key, values in {
        "img": rng.integers(0, 256, (ENDS[-1], 6, 8, 3)).astype("f4"),
        "state": rng.standard_normal((ENDS[-1], 5)).astype("f4"),
        "action": rng.standard_normal((ENDS[-1], 2)).astype("f4"),
        "keypoint": rng.standard_normal((ENDS[-1], 9, 2)).astype("f4"),
    }.items():
        chunks = (4, *values.shape[1:])
        root.create_array(f"data/{key}", shape=values.shape, chunks=chunks, dtype=values.dtype)[:] = values
    root.create_array("meta/episode_ends", shape=(3,), chunks=(3,), dtype="i8")[:] = ENDS
    return tmp_path / "pusht.zarr"


def change_array(root: Path, key: str, **changes) -> None:
    path = root / key / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- our own, there and back


@pytest.mark.parametrize(
    ("name", "compressor"),
    [("b.zarr", "disk"), ("b.zarr", "default"), ("b.zarr", "none"), ("b.zarr", "jpegxl"), ("b.zarr.zip", "disk")],
)
def test_everything_comes_back(store, tmp_path, compressor, name, assert_same_frames):
    target = export(store, tmp_path / name, compressor=compressor, map={"top": "img"})
    assert recognise(str(target)) == "replay_buffer"
    assert target.is_file() == name.endswith("zip")
    found = import_episodes(open_source(str(target)), tmp_path / "back", codec="raw")
    assert found.embodiment == store.embodiment
    assert found.infos() == store.infos()
    for episode in range(store.n_episodes):
        assert_same_frames(found.frames(episode), store.frames(episode))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_their_code_opens_it(store, tmp_path):
    """What ReplayBuffer does on opening and reading, and a chunk decoded by hand as zarr 2 does it."""
    path = export(store, tmp_path / "buffer.zarr", episodes=[2, 0])
    root = zarr.open_group(str(path), mode="r", zarr_format=2)
    ends = root["meta"]["episode_ends"]
    assert (ends.dtype, ends[:].tolist()) == (np.int64, [7, 12])
    rows = [*range(6, 13), *range(5)]
    assert sorted(root["data"].keys()) == ["action", "deep", "state", "top"]
    for key, value in root["data"].members():
        assert value[: ends[-1]].shape[0] == ends[-1]
        np.testing.assert_array_equal(value[:], store.load(key)[rows])
        assert value.dtype == store.load(key).dtype
    assert not list(path.rglob("zarr.json"))
    told = json.loads((path / "data/top/.zarray").read_text())
    assert (told["zarr_format"], told["filters"], told["order"], told["dtype"]) == (2, None, "C", "|u1")
    blob = numcodecs.get_codec(told["compressor"]).decode((path / "data/top/0.0.0.0").read_bytes())
    chunk = np.frombuffer(blob, told["dtype"]).reshape(told["chunks"])
    np.testing.assert_array_equal(chunk[:12], store.load("top")[rows])


def test_the_arrays_do_not_depend_on_the_number_of_workers(store, tmp_path, monkeypatch, assert_same_frames):
    monkeypatch.setattr(writing, "_CHUNK_BYTES", 500)  # several chunks, across episodes
    told = []
    one = export(store, tmp_path / "one.zarr.zip", progress=lambda *said: told.append(said))
    assert told[-1][0] == told[-1][1] > 10
    assert one.read_bytes() == export(store, tmp_path / "two.zarr.zip", workers=2).read_bytes()
    back = import_episodes(open_source(str(one)), tmp_path / "back", workers=2)
    for episode in range(store.n_episodes):
        assert_same_frames(back.frames(episode), store.frames(episode))


def test_options_of_the_export(store, tmp_path):
    with pytest.raises(TandemError, match="compressor: unknown name 'gzip'"):
        export(store, tmp_path / "a", compressor="gzip")
    with pytest.raises(TandemError, match="map: unknown name 'tpo'"):
        export(store, tmp_path / "a", map={"tpo": "img"})
    with pytest.raises(TandemError, match="keys state, deep, state, action"):
        export(store, tmp_path / "a", map={"top": "state"})
    with pytest.raises(TandemError, match="allowed: letters, digits"):
        export(store, tmp_path / "a", map={"top": "../img"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(TandemError, match="is in use"):
        export(store, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


# -- theirs


@pytest.mark.parametrize(("zipped", "version"), [(False, 2), (True, 2), (False, 3), (True, 3)])
def test_umi(tmp_path, zipped, version):
    path = make_umi(tmp_path / "umi", zipped, version)
    source = open_source(str(path), options={"rate_hz": 60.0, "instruction": "fold it"})
    body = source.embodiment
    assert (body.name, body.rate_hz, source.n_episodes) == ("umi", 60.0, 3)
    assert [scalar.name for scalar in body.state] == [
        "robot0_eef_pos/x", "robot0_eef_pos/y", "robot0_eef_pos/z", "robot0_eef_rot_axis_angle/x",
        "robot0_eef_rot_axis_angle/y", "robot0_eef_rot_axis_angle/z", "robot0_gripper_width",
    ]  # fmt: skip
    assert body.state[6].source is StateSource.GRIP
    info, frames = source.episode(2)
    frames = list(frames)
    assert len(frames) == 7
    for t, frame in enumerate(frames):
        assert abs(frame.observation.images["camera0_rgb"].astype(int) - 10 * (6 + t)).max() <= 2
        following = frames[min(t + 1, 6)].observation.state
        np.testing.assert_array_equal(frame.action, following)
    told = info.provenance["imported"]
    assert (told["left_out"], told["action"]) == (["robot0_demo_end_pose"], "the next step's state")
    assert info.instruction == "fold it"
    assert source.episode(2)[0] == info  # the uuid, too


def test_push_t(pusht, tmp_path):
    source = open_source(str(pusht))
    found = import_episodes(source, tmp_path / "back", codec="raw")
    assert found.embodiment.name == "replay_buffer"
    assert [len(range(*found.episode_slice(e).indices(99))) for e in range(3)] == list(LENGTHS)
    root = zarr.open_group(str(pusht), mode="r")
    np.testing.assert_array_equal(found.load("img"), root["data/img"][:])
    np.testing.assert_array_equal(found.load("state"), root["data/state"][:])
    np.testing.assert_array_equal(found.load("action"), root["data/action"][:])
    assert found.info(1).provenance["imported"]["left_out"] == ["keypoint"]
    np.testing.assert_array_equal(found.embodiment.state_low, root["data/state"][:].min(0))


def test_keys_by_a_map(pusht):
    options = {"map": {"state": "joint_position", "action": "left_out", "img": "left_out"}, "action": "next_state"}
    body = open_source(str(pusht), options=options).embodiment
    assert [(scalar.name, scalar.source) for scalar in body.state][:1] == [("state_0", StateSource.JOINT_POSITION)]
    assert len(body.action) == 5
    assert not body.cameras


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": {"imgg": "camera"}}, "map: unknown name 'imgg'; did you mean 'img'"),
        ({"map": {"img": "kamera"}}, "map img: unknown name 'kamera'"),
        ({"map": {"img": "state"}}, r"data/img has shape \(13, 6, 8, 3\) \(allowed: \(T,\) or \(T, D\)\)"),
        ({"map": {"state": "camera"}}, "data/state has shape"),
        ({"action": "data", "map": {"action": "left_out"}}, "no array is the action"),
        ({"action": "later"}, "action: unknown name 'later'"),
        ({"rate_hz": -1.0}, "rate_hz is -1.0"),
        ({"actor": "nobody"}, "actor: unknown name 'nobody'"),
    ],
)
def test_options_that_do_not_fit(pusht, options, message):
    with pytest.raises(TandemError, match=message):
        open_source(str(pusht), options=options)


# -- what is wrong


@pytest.mark.parametrize(
    ("key", "changes", "message"),
    [
        ("data/state", {"dtype": "|O"}, r"data/state: dtype is '\|O' \(allowed: plain numbers\)"),
        ("data/state", {"dtype": [["a", "<f4"]]}, "dtype is"),
        ("data/state", {"filters": [{"id": "pickle"}]}, "filters"),
        ("data/state", {"compressor": {"id": "pickle"}}, "compressor 'pickle'"),
        ("data/state", {"compressor": {"id": ["blosc"]}}, "compressor"),
        ("data/state", {"shape": [2**50, 5]}, "shape"),
        ("data/state", {"shape": [13, 2**40], "chunks": [1, 1]}, "rows of up to"),
        ("data/state", {"chunks": [2**40, 5]}, "chunks"),
        ("data/state", {"chunks": [0, 5]}, "chunks"),
        ("data/state", {"shape": [12, 5]}, r"data/state has 12 rows \(wanted:"),
        ("data/state", {"shape": "many"}, "shape"),
        ("meta/episode_ends", {"dtype": "<f8"}, "meta/episode_ends is float64"),
        ("meta/episode_ends", {"shape": [2**40], "chunks": [1]}, "shape"),
        ("meta/episode_ends", {"shape": [0]}, "no episodes"),
    ],
)
def test_hostile_arrays_are_refused_before_they_are_read(pusht, key, changes, message):
    change_array(pusht, key, **changes)
    with pytest.raises(TandemError, match=message):
        open_source(str(pusht), "replay_buffer").episode(2)


def test_hostile_arrays_of_version_3(tmp_path):
    path = make_umi(tmp_path / "umi", version=3)
    file = path / "data/robot0_eef_pos/zarr.json"
    found = json.loads(file.read_text())
    for changes, message in (
        ({"data_type": "variable_length_bytes"}, "data_type is"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "codecs"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "x"}]}}]}, r"codecs \['x'\]"),
        ({"shape": [2**41, 3]}, "shape"),
    ):
        file.write_text(json.dumps({**found, **changes}))
        with pytest.raises(TandemError, match=message):
            open_source(str(path), "replay_buffer")


@pytest.mark.parametrize("ends", [[5, 5, 13], [5, 4, 13], [0, 5, 13], [5, 6, 14]])
def test_episode_ends_that_make_no_sense(pusht, ends):
    zarr.open_group(str(pusht), mode="r+")["meta/episode_ends"][:] = ends
    with pytest.raises(TandemError, match=r"episode_ends is damaged|has 13 rows \(wanted"):
        open_source(str(pusht))


def test_damaged_chunks_and_broken_pictures(pusht):
    zarr.open_group(str(pusht), mode="r+")["data/img"][7, 0, 0, 0] = 0.5
    source = open_source(str(pusht))
    list(source.episode(0)[1])
    with pytest.raises(TandemError, match=r"episode 2: data/img holds broken numbers"):
        list(source.episode(2)[1])
    zarr.open_group(str(pusht), mode="r+")["data/action"][7] = np.nan
    with pytest.raises(TandemError, match="data/action is not finite"):
        open_source(str(pusht))
    (pusht / "data/state/0.0").write_bytes(b"junk")
    with pytest.raises(TandemError, match="data/state: damaged"):
        open_source(str(pusht))


def test_what_is_no_buffer(store, tmp_path):
    assert not claims(str(store.path))  # ours looks similar
    assert not claims(str(tmp_path))
    broken = tmp_path / "x.zarr.zip"
    broken.write_bytes(b"PK no zip")
    for name in ("", "replay_buffer"):  # Bug: without the name no format knew it
        with pytest.raises(TandemError, match=r"x.zarr.zip: no zip file, or cut short"):
            open_source(str(broken), name)
    with pytest.raises(TandemError, match="no meta/episode_ends"):
        open_source(str(tmp_path), "replay_buffer")
    with pytest.raises(TandemError, match="there is nothing"):
        open_source(str(tmp_path / "y"), "replay_buffer")


def test_what_others_changed_in_ours(store, tmp_path):
    path = export(store, tmp_path / "buffer.zarr")
    attributes = json.loads((path / ".zattrs").read_text())
    for change, message in (
        ({"embodiment": {}}, "embodiment: Embodiment lacks"),
        ({"keys": {"top": "data/top"}}, "no array"),
        ({"keys": {**attributes["tandem"]["keys"], "top": "../../etc"}}, r"no array \.\./\.\./etc"),
        ({"instructions": [1]}, "are damaged"),
    ):
        (path / ".zattrs").write_text(json.dumps({"tandem": {**attributes["tandem"], **change}}))
        with pytest.raises(TandemError, match=message):
            open_source(str(path))
    (path / ".zattrs").write_text(json.dumps(attributes))
    shutil.rmtree(path / "tandem/reward")
    with pytest.raises(TandemError, match="no array tandem/reward"):
        open_source(str(path))
