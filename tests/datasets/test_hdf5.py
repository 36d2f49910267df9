"""Files as robomimic and ALOHA write them, and files that are not what they say."""

import io
import json
import pickle

import h5py
import numpy as np
import pytest
from PIL import Image

from tandem_datasets.embodiment import StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import open_source
from tandem_datasets.formats.hdf5 import claims
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.frames import Source

ENV = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 25}}


def pictures(steps, seed, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (steps, 6, 8, channels), np.uint8)


@pytest.fixture
def demos(tmp_path):
    """Eleven demonstrations; the last is of one step."""
    path = tmp_path / "demo.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV)
        for k in range(11):
            steps, rng = 11 - k, np.random.default_rng(k)
            demo = data.create_group(f"demo_{k}")
            demo.attrs["num_samples"] = steps
            demo["actions"] = rng.normal(size=(steps, 7))
            demo["rewards"] = np.array([0.0] * (steps - 1) + [1.0 if k % 2 else 0.0])
            demo["dones"] = np.ones(steps, np.int64) if k % 2 else np.zeros(steps, np.int64)
            demo["states"] = rng.normal(size=(steps, 32))
            demo.create_dataset("obs/agentview_image", data=pictures(steps, k), compression="gzip", chunks=(1, 6, 8, 3))
            demo["obs/robot0_eye_in_hand_depth"] = np.full((steps, 6, 8, 1), k, np.uint16)
            demo["obs/robot0_joint_pos"] = rng.normal(size=(steps, 3))
            demo["obs/robot0_gripper_qpos"] = rng.normal(size=(steps, 2)).astype(np.float32)
            demo["obs/object"] = np.full(steps, k)
            demo["next_obs/object"] = np.full(steps, k)
        file["mask/train"] = np.array([f"demo_{k}" for k in range(9)], "S")
        file["mask/valid"] = np.array(["demo_9", "demo_10"], "S")
    return path


def change(path, function):
    with h5py.File(path, "r+") as file:
        function(file["data/demo_1"])
    return str(path)


def test_robomimic_demonstrations_become_episodes(tmp_path, demos):
    assert claims(str(demos))
    source = open_source(str(demos), "hdf5", {"instruction": "lift the cube", "actor": "expert"})
    body = source.embodiment
    assert (body.name, body.rate_hz, body.hears_instruction) == ("lift", 25, True)
    assert [camera.name for camera in body.cameras] == ["agentview", "robot0_eye_in_hand_depth"]
    assert [scalar.name for scalar in body.state] == [
        "object", "robot0_gripper_qpos_0", "robot0_gripper_qpos_1",
        "robot0_joint_pos_0", "robot0_joint_pos_1", "robot0_joint_pos_2",
    ]  # fmt: skip
    assert [scalar.source for scalar in body.state][::2] == [
        StateSource.POSE, StateSource.GRIP, StateSource.JOINT_POSITION,
    ]  # fmt: skip
    assert (body.state[0].low, body.state[0].high, body.action_dim) == (0, 10, 7)
    store = import_episodes(pickle.loads(pickle.dumps(source)), tmp_path / "a.zarr")  # noqa: S301
    assert [store.episode_slice(k).stop - store.episode_slice(k).start for k in range(11)] == list(range(11, 0, -1))
    info, frames = store.info(9), store.frames(9)
    assert (info.success, info.outcome, info.env) == (True, "success", "Lift")
    assert info.provenance["imported"]["splits"] == ["valid"]
    assert info.provenance["imported"]["env_args"] == ENV
    with h5py.File(demos) as file:
        demo = file["data/demo_9"]
        np.testing.assert_array_equal(store.load("agentview", 63, 65), demo["obs/agentview_image"][:])
        assert store.load("action", 63, 65).tobytes() == demo["actions"][:].astype(np.float32).tobytes()
        assert frames[0].observation.state[3:].tolist() == demo["obs/robot0_joint_pos"][0].astype(np.float32).tolist()
    assert frames[0].observation.images["robot0_eye_in_hand_depth"][0, 0, 0] == 9
    ends = [(frame.terminated, frame.truncated, frame.success, frame.reward) for frame in frames]
    assert ends == [(False, False, False, 0.0), (True, False, True, 1.0)]
    assert frames[0].source is Source.EXPERT
    assert store.frames(8)[-1].truncated
    assert frames[1].observation.stamp_ns == 40_000_000


def test_options_choose(demos):
    options = {"cameras": ["agentview_image"], "state": ["object"], "map": {"object": "wrench"}, "rate_hz": 10.0}
    body = open_source(str(demos), "hdf5", options).embodiment
    assert (len(body.cameras), body.rate_hz, body.state[0].source) == (1, 10, StateSource.WRENCH)
    assert body.state_dim == 1


