"""Small real videos and folders of images as episodes."""

import json
import pickle
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from tandem_datasets.errors import TandemError
from tandem_datasets.formats import open_source
from tandem_datasets.formats.images import claims as claims_images
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.formats.video import claims
from tandem_datasets.frames import Source


def write_video(path, pictures, fps=20, pix_fmt="yuv420p", codec="mpeg4", times=None, **options):
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, fps, options={key: str(value) for key, value in options.items()})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pix_fmt
        stream.gop_size, stream.time_base = 8, Fraction(1, fps)
        for k, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (k if times is None else times[k]), Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def scene(kind, count, height=48, width=64):
    """Pictures of one colour and pattern, in which brightness tells the number."""
    rows, columns = np.mgrid[:height, :width]
    pattern = [rows // 8 % 2, columns // 8 % 2, (rows // 6 + columns // 6) % 2][kind][..., None] * 60
    tint = np.array([[90, 10, 10], [10, 90, 10], [10, 10, 120]][kind])
    return [np.clip(pattern + tint + 4 * k, 0, 255).astype(np.uint8) for k in range(count)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three scenes: 25, 30 and 21 pictures at 20 Hz, quality so high that brightness tells pictures apart."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, scene(0, 25) + scene(1, 30) + scene(2, 21), codec="libx264", pix_fmt="yuv444p", qp=0)
    path.with_suffix(".txt").write_text(" stack\nthe bricks ")
    return path


def brightness(frames):
    return [float(frame.observation.images["camera"].mean()) for frame in frames]


def test_scenes_become_episodes(tmp_path, clip):
    assert claims(str(clip.parent))
    source = open_source(str(clip.parent), "video", {"step_s": 0.1})
    body = source.embodiment
    assert (body.rate_hz, body.state, body.action, body.hears_instruction) == (10, (), (), True)
    assert body.cameras[0].shape == (48, 64, 3)
    store = import_episodes(pickle.loads(pickle.dumps(source)), tmp_path / "a.zarr")  # noqa: S301
    assert np.diff([0, *store.episode_ends]).tolist() == [13, 15, 11]
    for index, (kind, begin) in enumerate(((0, 0.0), (1, 1.25), (2, 2.75))):
        info, frames = store.info(index), store.frames(index)
        assert info.instruction == "stack the bricks"
        assert info.provenance["imported"]["begin_s"] == pytest.approx(begin, abs=1e-3)
        expected = [scene(kind, 40)[2 * k].mean() for k in range(len(frames))]
        assert brightness(frames) == pytest.approx(expected, abs=1.5)
        assert [frame.observation.stamp_ns for frame in frames[:3]] == [0, 100_000_000, 200_000_000]
        assert frames[0].source is Source.HOLD
    assert source.episode(1)[0].uuid == store.info(1).uuid


def test_whole_files_at_any_pace(clip):
    for options, count in (({"rate_hz": 20.0}, 76), ({"rate_hz": 50.0}, 188), ({"step_s": 0.5}, 8)):
        info, frames = open_source(str(clip), "video", {"scenes": False, **options}).episode(0)
        frames = list(frames)
        assert len(frames) == count
        for frame in frames:
            own = frame.observation.stream_stamps_ns["camera"]
            assert 0 <= frame.observation.stamp_ns - own < 50_000_000
            assert own % 50_000_000 in (0, 49_999_999)  # its own picture's
        assert info.end_ns == frames[-1].observation.stamp_ns


def test_pictures_of_uneven_times(tmp_path):
    path = write_video(
        tmp_path / "a.mp4", scene(0, 6), times=[0, 1, 2, 10, 11, 30], codec="libx264", pix_fmt="yuv444p", qp=0
    )
    source = open_source(str(path), "video", {"scenes": False, "rate_hz": 20.0})
    shown = brightness(source.episode(0)[1])
    assert len(shown) == 31
    expected = [scene(0, 6)[k].mean() for k in [0, 1] + [2] * 8 + [3] + [4] * 19 + [5]]
    assert shown == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mkv", "ffv1", "yuv444p10le"),
        ("b.avi", "ffv1", "gray"),
        ("c.mov", "png", "rgb48be"),
        ("d.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_odd_pixel_formats_become_rgb(tmp_path, name, codec, pix_fmt):
    path = write_video(tmp_path / name, scene(2, 3), codec=codec, pix_fmt=pix_fmt)
    frames = list(open_source(str(path), "video", {"scenes": False, "rate_hz": 20.0}).episode(0)[1])
    assert len(frames) == 3
    pixels, expected = frames[0].observation.images["camera"], scene(2, 1)[0]
    if pix_fmt == "gray":
        assert (pixels[..., 0] == pixels[..., 2]).all()
    else:
        assert np.abs(pixels.astype(int) - expected).mean() < 6


def test_the_rotation_in_the_file_is_undone(tmp_path):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32, 0] = 255  # the left half is red
    path = write_video(tmp_path / "phone.mp4", [picture] * 2)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30]  # to be shown turned clockwise by 90 degrees
    data[at : at + 36] = np.array(turned, ">i4").tobytes()
    path.write_bytes(data)
    source = open_source(str(path), "video")
    assert source.embodiment.cameras[0].shape == (64, 32, 3)
    pixels = next(iter(source.episode(0)[1])).observation.images["camera"].astype(int)
    assert pixels[:28, :, 0].mean() > 200  # now the upper half is
    assert pixels[36:, :, 0].mean() < 60


def test_sizes_are_fitted_or_refused(tmp_path, clip):
    write_video(tmp_path / "9.mp4", scene(0, 4))
    write_video(tmp_path / "10.mp4", scene(0, 4, 64, 48))
    (tmp_path / "10.json").write_text(json.dumps({"instruction": "sweep", "by": "ann"}))
    options = {"size": [16, 32], "crop": True, "instruction": "look"}
    source = open_source(str(tmp_path), "video", options)
    infos = [source.episode(k)[0] for k in range(2)]
    assert [info.instruction for info in infos] == ["look", "sweep"]
    assert infos[1].provenance["imported"]["sidecar"] == {"by": "ann"}
    assert {frame.observation.images["camera"].shape for k in range(2) for frame in source.episode(k)[1]} == {
        (16, 32, 3)
    }
    with pytest.raises(TandemError, match=r"10.mp4 at 0.000 s: 48x64 uint8 \(allowed: 64x48 uint8"):
        list(open_source(str(tmp_path), "video").episode(1)[1])


def test_broken_files_are_named_in_one_line(tmp_path, clip):
    data = clip.read_bytes()
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    (tmp_path / "c.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "d.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    for name in "bcd":
        with pytest.raises(TandemError, match=rf"{name}.mp4: cannot be decoded") as told:
            open_source(str(tmp_path / f"{name}.mp4"), "video")
        assert "\n" not in str(told.value)
    (tmp_path / "a.mp4").write_bytes(data)
    source = open_source(str(tmp_path), "video", {"skip_broken": True})
    assert (source.n_episodes, len(source.skipped)) == (3, 3)
    for place, told in ((tmp_path / "none", "no video file"), (__file__, "unknown suffix")):
        with pytest.raises(TandemError, match=told):
            open_source(str(place), "video")
    with pytest.raises(TandemError, match="allowed: one of them"):
        open_source(str(clip), "video", {"rate_hz": 2.0, "step_s": 0.5})


def test_folders_of_images_become_episodes(tmp_path):
    for folder, count in (("take_10", 2), ("take_9", 12)):
        (tmp_path / folder).mkdir()
        for k, pixels in enumerate(scene(0, count)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{k}.png")
    (tmp_path / "take_9/instruction.txt").write_text("fold it")
    assert claims_images(str(tmp_path))
    assert not claims(str(tmp_path))
    source = open_source(str(tmp_path), "images", {"rate_hz": 5.0})
    store = import_episodes(source, tmp_path / "a.zarr")
    assert [store.info(k).instruction for k in range(2)] == ["fold it", ""]
    np.testing.assert_array_equal(store.load("camera"), np.stack(scene(0, 12) + scene(0, 2)))
    assert store.frames(0)[1].observation.stamp_ns == 200_000_000


def test_images_of_other_kinds(tmp_path):
    pixels = scene(1, 1)[0]
    upright = Image.fromarray(pixels)
    tags = Image.Exif()
    tags[0x0112] = 6  # to be turned clockwise by 90 degrees
    upright.save(tmp_path / "1.jpg", exif=tags, quality=100, subsampling=0)
    upright.rotate(-90, expand=True).convert("RGBA").save(tmp_path / "2.png")
    frames = list(open_source(str(tmp_path), "images").episode(0)[1])
    a, b = (frame.observation.images["camera"] for frame in frames)
    assert a.shape == b.shape == (64, 48, 3)
    assert np.abs(a.astype(int) - b).mean() < 3
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep/1.png"), np.full((4, 5), 1234, np.uint16))
    source = open_source(str(tmp_path / "deep"), "images")
    assert next(iter(source.episode(0)[1])).observation.images["camera"].dtype == np.uint16
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TandemError, match=r"3.png: no picture: no known encoding"):
        list(open_source(str(tmp_path), "images").episode(0)[1])
    (tmp_path / "1.json").write_text("[]")
    with pytest.raises(TandemError, match="no images"):
        open_source(str(tmp_path / "1.json"), "images")
