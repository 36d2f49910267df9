"""Videos as LeRobot writes and reads them, through PyAV alone."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.packages import package

_SVT = "libsvtav1"
_SVT_PRESET = 12  # LeRobot's


@dataclass(frozen=True)
class VideoOptions:
    """How cameras are encoded: LeRobot's names, meanings and defaults."""

    vcodec: str = _SVT  # FFmpeg's encoder: libsvtav1, h264, hevc, libaom-av1 ...
    pix_fmt: str = "yuv420p"
    g: int = 2  # a key frame every so many
    crf: int = 30  # quality: lower is better and larger
    preset: int | str | None = None  # speed, in the encoder's own words; None: 12 for libsvtav1, else its own
    fast_decode: int = 0

    def encoder_options(self) -> dict[str, str]:
        """As FFmpeg takes them; on one thread, so that the result does not depend on the machine."""
        options: dict[str, Any] = {"g": self.g, "crf": self.crf}
        if self.vcodec == _SVT:
            options |= {"preset": _SVT_PRESET if self.preset is None else self.preset}
            options |= {"svtav1-params": f"fast-decode={self.fast_decode}:lp=1"}
        else:
            options |= {} if self.preset is None else {"preset": self.preset}
            options |= {"tune": "fastdecode"} if self.fast_decode and self.vcodec in ("h264", "hevc") else {}
            options |= {"threads": 1}
        return {key: str(value) for key, value in options.items()}

    def check(self, where: str) -> None:
        """Raises TandemError unless this FFmpeg has the encoder and it takes the pixel format."""
        av = package("av", where)
        try:
            codec = av.codec.Codec(self.vcodec, "w")
        except (av.error.FFmpegError, ValueError) as error:
            raise TandemError(f"{where}: vcodec is '{self.vcodec}' (allowed: an encoder of this FFmpeg)") from error
        formats = [form.name for form in codec.video_formats or []]
        if codec.type != "video" or (formats and self.pix_fmt not in formats):
            raise TandemError(f"{where}: pix_fmt is '{self.pix_fmt}' (allowed for {self.vcodec}: {', '.join(formats)})")
        if self.g < 1 or self.fast_decode not in (0, 1, 2):
            raise TandemError(f"{where}: g is {self.g}, fast_decode {self.fast_decode} (allowed: g from 1, 0..2)")


class VideoWriter:
    """One mp4 file, image by image. Use it as a context; the file is complete after that."""

    def __init__(self, path: Path, fps: int, height: int, width: int, options: VideoOptions, where: str) -> None:
        self._av = package("av", where)
        self._where = f"{where}: {path.name}"
        os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 writes to stderr past FFmpeg's own log
        path.parent.mkdir(parents=True, exist_ok=True)
        self._frames = 0
        self._fps = fps
        try:
            self._file = self._av.open(os.fspath(path), "w")
            self._stream = self._file.add_stream(options.vcodec, fps, options=options.encoder_options())
        except (self._av.error.FFmpegError, ValueError) as error:
            raise self._broken(error) from error
        self._stream.pix_fmt = options.pix_fmt
        self._stream.height, self._stream.width = height, width
        self._stream.time_base = Fraction(1, fps)

    def add(self, image: np.ndarray, begins: bool) -> None:
        """The next image, uint8 (H, W, 3); ``begins`` makes it a key frame."""
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self._frames, Fraction(1, self._fps)
        if begins:
            frame.pict_type = self._av.video.frame.PictureType.I
        self._frames += 1
        self._encode(frame)

    def _encode(self, frame: Any) -> None:
        try:
            self._file.mux(self._stream.encode(frame))
        except (self._av.error.FFmpegError, ValueError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> TandemError:
        return TandemError(f"{self._where}: cannot be encoded: {str(error)[:120]}")

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._encode(None)
        finally:
            self._file.close()


def video_info(path: Path, options: VideoOptions, where: str) -> dict[str, Any]:
    """What LeRobot's ``info.json`` tells of a camera's videos."""
    av = package("av", where)
    with av.open(os.fspath(path)) as file:
        stream = file.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.fps": int(stream.base_rate),
            "video.channels": len(av.VideoFormat(stream.pix_fmt).components),
            "has_audio": False,
            "video.g": options.g,
            "video.crf": options.crf,
            "video.preset": _SVT_PRESET if options.vcodec == _SVT and options.preset is None else options.preset,
            "video.fast_decode": options.fast_decode,
            "video.video_backend": "pyav",
            "video.extra_options": {},
            "is_depth_map": False,
        }


def read_video(
    path: Path, start_s: float, count: int, fps: float, shape: tuple[int, int, int], where: str
) -> Iterator[np.ndarray]:
    """``count`` images, uint8 ``shape``, from ``start_s`` on, one every ``1 / fps`` seconds.

    Raises:
        TandemError: the file is missing or damaged, its pictures have another size, or one is more than half a
            period away from its time.
    """
    av = package("av", where)
    where = f"{where}: {path.name}"
    if not path.is_file():
        raise TandemError(f"{where}: there is no such file")
    try:
        with av.open(os.fspath(path)) as file:
            yield from _pictures(file, start_s, count, fps, shape, where)
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise TandemError(f"{where}: damaged video: {str(error)[:120]}") from error


def _pictures(
    file: Any, start_s: float, count: int, fps: float, shape: tuple[int, int, int], where: str
) -> Iterator[np.ndarray]:
    stream = file.streams.video[0]
    if (stream.height, stream.width) != shape[:2]:
        raise TandemError(f"{where}: pictures of {stream.width}x{stream.height} (wanted: {shape[1]}x{shape[0]})")
    file.seek(max(0, round(start_s / stream.time_base) - 1), backward=True, any_frame=False, stream=stream)
    given = 0
    for frame in file.decode(stream):
        off = float(frame.pts * stream.time_base) - (start_s + given / fps) if frame.pts is not None else -1.0
        if off < -0.5 / fps:
            continue
        if off > 0.5 / fps:
            break
        image = frame.to_ndarray(format="rgb24")
        if image.shape != shape:
            raise TandemError(f"{where}: a picture of {image.shape} (wanted: {shape})")
        yield image
        given += 1
        if given == count:
            return
    raise TandemError(f"{where}: no picture at {start_s + given / fps:.3f} s")
