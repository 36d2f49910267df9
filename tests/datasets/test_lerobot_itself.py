"""What LeRobot makes of our datasets, and we of its: its import alone takes half a minute and a gigabyte."""

from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.embodiment import Camera
from tandem_datasets.formats import open_source
from tandem_datasets.formats.lerobot import export, writing
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def level(episode: int, t: int) -> int:
    return 20 + 50 * episode + 8 * t


@pytest.fixture(scope="module")
def store(tmp_path_factory, embodiment, make_frames):
    """Three episodes; the colour cameras show one brightness a frame, so that a wrong frame is seen in a video."""
    body = replace(embodiment, cameras=(Camera("left", 64, 96), Camera("right", 64, 64), embodiment.cameras[1]))
    path = tmp_path_factory.mktemp("itself") / "episodes.zarr"
    with Recorder(path, body, fsync=False) as recorder:
        for episode in range(3):
            frames = []
            for t, frame in enumerate(make_frames(body, 5, episode)):
                shown = {camera.name: np.full(camera.shape, level(episode, t), np.uint8) for camera in body.cameras[:2]}
                seen = replace(frame.observation, images={**frame.observation.images, **shown})
                frames.append(replace(frame, observation=seen))
            recorder.write_episode(EpisodeInfo(episode, "look"), frames)
    return Store(path)


@pytest.mark.parametrize("video", [False, True])
def test_lerobot_opens_what_we_write(store, tmp_path, monkeypatch, video):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    monkeypatch.setattr(writing, "_FILE_ROWS", 10)  # two files: of two episodes, and of one
    root = export(store, tmp_path / "dataset", video=video)
    found = LeRobotDataset("me/here", root=root, video_backend="pyav")
    assert (len(found), found.num_episodes, found.fps) == (15, 3, 30)
    assert list(found.meta.tasks.index) == ["find the red block", "finde den roten Würfel"]
    states, actions, deep = (store.load(key) for key in ("state", "action", "deep"))
    wordings, codes = store.instructions, store.load("instruction")
    for row in range(len(found)):
        item = found[row]
        for camera in ("left", "right"):
            picture = item[f"observation.images.{camera}"].mul(255).numpy()
            wanted = store.load(camera, row, row + 1)[0].transpose(2, 0, 1)
            assert np.abs(picture - wanted).max() <= (3 if video else 1e-3)
        np.testing.assert_array_equal(item["observation.images.deep"].numpy()[0], deep[row, ..., 0])
        np.testing.assert_array_equal(item["observation.state"].numpy(), states[row])
        np.testing.assert_array_equal(item["action"].numpy(), actions[row])
        assert item["task"] == wordings[codes[row]]
        assert item["next.done"].item() == (row % 5 == 4 or bool(store.load("truncated", row, row + 1)[0]))
    window = {"observation.images.left": [-1 / 30, 0.0], "action": [0.0, 1 / 30, 2 / 30]}
    item = LeRobotDataset("me/here", root=root, video_backend="pyav", delta_timestamps=window)[13]
    levels = item["observation.images.left"].mul(255).mean((1, 2, 3)).numpy()
    assert np.abs(levels - [level(2, 2), level(2, 3)]).max() < 3
    np.testing.assert_array_equal(item["action"].numpy(), actions[[13, 14, 14]])
    np.testing.assert_array_equal(item["action_is_pad"].numpy(), [False, False, True])
    np.testing.assert_allclose(found.meta.stats["action"]["mean"], actions.mean(0), rtol=1e-5)


@pytest.mark.parametrize("video", [False, True])
def test_we_open_what_lerobot_writes(store, tmp_path, video):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        "observation.images.cam": {
            "dtype": "video" if video else "image",
            "shape": (64, 96, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a.pos", "b.pos"]},
        "action": {"dtype": "float32", "shape": (1,), "names": ["a.pos"]},
    }
    theirs = LeRobotDataset.create(
        "me/theirs", fps=10, features=features, root=tmp_path / "theirs", robot_type="arm", use_videos=video,
        data_files_size_in_mb=1, video_files_size_in_mb=1,
    )  # fmt: skip
    for episode in range(3):
        for t in range(4):
            theirs.add_frame(
                {
                    "observation.images.cam": np.full((64, 96, 3), level(episode, t), np.uint8),
                    "observation.state": np.float32([t, episode]),
                    "action": np.float32([t / 4]),
                    "task": f"task {episode % 2}",
                }
            )
        theirs.save_episode()
    theirs.finalize()
    source = open_source(str(tmp_path / "theirs"))
    body = source.embodiment
    assert (body.name, body.rate_hz, source.n_episodes) == ("arm", 10.0, 3)
    assert [(scalar.name, scalar.low, scalar.high) for scalar in body.state] == [("a", 0, 3), ("b", 0, 2)]
    for episode in range(3):
        info, frames = source.episode(episode)
        assert info.instruction == f"task {episode % 2}"
        for t, frame in enumerate(frames):
            assert frame.observation.state.tolist() == [t, episode]
            assert frame.action.tolist() == [t / 4]
            assert frame.observation.stamp_ns == t * 100_000_000
            error = np.abs(frame.observation.images["cam"].astype(int) - level(episode, t)).max()
            assert error <= (3 if video else 0)
        assert t == 3
