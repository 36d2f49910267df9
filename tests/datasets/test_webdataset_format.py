"""Training windows in tar shards: read by our own reader, and by the real ``webdataset``."""

import json
import pickle
import shutil

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.webdataset import ShardWindows, export, reading
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store
from tandem_datasets.windows import WindowReader, WindowSpec

SPEC = WindowSpec(history=2, chunk=4, learn="executed")
OPTIONS = {"history": 2, "chunk": 4, "learn": "executed", "shard_windows": 5}


def record(path, embodiment, make_frames, codec):
    with Recorder(path, embodiment, codec=codec, fsync=False) as recorder:
        for seed, length in enumerate((6, 1, 7)):
            recorder.write_episode(EpisodeInfo(seed, "find it"), make_frames(embodiment, length, seed))
    return Store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory, embodiment, make_frames):
    return record(tmp_path_factory.mktemp("shards") / "episodes.zarr", embodiment, make_frames, "raw")


@pytest.fixture(scope="module")
def shards(store, tmp_path_factory):
    return export(store, tmp_path_factory.mktemp("shards") / "shards", **OPTIONS)


def assert_same_windows(found: ShardWindows, reader: WindowReader) -> None:
    everything = found.read(range(len(found)))
    order = everything.pop("window")
    assert sorted(order) == list(range(len(reader)))
    texts, wanted = found.instructions, reader.read(order)
    assert set(everything) == set(wanted)
    codes = everything.pop("instruction")
    assert [texts[code] for code in codes] == [reader.instructions[code] for code in wanted.pop("instruction")]
    for key, values in everything.items():
        assert values.dtype == wanted[key].dtype, key
        np.testing.assert_array_equal(values, wanted[key], key)


def test_the_windows_are_the_stores(store, shards):
    found = ShardWindows(shards)
    assert found.embodiment == store.embodiment
    assert len(found) == len(WindowReader(store, SPEC)) == 14
    assert_same_windows(found, WindowReader(store, SPEC))
    assert sorted(path.name for path in shards.glob("*.tar")) == [f"shard-00000{k}.tar" for k in range(3)]


def test_jpeg_stores_give_their_own_bytes(tmp_path, embodiment, make_frames):
    store = record(tmp_path / "episodes.zarr", embodiment, make_frames, "jpeg")
    found = ShardWindows(export(store, tmp_path / "shards", **OPTIONS))
    assert found.windows.image == "jpg"
    assert_same_windows(found, WindowReader(store, SPEC))
    assert ShardWindows(export(store, tmp_path / "lossy", **OPTIONS, image="jpg", episodes=[1])).windows.image == "jpg"


