"""Windows are what slicing whole episodes by hand gives, padding and all."""

import json
import os
import pickle
import shutil
import warnings
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from tandem_datasets.codecs import CODECS
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.rows import Buffers, _most_open
from tandem_datasets.stats import statistics
from tandem_datasets.store import Store
from tandem_datasets.windows import EXECUTED, SOURCES, WindowReader, WindowSpec

LENGTHS = (3, 300, 1, 40)


@pytest.fixture(scope="module", params=CODECS)
def path(request, tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("windows") / "store"
    with Recorder(path, embodiment, codec=request.param, fsync=False) as recorder:
        for k, length in enumerate(LENGTHS):
            recorder.write_episode(EpisodeInfo(k, "say"), make_frames(embodiment, length, seed=k))
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("windows") / "store"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for k, length in enumerate(LENGTHS):
            recorder.write_episode(EpisodeInfo(k, "say"), make_frames(embodiment, length, seed=k))
    return Store(path)


def _slow(store, columns, frame, history, chunk):
    """One window, step by step from loaded columns."""
    episode = int(np.searchsorted(store.episode_ends, frame, side="right"))
    rows = store.episode_slice(episode)
    kinds = [
        (2 if columns["has_label"][t] else int(columns["source"][t] in (1, 2)), columns["instruction"][t])
        for t in range(rows.stop)
    ]
    seen = [max(frame - back, rows.start) for back in range(history - 1, -1, -1)]
    acted = []
    for t in range(frame, frame + chunk):
        inside = t < rows.stop and all(kinds[u] == kinds[frame] for u in range(frame, t + 1))
        acted.append((t, False) if inside else (acted[-1][0], True))
    key = "action_label" if columns["has_label"][frame] else "action"
    return {
        **{f"images.{camera.name}": columns[camera.name][seen] for camera in store.embodiment.cameras},
        "state": columns["state"][seen],
        "observation_is_pad": np.array([frame - back < rows.start for back in range(history - 1, -1, -1)]),
        "action": columns[key][[t for t, _ in acted]],
        "action_is_pad": np.array([pad for _, pad in acted]),
        "instruction": columns["instruction"][frame],
        "episode": episode,
        "index": frame,
    }


@pytest.mark.parametrize("threads", [0, 3])
def test_windows_are_what_slicing_gives(path, threads):
    store = Store(path)
    reader = WindowReader(store, WindowSpec(history=3, chunk=5), threads=threads)
    usable = store.load("has_label") | np.isin(store.load("source"), (Source.PERSON, Source.EXPERT))
    assert reader.frames.tolist() == np.flatnonzero(usable).tolist()
    wanted = np.random.default_rng(0).integers(0, len(reader), 40)
    wanted[:3] = 0, len(reader) - 1, int(np.searchsorted(reader.frames, 255))
    batch = reader.read(wanted)
    columns = {key: store.load(key) for key in store.keys}
    for k, window in enumerate(wanted):
        slow = _slow(store, columns, int(reader.frames[window]), 3, 5)
        assert set(slow) == set(batch)
        for key, values in slow.items():
            np.testing.assert_array_equal(batch[key][k], values, err_msg=key)
    assert batch["images.top"].dtype == np.uint8
    assert batch["images.deep"].dtype == np.uint16
    assert (batch["state"].dtype, batch["action"].dtype) == (np.float32, np.float32)


def test_every_window_of_a_step_that_lasts_one_frame(one):
    reader = WindowReader(one, WindowSpec(history=2, chunk=4, learn=EXECUTED), episodes=[2])
    batch = reader.read([0])
    assert (len(reader), batch["index"].tolist(), batch["episode"].tolist()) == (1, [303], [2])
    assert batch["observation_is_pad"].tolist() == [[True, False]]
    assert batch["action_is_pad"].tolist() == [[False, True, True, True]]
    assert (batch["images.top"][0, 0] == batch["images.top"][0, 1]).all()


def test_what_was_done_whoever_acted(one):
    reader = WindowReader(one, WindowSpec(chunk=3, learn=EXECUTED))
    assert len(reader) == one.n_frames
    batch = reader.read([0, 1])
    np.testing.assert_array_equal(batch["action"][0], one.load("action")[:3])
    assert not batch["action_is_pad"][0].any()
    assert batch["action_is_pad"][1].tolist() == [
        False,
        False,
        True,
    ]  # the episode ends, the instruction does not matter
    assert reader.sources.tolist() == one.load("source").tolist()


def test_chunks_that_may_cross_runs(one):
    inside = WindowReader(one, WindowSpec(chunk=8)).read(np.arange(100))
    across = WindowReader(one, WindowSpec(chunk=8, cross_runs=True)).read(np.arange(100))
    assert (~across["action_is_pad"]).sum() > (~inside["action_is_pad"]).sum()
    kept = ~inside["action_is_pad"]
    np.testing.assert_array_equal(inside["action"][kept], across["action"][kept])


def test_stride_and_spacing(one):
    dense = WindowReader(one, WindowSpec(learn=EXECUTED))
    spread = WindowReader(one, WindowSpec(learn=EXECUTED, history=2, stride=10, spacing=3))
    starts = np.append(0, one.episode_ends[:-1])
    assert set(spread.frames) == {f for f in dense.frames if (f - starts[starts <= f].max()) % 10 == 0}
    batch = spread.read(np.arange(len(spread)))
    np.testing.assert_array_equal(
        batch["state"][:, 0], one.load("state")[np.maximum(spread.frames - 3, starts[batch["episode"]])]
    )


def test_sources_name_who_acts(one):
    reader = WindowReader(one, WindowSpec())
    labelled = one.load("has_label")[reader.frames]
    expected = np.where(labelled, SOURCES["label"], one.load("source")[reader.frames])
    assert reader.sources.tolist() == expected.tolist()


def test_only_some_cameras(one):
    batch = WindowReader(one, WindowSpec(cameras=("deep",))).read([0])
    assert [key for key in batch if key.startswith("images.")] == ["images.deep"]
    assert not [key for key in WindowReader(one, WindowSpec(cameras=())).read([0]) if key.startswith("images.")]
    with pytest.raises(TandemError, match="unknown name 'tap'; did you mean 'top'"):
        WindowReader(one, WindowSpec(cameras=("tap",)))


@pytest.mark.parametrize("change", [{"history": 0}, {"chunk": 2.0}, {"stride": True}, {"spacing": -1}])
def test_windows_that_cannot_be(change):
    with pytest.raises(TandemError, match=r"windows: .* \(allowed: a whole number, at least 1\)"):
        WindowSpec(**change)
    with pytest.raises(TandemError, match="unknown name 'all'"):
        WindowSpec(learn="all")


def test_numbers_that_are_not_there(one):
    reader = WindowReader(one)
    for number in (-1, len(reader)):
        with pytest.raises(TandemError, match=r"windows: number .* \(allowed: 0\.\."):
            reader.read([number])
    with pytest.raises(TandemError, match=r"windows: episode 4 \(allowed: 0\.\.3\)"):
        WindowReader(one, episodes=[4])
    empty = reader.read([])
    assert empty["images.top"].shape == (0, 1, 6, 8, 3)


def test_an_empty_store_has_no_window(tmp_path, embodiment):
    Recorder(tmp_path / "store", embodiment).close()
    reader = WindowReader(Store(tmp_path / "store"), WindowSpec(history=2, chunk=3))
    assert len(reader) == 0
    assert reader.read([])["action"].shape == (0, 3, 2)


def test_a_store_without_actions(tmp_path, embodiment):
    Recorder(tmp_path / "store", replace(embodiment, action=())).close()
    with pytest.raises(TandemError, match="its episodes have no action"):
        WindowReader(Store(tmp_path / "store"))


def test_pickled_and_forked_readers_read_on(path):
    reader = WindowReader(Store(path), WindowSpec(history=2, chunk=4), threads=2)
    expected = reader.read(np.arange(20))
    again = pickle.loads(pickle.dumps(reader)).read(np.arange(20))  # noqa: S301 - our own
    assert all((again[key] == values).all() for key, values in expected.items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are around, as they are in a training
        child = os.fork()
    if not child:
        found = reader.read(np.arange(20))
        os._exit(0 if all((found[key] == values).all() for key, values in expected.items()) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_remote_windows_are_the_same(path):
    system = fsspec.filesystem("memory")
    system.put(str(path), "/windows", recursive=True)
    try:
        local = WindowReader(Store(path), WindowSpec(history=3, chunk=5))
        remote = WindowReader(Store("memory://windows"), WindowSpec(history=3, chunk=5))
        wanted = np.random.default_rng(1).integers(0, len(local), 30)
        mine, theirs = local.read(wanted), remote.read(wanted)
        assert all(mine[key].tobytes() == theirs[key].tobytes() for key in mine)
    finally:
        system.rm("/windows", recursive=True)


@pytest.mark.parametrize("damage", ["cut", "missing", "index", "rows"])
def test_damaged_shards(one, tmp_path, damage):
    shutil.copytree(one.path, tmp_path / "store")
    file = tmp_path / "store/data/top/c.1.0.0.0"
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[:-5])
    else:
        place = -20 if damage == "index" else 1000
        data[place] ^= 1
        file.write_bytes(data)
    reader = WindowReader(Store(tmp_path / "store"), WindowSpec(learn=EXECUTED))
    with pytest.raises(TandemError, match=r"damaged|truncated|cannot read") as caught:
        reader.read(np.arange(256, 300))
    assert len(str(caught.value).splitlines()) == 1


def test_a_frame_of_a_deleted_episode_is_in_no_window(one, tmp_path):
    shutil.copytree(one.path, tmp_path / "store")
    with (tmp_path / "store/meta/deleted/c.0").open("r+b") as file:
        file.seek(1)
        file.write(b"\1")
    store = Store(tmp_path / "store")
    assert store.kept.tolist() == [0, 2, 3]
    reader = WindowReader(store, WindowSpec(learn=EXECUTED))
    assert len(reader) == 44
    assert 1 not in reader.read(np.arange(44))["episode"]
    assert len(WindowReader(store, WindowSpec(learn=EXECUTED), episodes=[1])) == 300  # asked for by number


def test_columns_larger_than_memory_are_read_when_asked_for(one, monkeypatch):
    expected = WindowReader(one, WindowSpec(history=2, chunk=7)).read(np.arange(50))
    monkeypatch.setattr("tandem_datasets.windows._IN_MEMORY", 0)
    found = WindowReader(one, WindowSpec(history=2, chunk=7)).read(np.arange(50))
    assert all(found[key].tobytes() == values.tobytes() for key, values in expected.items())


def test_few_files_are_held_open(tmp_path, blind, make_frames, monkeypatch):
    """More files than a process may open are read all the same."""
    monkeypatch.setattr("tandem_datasets.rows._most_open", lambda: 1)
    with Recorder(tmp_path / "store", blind, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, "say"), make_frames(blind, 4096 + 50))
    rows = Store(tmp_path / "store").rows("state")
    wanted = np.random.default_rng(0).permutation(len(rows))[:99]
    np.testing.assert_array_equal(rows[wanted], Store(tmp_path / "store").load("state")[wanted])
    assert len(rows._files) == 1


@pytest.mark.parametrize(
    "index", [5, -1, slice(250, 260), slice(None, None, 50), [3, 3, 4, 255, 256, 0], np.array([[1, 2], [2, 3]])]
)
def test_rows_are_indexed_as_an_array_is(one, index):
    whole = one.load("top")
    found = one.rows("top")[index]
    assert found.shape == whole[index].shape
    np.testing.assert_array_equal(found, whole[index])
    assert one.rows("top").shape == whole.shape


def test_rows_of_any_size_follow_each_other(tmp_path, embodiment):
    """A long stretch after a short one needs more room than there was."""
    rig = replace(embodiment, cameras=(replace(embodiment.cameras[0], height=64, width=64, intrinsics=None),), state=())
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 64, 64, 3), np.uint8)
    with Recorder(tmp_path / "store", rig, fsync=False) as recorder:
        recorder.begin(EpisodeInfo(0, "say"))
        for k, image in enumerate(images):
            seen = Observation({"top": image}, np.zeros(0, np.float32), "say", k * rig.period_ns)
            recorder.add(Frame(seen, np.zeros(2, np.float32), Source.EXPERT))
        recorder.commit()
    wanted = [3, 10, 11, *range(20, 60), 5, *range(60)]
    np.testing.assert_array_equal(Store(tmp_path / "store").rows("top")[wanted], images[wanted])


