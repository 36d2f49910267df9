"""Stores that lack a part: no action, no state, no camera, episodes marked as deleted."""

from dataclasses import replace

import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.formats import export, open_source
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


def record(path, body, make_frames, deleted=()):
    with Recorder(path, body, codec="raw", fsync=False) as recorder:
        for seed in range(3):
            frames = [fitting(body, frame) for frame in make_frames(body, 3, seed)]
            recorder.write_episode(EpisodeInfo(seed, "go", deleted=seed in deleted), frames)
    return Store(path)


def fitting(body, frame):
    known = {*(camera.name for camera in body.cameras), *(["state"] if body.state else [])}
    stamps = {name: stamp for name, stamp in frame.observation.stream_stamps_ns.items() if name in known}
    return replace(frame, observation=replace(frame.observation, stream_stamps_ns=stamps))


@pytest.mark.parametrize("form", ["lerobot", "replay_buffer"])
@pytest.mark.parametrize("missing", ["action", "state", "cameras"])
def test_what_is_not_there_does_not_come_back_either(
    embodiment, make_frames, assert_same_frames, tmp_path, form, missing
):
    store = record(tmp_path / "episodes.zarr", replace(embodiment, **{missing: ()}), make_frames)
    source = open_source(str(export(store, form, tmp_path / "there")))
    found = import_episodes(source, tmp_path / "back", codec="raw")
    assert found.embodiment == store.embodiment
    for episode in range(3):
        assert_same_frames(found.frames(episode), store.frames(episode))


@pytest.mark.parametrize("form", ["lerobot", "replay_buffer", "webdataset"])
def test_deleted_episodes_stay_behind(embodiment, make_frames, tmp_path, form):
    store = record(tmp_path / "episodes.zarr", embodiment, make_frames, deleted=(1,))
    target = export(store, form, tmp_path / "there")
    if form != "webdataset":
        source = open_source(str(target))
        assert [source.episode(index)[0].seed for index in range(source.n_episodes)] == [0, 2]
    everything = record(tmp_path / "all.zarr", embodiment, make_frames, deleted=(0, 1, 2))
    with pytest.raises(TandemError, match="no episodes"):
        export(everything, form, tmp_path / "none")