@pytest.mark.parametrize("compressed", [False, True])
def test_aloha_files_become_episodes(tmp_path, compressed):
    shown = pictures(4, 0)
    shown[:] = shown[:, :1, :1]  # flat ones come through JPEG nearly as they were
    for k in (10, 9):
        with h5py.File(tmp_path / f"episode_{k}.hdf5", "w") as file:
            file.attrs["sim"] = False
            file["action"] = np.full((4, 14), k, np.float32)
            for key in ("qpos", "qvel", "effort"):
                file[f"observations/{key}"] = np.full((4, 14), k, np.float32)
            if compressed:
                rows = []
                for pixels in shown:
                    data = io.BytesIO()
                    Image.fromarray(pixels).save(data, "JPEG", quality=100, subsampling=0)
                    rows.append(np.frombuffer(data.getvalue().ljust(900, b"\0"), np.uint8))
                file["observations/images/cam_high"] = np.stack(rows)
                file["compress_len"] = np.full((1, 4), 900)
            else:
                file["observations/images/cam_high"] = shown
    assert claims(str(tmp_path))
    source = open_source(str(tmp_path), "hdf5")
    assert (source.n_episodes, source.embodiment.rate_hz, source.embodiment.state_dim) == (2, 50, 42)
    kinds = {scalar.source for scalar in source.embodiment.state}
    assert kinds == {StateSource.JOINT_POSITION, StateSource.JOINT_VELOCITY, StateSource.JOINT_EFFORT}
    frames = [list(source.episode(k)[1]) for k in (0, 1)]
    assert [part[0].action[0] for part in frames] == [9, 10]
    for frame, pixels in zip(frames[0], shown, strict=True):
        difference = frame.observation.images["cam_high"].astype(int) - pixels
        assert abs(difference).max() <= (3 if compressed else 0)


def _link(kind):
    def spoil(demo):
        del demo["obs/object"]
        demo["obs/object"] = h5py.ExternalLink("/etc/hostname", "/x") if kind == "external" else h5py.SoftLink("/data")

    return spoil


def _replace(key, make):
    def spoil(demo):
        del demo[key]
        make(demo)

    return spoil


def _object(*values, **options):
    return _replace("obs/object", lambda demo: demo.create_dataset("obs/object", *values, **options))


def _virtual(demo):
    layout = h5py.VirtualLayout((10,), np.float64)
    layout[:] = h5py.VirtualSource("other.hdf5", "x", (10,))
    demo.create_virtual_dataset("obs/object", layout)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_link("external"), "obs/object is a ExternalLink"),
        (_link("soft"), "obs/object is a SoftLink"),
        (_replace("obs/object", _virtual), "its data is in other files"),
        (_object((10,), "f8", external=[("/etc/hostname", 0, 80)]),
         "its data is in other files"),
        (_object((10,), h5py.string_dtype()), "type object"),
        (_object((10,), h5py.vlen_dtype(np.int32)), "type object"),
        (_object((10,), [("a", "f8")]), "plain numbers"),
        (_object(data=np.zeros(9)), "different lengths"),
        (_object(data=np.zeros((10, 2))), "object has 2 numbers"),
        (_object(data=np.full(10, np.nan)), "not finite"),
        (_object(data=np.zeros((10, 2, 2))), r"leave it out"),
        (_replace("actions", lambda d: d.create_dataset("actions", (1 << 40, 7), "f4", chunks=(1, 7))), "0 stored"),
        (_replace("actions", lambda d: d.create_dataset("actions", (10, 1 << 34), "f4", chunks=(1, 7))), "rows of"),
        (_replace("obs/agentview_image", lambda d: None), "obs/agentview_image: missing"),
        (_replace("rewards", lambda d: d.create_dataset("rewards", data=np.zeros(3))), "rewards has shape"),
    ],
)  # fmt: skip
def test_files_that_lie_are_refused_in_one_line(demos, spoil, told):
    path = change(demos, spoil)

    def read():
        for _ in open_source(path, "hdf5").episode(1)[1]:
            pass

    with pytest.raises(TandemError, match=told) as refused:
        read()
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path, demos):
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(TandemError, match="cannot be opened"):
        open_source(str(tmp_path / "a.hdf5"), "hdf5")
    (tmp_path / "b.hdf5").write_bytes(demos.read_bytes()[:3000])
    with pytest.raises(TandemError, match="cannot be opened"):
        open_source(str(tmp_path / "b.hdf5"), "hdf5")
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file["x"] = [1]
    with pytest.raises(TandemError, match="neither data/demo"):
        open_source(str(tmp_path / "c.hdf5"), "hdf5")
    with pytest.raises(TandemError, match=r"unknown name 'object2'.*did you mean 'object'"):
        open_source(str(demos), "hdf5", {"state": ["object2"]})
    assert not claims(str(tmp_path / "none"))


def test_pictures_are_resized_on_request(demos):
    """Networks want multiples of their patch, and robomimic's pictures are 84x84."""
    plain, small = (open_source(str(demos), "hdf5", {} if size is None else {"size": size}) for size in (None, [3, 4]))
    assert [camera.shape for camera in small.embodiment.cameras] == [(3, 4, 3), (3, 4, 1)]
    (_, whole), (_, frames) = plain.episode(2), small.episode(2)
    for before, after in zip(whole, frames, strict=True):
        pixels = before.observation.images["agentview"].reshape(3, 2, 4, 2, 3)
        mean = pixels.mean((1, 3))
        assert np.abs(after.observation.images["agentview"] - mean).max() <= 0.5
        assert (after.observation.images["robot0_eye_in_hand_depth"] == 2).all()
    with pytest.raises(TandemError, match=r"size is .3. .allowed: .height, width."):
        open_source(str(demos), "hdf5", {"size": [3]})


def test_a_file_that_is_only_named_so(tmp_path):
    (tmp_path / "empty.hdf5").touch()
    with pytest.raises(TandemError, match=r"hdf5 .*empty.hdf5: cannot be opened"):
        open_source(str(tmp_path / "empty.hdf5"))