def test_rows_out_of_range(one):
    with pytest.raises(TandemError, match=r"data/top: row 344 \(allowed: 0\.\.343\)"):
        one.rows("top")[[0, 344]]


def test_memory_is_handed_out_again_only_when_nobody_holds_it():
    buffers = Buffers()
    first = buffers((1 << 20,), np.uint8)
    view = first[10:20]
    second = buffers((1 << 20,), np.uint8)
    assert not np.shares_memory(first, second)
    place = first.__array_interface__["data"][0]
    del first
    assert not np.shares_memory(view, buffers((1 << 20,), np.uint8))
    del view
    assert buffers((1 << 18,), np.float32).__array_interface__["data"][0] == place


def test_hostile_lengths_are_refused_before_memory_is_taken(one, tmp_path):
    shutil.copytree(one.path, tmp_path / "store")
    file = tmp_path / "store/meta/episode_ends/zarr.json"
    content = json.loads(file.read_bytes())
    content["shape"] = [2**40]
    file.write_text(json.dumps(content))
    with pytest.raises(TandemError, match="lacks files"):
        Store(tmp_path / "store")


def test_numbers_that_no_recorder_takes_are_refused(tmp_path, embodiment, make_frames):
    """Bug: a bit that tipped over in the file made one of them NaN, and training went on with it."""
    path = tmp_path / "a"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for k in range(2):
            frames = [replace(frame, source=Source.EXPERT, label=None) for frame in make_frames(embodiment, 10, seed=k)]
            recorder.write_episode(EpisodeInfo(k, "say"), frames)
    for key, row_bytes in (("state", 12), ("action", 8)):
        with (path / f"data/{key}/c.0.0").open("r+b") as file:
            file.seek(13 * row_bytes)
            kept = file.read(4)
            file.seek(13 * row_bytes)
            file.write(np.array([np.inf], "<f4").tobytes())
        store, words = Store(path), rf"data/{key} is damaged .row 13 is not finite"
        windows = WindowReader(store)
        windows.read(range(10))
        with pytest.raises(TandemError, match=words):
            windows.read(range(20))
        with pytest.raises(TandemError, match=words):
            statistics(store, cached=False)
        with Recorder(path, embodiment) as recorder:
            recorder.mark_deleted([1])
        store.refresh()
        statistics(store, cached=False)
        with Recorder(path, embodiment) as recorder:
            recorder.mark_deleted([1], deleted=False)
        with (path / f"data/{key}/c.0.0").open("r+b") as file:
            file.seek(13 * row_bytes)
            file.write(kept)


def test_a_process_without_a_limit_of_open_files(monkeypatch):
    """Bug: the limit is then -1, and hardly a file was kept open."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert _most_open() >= 1000
