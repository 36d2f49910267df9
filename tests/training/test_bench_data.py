"""`tandem bench data` on little: that each measurement measures, not how quick this machine is."""

import numpy as np
import pytest

from tandem_datasets.dataset import WindowDataset
from tandem_datasets.formats import webdataset
from tandem_datasets.store import Store
from tandem_datasets.windows import WindowReader
from tandem_training.benches import _data_opening, _data_reading, _data_scenes, data
from tandem_training.config import compose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    for codec in ("jpeg", "raw"):
        _data_scenes.record(folder / codec, codec, 2, 40)
    webdataset.export(Store(folder / "jpeg"), folder / "shards", history=2, chunk=16)
    return folder


def test_the_baseline_in_memory_gives_the_same_windows(folder):
    dataset = WindowDataset([WindowReader(Store(folder / "raw"), _data_reading.SPEC)])
    ours, theirs = dataset.read(np.arange(80)), _data_reading.InMemory(dataset).read(np.arange(80))
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_every_reading_row_compares_two_rates(folder):
    rows = [
        _data_reading.read_jpeg(folder / "jpeg", 1, 1),
        _data_reading.read_raw(folder / "raw", 1, 1),
        _data_reading.vs_webdataset(folder / "jpeg", folder / "shards", 1, 1),
        _data_reading.loader_jpeg(folder / "jpeg", 2, 1),
        _data_reading.loader_raw(folder / "raw", 2, 1),
    ]
    for row in rows:
        assert row.value is not None
        assert 0 < row.value < 100  # so few windows tell no more
        assert "windows" in row.note


def test_opening_tells_time_and_memory(tmp_path):
    _data_opening.record_many(tmp_path / "many", 300)
    assert Store(tmp_path / "many").n_episodes == 300
    first, everything, memory = _data_opening.opening(tmp_path / "many", 1)
    assert first.value > 0
    assert everything.value > 0
    assert "12 numeric columns" in everything.note
    assert memory.value < 50


def test_all_rows_are_in_a_group(tmp_path):
    config = compose("bench_data", [f"cache={tmp_path}"])
    assert [row.name for row in data.measure(config, set())] == list(data.TARGETS)