def test_shards_do_not_depend_on_the_number_of_workers(store, shards, tmp_path):
    told = []
    other = export(store, tmp_path / "two", workers=2, progress=lambda *said: told.append(said), **OPTIONS)
    assert told == [(1, 3, "shards"), (2, 3, "shards"), (3, 3, "shards")]
    names = sorted(path.name for path in shards.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert all((shards / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_orders_are_seeded_and_can_be_resumed(store, shards, tmp_path):
    found = ShardWindows(shards)
    batches = found.batches(4, seed=3)
    first = [next(batches)["window"].tolist() for _ in range(7)]  # two epochs: each window twice
    assert sorted(window for batch in first for window in batch)[::2] == list(range(14))
    assert next(pickle.loads(pickle.dumps(found)).batches(4, seed=3, start=12))["window"].tolist() == first[3]  # noqa: S301
    assert next(found.batches(4, seed=4))["window"].tolist() != first[0]
    in_order = ShardWindows(export(store, tmp_path / "plain", shuffle=False, **OPTIONS))
    assert in_order.read(range(14))["window"].tolist() == list(range(14))
    assert found.read(range(14))["window"].tolist() != list(range(14))


def test_only_chosen_episodes(store, tmp_path):
    found = ShardWindows(export(store, tmp_path / "some", episodes=[2], **OPTIONS))
    assert set(found.read(range(len(found)))["episode"]) == {2}


def test_the_real_webdataset_reads_them(store, shards):
    import webdataset

    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 14
    reader = WindowReader(store, SPEC)
    for sample in samples:
        told = sample["json"]
        wanted = reader.read([told["window"]])
        np.testing.assert_array_equal(sample["top.1.png"], wanted["images.top"][0, 1])
        np.testing.assert_array_equal(sample["state.npy"], wanted["state"][0])
        np.testing.assert_array_equal(sample["action.npy"], wanted["action"][0])
        assert told["instruction"] == reader.instructions[wanted["instruction"][0]]


def test_a_torch_loader_takes_them(shards):
    from torch.utils.data import DataLoader

    batches = list(DataLoader(ShardWindows(shards), batch_size=7, num_workers=0))
    assert [tuple(batch["images.top"].shape) for batch in batches] == [(7, 2, 6, 8, 3)] * 2


def test_many_shards_do_not_use_up_descriptors(store, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_OPEN", 2)
    found = ShardWindows(export(store, tmp_path / "many", **{**OPTIONS, "shard_windows": 1}))
    found.read(range(14))
    assert len(found._files) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "gif"}, "image: unknown name 'gif'"),
        ({"shard_windows": 0}, "shard_windows is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"history": 0}, "history is 0"),
        ({"episodes": [7]}, "no episode 7"),
    ],
)
def test_options_that_do_not_fit(store, tmp_path, options, message):
    with pytest.raises(TandemError, match=message):
        export(store, tmp_path / "shards", **options)
    assert not (tmp_path / "shards").exists()


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not of windows that Tandem wrote"),
        ({"version": 2}, "version 2"),
        ({"history": 10**9}, "history, chunk, image"),
        ({"image": "exe"}, "history, chunk, image"),
        ({"instructions": [None]}, "instructions"),
        ({"shards": [{"name": "../../etc/passwd", "windows": 1}]}, "shards"),
        ({"shards": [{"name": "shard-000000.tar", "windows": 2**40}]}, "shards"),
        ({"shards": []}, "no shards"),
        ({"embodiment": {"name": "x"}}, "embodiment: Embodiment lacks"),
    ],
)
def test_contents_that_make_no_sense(copy, changes, message):
    path = copy / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(TandemError, match=message):
        ShardWindows(copy)


def test_damaged_shards_are_told(copy, tmp_path):
    index_path, tar = copy / "shard-000001.tar.index.npy", copy / "shard-000001.tar"
    index = np.load(index_path)
    state, picture = index[0, -3, 0], index[0, 0, 0]

    def fails(message: str, window: int = 5) -> None:
        with pytest.raises(TandemError, match=message):
            ShardWindows(copy).read([window])

    whole = tar.read_bytes()
    tar.write_bytes(whole[:picture] + b"junk" + whole[picture + 4 :])
    fails(r"shard-000001\.tar: window 0: top\.0: damaged picture")
    tar.write_bytes(whole[:state] + b"junk" + whole[state + 4 :])
    fails(r"window 0: state\.npy")
    tar.write_bytes(whole[: index[-1, -1, 0]])
    fails("window 4: the shard ends before it", 9)
    tar.unlink()
    fails(r"cannot read shard-000001\.tar")
    np.save(index_path, np.array([{}], object), allow_pickle=True)
    fails(r"shard-000001\.tar\.index\.npy")
    np.save(index_path, index[:2])
    fails(r"allowed: int64 \(5, 7, 2\)")
    index[0, 0, 0] = -1
    np.save(index_path, index)
    with pytest.raises(TandemError, match=r"cannot read|its index is damaged"):
        ShardWindows(copy).read([5])
    with pytest.raises(TandemError, match=r"window 14 \(allowed: 0..13\)"):
        ShardWindows(copy).read([14])


def test_kinds_of_actions_are_kept(store, shards):
    assert [scalar.kind for scalar in ShardWindows(shards).embodiment.action][1] is ActionKind.DELTA_STEP
