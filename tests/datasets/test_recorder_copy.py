"""Episodes go from store to store as they lie there, also where encoding them anew would lose something."""

from dataclasses import replace

import pytest

from tandem_datasets.codecs import CODECS
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


@pytest.mark.parametrize("codec", CODECS)
def test_copies_are_the_same_to_the_byte(tmp_path, embodiment, make_frames, assert_same_frames, codec):
    with Recorder(tmp_path / "a", embodiment, codec=codec, fsync=False) as recorder:
        for k, length in enumerate((3, 500, 40)):
            info = EpisodeInfo(k, f"say {k}", outcome="o", provenance={"k": k}, deleted=k == 1, begin_ns=5)
            recorder.write_episode(info, make_frames(embodiment, length, seed=k, begin_ns=7))
    source = Store(tmp_path / "a")
    with Recorder(tmp_path / "b", embodiment, codec=codec, group=2) as recorder:
        recorder.write_episode(EpisodeInfo(9, "other words first"), make_frames(embodiment, 10, seed=9))
        for k in (1, 2):
            recorder.copy(source, k)
        recorder.copy(source, 0, failure_reason="slipped", deleted=True)
    copied = Store(tmp_path / "b")
    for to, k in ((1, 1), (2, 2), (3, 0)):
        copied.verify(to)
        assert_same_frames(copied.frames(to), source.frames(k))
        for camera in embodiment.cameras:
            rows, new = source.episode_slice(k), copied.episode_slice(to)
            assert copied.stored(camera.name, new.start, new.stop) == source.stored(camera.name, rows.start, rows.stop)
        assert copied.info(to) == (
            replace(source.info(k), failure_reason="slipped", deleted=True) if k == 0 else source.info(k)
        )


def test_what_cannot_be_copied(tmp_path, embodiment, blind, make_frames):
    with Recorder(tmp_path / "a", embodiment, codec="raw", fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, ""), make_frames(embodiment, 3))
    source = Store(tmp_path / "a")
    for name, rig, codec in (("b", embodiment, "zstd"), ("c", blind, "raw")):
        with Recorder(tmp_path / name, rig, codec=codec) as recorder, pytest.raises(TandemError, match="another embod"):
            recorder.copy(source, 0)
    with Recorder(tmp_path / "d", embodiment, codec="raw") as recorder:
        with pytest.raises(TandemError, match="did you mean 'outcome'"):
            recorder.copy(source, 0, outcom="x")
        shard = tmp_path / "a/data/top/c.0.0.0.0"
        data = shard.read_bytes()
        shard.write_bytes(b"\xff\xff" + data[2:])
        with pytest.raises(TandemError, match="episode 0 is damaged"):
            recorder.copy(source, 0)
        shard.write_bytes(data)
        recorder.copy(source, 0)
        assert recorder.n_episodes == 1
