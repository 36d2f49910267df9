import os
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from tandem_datasets import stats
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.stats import statistics
from tandem_datasets.store import Store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/tandem/statistics"


@pytest.fixture(scope="module")
def store(tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("stats") / "store"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for k, length in enumerate((30, 100)):
            recorder.write_episode(EpisodeInfo(k, "say"), make_frames(embodiment, length, seed=k))
    return Store(path)


def _same(summary, values):
    assert summary.count == len(values)
    np.testing.assert_allclose(summary.mean, values.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(summary.std, values.std(0, dtype=np.float64), rtol=1e-12)
    assert (summary.min, summary.max) == (values.min(0).tolist(), values.max(0).tolist())
    assert list(summary.quantiles) == ["0.01", "0.1", "0.5", "0.9", "0.99"]


def test_scalars_are_described_exactly(store, monkeypatch):
    monkeypatch.setattr(stats, "_BLOCK", 17)  # so that parts are merged
    found = statistics(store, learn="executed")
    assert list(found) == ["state", "action", "images.top", "images.deep"]
    _same(found["state"], store.load("state"))
    _same(found["action"], store.load("action"))
    assert found["state"].names == ["elbow", "elbow", "tcp/x"]
    exact = np.quantile(store.load("state").astype(np.float64), 0.9, axis=0)
    np.testing.assert_allclose(found["state"].quantiles["0.9"], exact)


def test_images_are_described_by_channel(store):
    found = statistics(store, learn="executed")
    for name in ("top", "deep"):
        images = store.load(name)
        _same(found[f"images.{name}"], images.reshape(-1, images.shape[-1]))
        exact = np.quantile(images.reshape(-1, images.shape[-1]), 0.5, axis=0)
        np.testing.assert_allclose(found[f"images.{name}"].quantiles["0.5"], exact, rtol=0.01)


def test_only_what_teaches_is_described(store):
    labelled, acted = store.load("has_label"), np.isin(store.load("source"), (Source.PERSON, Source.EXPERT))
    taught = np.where(labelled[:, None], store.load("action_label"), store.load("action"))[labelled | acted]
    _same(statistics(store)["action"], taught)
    _same(statistics(store)["state"], store.load("state")[labelled | acted])


def test_a_few_images_stand_for_many(store):
    one, again = (statistics(store, frames=10, seed=1, cached=False)["images.top"] for _ in range(2))
    assert one == again
    assert one.count == 10 * 6 * 8
    assert statistics(store, frames=10, seed=2, cached=False)["images.top"] != one


def test_only_some_episodes(store):
    _same(statistics(store, [1], learn="executed")["state"], store.load("state")[30:])


def test_they_are_computed_once(store, cache, monkeypatch):
    told = []
    first = statistics(store, progress=lambda done, total, unit: told.append((done, total, unit)))
    assert told[-1][0] == told[-1][1]
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(stats, "_computed", lambda *_: pytest.fail("computed again"))
    assert statistics(Store(store.path)) == first


def test_another_content_has_others(tmp_path, embodiment, make_frames, cache):
    with Recorder(tmp_path / "store", embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, "say"), make_frames(embodiment, 10))
        before = statistics(Store(tmp_path / "store"))
        recorder.write_episode(EpisodeInfo(1, "say"), make_frames(embodiment, 10, seed=1))
    after = statistics(Store(tmp_path / "store"))
    assert before["state"].count < after["state"].count
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"[]", b'{"state": {}}', b'{"state": 1}', None])
def test_a_damaged_cache_is_made_anew(store, cache, content):
    expected = statistics(store)
    (file,) = cache.iterdir()
    content = content or file.read_bytes().replace(b'"max"', b'"most"', 1)  # of one part only
    file.write_bytes(content)
    assert statistics(store) == expected
    assert file.read_bytes() != content


def test_a_cache_that_cannot_be_written(store, cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("somebody's file")
    assert statistics(store)["state"].count
    assert os.path.isfile(cache)


def test_remote_stores_have_the_same(store, cache):
    fsspec.filesystem("memory").put(str(store.path), "/described", recursive=True)
    assert statistics(Store("memory://described")) == statistics(store)
    assert len(list(cache.iterdir())) == 1  # the same content
    fsspec.filesystem("memory").rm("/described", recursive=True)


def test_videos_are_described_by_their_pictures(tmp_path, embodiment, make_frames):
    watched = replace(embodiment, name="watched", action=())
    frames = [replace(frame, source=Source.HOLD, label=None) for frame in make_frames(watched, 6)]
    with Recorder(tmp_path / "store", watched, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, "say"), frames)
    found = statistics(Store(tmp_path / "store"))
    assert set(found) == {"state", "images.top", "images.deep"}
    assert found["images.top"].count == 6 * 6 * 8


def test_nothing_to_describe(tmp_path, embodiment):
    Recorder(tmp_path / "store", embodiment).close()
    with pytest.raises(TandemError, match="no frame to describe"):
        statistics(Store(tmp_path / "store"))
    with pytest.raises(TandemError, match="learn=all"):
        statistics(Store(tmp_path / "store"), learn="all")
