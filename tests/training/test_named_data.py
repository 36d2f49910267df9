import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_training import named_data
from tandem_training.data import load_frames, split_stores
from tandem_training.named_data import NamedData, evaluation_stores, ready, training_stores


def test_the_benchmark_has_its_sizes_and_seeds():
    data = named_data.named("blockfind_static")
    assert data.splits == {"train": (8000, 42), "validation": (1000, 43), "test": (1000, 44)}
    assert data.folder.parent == Path("outputs/data")


def test_it_is_made_once_and_then_reused(small_static, capsys):
    data = small_static
    stores = training_stores("blockfind_static")
    assert [Store(path).n_episodes for path in (*stores.learn, *stores.validate)] == [48, 24]
    assert "112 samples" in capsys.readouterr().out
    stamp = data.folder.stat().st_mtime_ns
    assert evaluation_stores("blockfind_static", "test") == [str(data.store("test"))]
    assert (capsys.readouterr().out, data.folder.stat().st_mtime_ns) == ("", stamp)
    assert {path.name for path in Path("outputs/data").iterdir()} == {data.folder.name, ".blockfind_static.lock"}


def test_another_specification_lies_elsewhere():
    one, other = (NamedData("a", "blockfind_static", {"train": (count, 0)}) for count in (1, 2))
    assert one.folder != other.folder


def test_two_at_once_make_one(tmp_path):
    code = (
        "from tandem_training.named_data import *\n"
        "data = NamedData('small', 'blockfind_static', {'train': (3000, 0), 'test': (1, 1)})\n"
        "ready(data); print('test', data.store('test').is_dir())"
    )
    command = [sys.executable, "-c", code]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
        said = [run.result().stdout for run in runs]
    assert all(text.endswith("test True\n") for text in said)
    assert sum("making" in text for text in said) == 1


def test_half_made_ones_are_made_anew(small_static):
    data = small_static
    beside = data.folder.with_name(f".{data.folder.name}.partial")
    (beside / "train.zarr").mkdir(parents=True)
    ready(data)
    assert Store(data.store("train")).n_episodes == 48
    assert not beside.exists()


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken = NamedData("broken", "blockfind_static", {"train": (2, 0), "validation": (2, -1)})
    with pytest.raises(ValueError, match="non-negative"):
        ready(broken)
    assert [path.name for path in Path("outputs/data").iterdir()] == [".broken.lock"]
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(named_data, "FOLDER", Path("taken"))
    with pytest.raises(TandemError, match=r"data=broken: taken/.* cannot be made: "):
        ready(broken)


def test_paths_stay_paths(tmp_path):
    assert training_stores(str(tmp_path)).learn == [str(tmp_path)]
    assert training_stores("a.zarr").learn == ["a.zarr"]
    assert training_stores(["a", "b"]).learn == ["a", "b"]
    assert evaluation_stores("a.zarr", "test") == ["a.zarr"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (7, r"data is 7 \(allowed: blockfind_static, a store"),
        (["a", "blockfind_static"], "stands among others"),
        ("blockfind_statik", "did you mean 'blockfind_static'"),
    ],
)
def test_what_is_refused(data, said):
    with pytest.raises(TandemError, match=said):
        training_stores(data)


def test_an_unknown_split_is_named():
    with pytest.raises(TandemError, match="did you mean 'test'"):
        evaluation_stores("a.zarr", "tests")


def test_episodes_that_two_stores_share_are_refused(tmp_path, record):
    """The same store twice let what was learned from be validated on."""
    from shutil import copytree

    one, other = record(tmp_path / "one", ["ee"] * 5), record(tmp_path / "other", ["ee"] * 2)
    copytree(one, tmp_path / "copy")
    load_frames([one, other])
    for twice in (one, tmp_path / "copy"):
        with pytest.raises(TandemError, match=r"holds 5 episodes of .*one"):
            load_frames([one, other, twice])


def test_stores_to_validate_on_are_not_learned_from(tmp_path, record):
    stores = [record(tmp_path / "a", ["ee"] * 3 + ["nn"]), record(tmp_path / "b", ["eee"])]
    frames, _ = load_frames(stores)
    split = split_stores(frames, 1)
    assert split.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert split.validation.tolist() == [8, 9, 10]
    assert (split.train_episodes, split.validation_episodes, split.shared) == (3, 1, False)
    assert np.unique(frames.store[split.validation]).tolist() == [1]
