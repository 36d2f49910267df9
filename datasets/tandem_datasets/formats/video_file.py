"""One video file of anybody's: its pictures with their times, upright and in RGB, decoded by PyAV."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.packages import package
from tandem_datasets.formats.pictures import MAX_PIXELS

# By suffix and not by content: a playlist that calls itself clip.mp4 could have other files read.
FORMATS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi",
    ".mpg": "mpeg", ".mpeg": "mpeg", ".ts": "mpegts", ".gif": "gif", ".flv": "flv", ".wmv": "asf",
}  # fmt: skip
_SAFE = {"protocol_whitelist": "file", "enable_drefs": "0", "use_absolute_path": "0"}
_SCORE_WIDTH = 160  # pixels of the pictures in which cuts are looked for


class VideoFile:
    """Raises TandemError, naming the file, from any member: it cannot be decoded."""

    def __init__(self, path: Path) -> None:
        self.where = f"video {path}"
        self.path = path
        self._av = package("av", self.where)
        form = FORMATS.get(path.suffix.lower())
        if form is None:
            raise TandemError(f"{self.where}: unknown suffix (allowed: {', '.join(FORMATS)})")
        self._form = form

    def times(self) -> np.ndarray:
        """Seconds of all pictures from the first one on, float64 (N,), without decoding any."""
        with self._opened() as file:
            stream = self._stream(file)
            try:
                stamps = [packet.pts for packet in file.demux(stream) if packet.pts is not None]
            except self._av.error.FFmpegError as error:
                raise self._broken(error) from error
            base = float(stream.time_base or 0)
        if not stamps:
            raise TandemError(f"{self.where}: no pictures")
        found = np.sort(np.array(stamps, np.float64)) * base
        return found - found[0]

    def pictures(self, begin_s: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """(seconds from the first picture on, uint8 (H, W, 3)), from the newest at or before ``begin_s`` on."""
        before: tuple[float, Any] | None = None
        for at, frame in self._decoded(begin_s):
            if at > begin_s and before is not None:
                yield before[0], self._upright(before[1])
                before = None
            if at > begin_s:
                yield at, self._upright(frame)
            else:
                before = (at, frame)
        if before is not None:
            yield before[0], self._upright(before[1])

    def first(self) -> np.ndarray:
        """The first picture."""
        for _, pixels in self.pictures():
            return pixels
        raise TandemError(f"{self.where}: no pictures")

    def cuts(self, threshold: float, least_s: float) -> tuple[list[float], float]:
        """(seconds at which scenes begin, the time of the last picture).

        Args:
            threshold: PySceneDetect's of its content detector.
            least_s: the shortest scene.
        """
        detect, times = package("scenedetect", self.where), list[float]()
        rate = self._rate()
        detector = detect.ContentDetector(threshold=threshold, min_scene_len=max(1, round(least_s * rate)))
        found: list[int] = []
        for at, frame in self._decoded(0.0):
            width = min(_SCORE_WIDTH, frame.width)
            height = max(round(frame.height * width / frame.width), 1)
            small = frame.to_ndarray(format="bgr24", width=width, height=height)
            found += [cut.frame_num for cut in detector.process_frame(detect.FrameTimecode(len(times), rate), small)]
            times.append(at)
        if not times:
            raise TandemError(f"{self.where}: no pictures")
        found += [cut.frame_num for cut in detector.post_process(detect.FrameTimecode(len(times) - 1, rate))]
        return [0.0, *(times[cut] for cut in sorted(set(found)) if 0 < cut < len(times))], times[-1]

    # -- decoding

    def _rate(self) -> float:
        with self._opened() as file:
            rate = float(self._stream(file).average_rate or 0)
        return rate if 0.01 <= rate <= 10_000 else 25.0

    def _opened(self) -> Any:
        try:
            return self._av.open(os.fspath(self.path), format=self._form, options=dict(_SAFE))
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise self._broken(error) from error

    def _stream(self, file: Any) -> Any:
        if not file.streams.video:
            raise TandemError(f"{self.where}: no pictures in it")
        stream = file.streams.video[0]
        if not 0 < stream.width * stream.height <= MAX_PIXELS:
            raise TandemError(f"{self.where}: {stream.width}x{stream.height} (allowed: up to {MAX_PIXELS} pixels)")
        return stream

    def _decoded(self, begin_s: float) -> Iterator[tuple[float, Any]]:
        """(seconds, frame) from a key frame at or before ``begin_s`` on."""
        with self._opened() as file:
            stream = self._stream(file)
            base = float(stream.time_base or 0)
            origin = self._origin(file, stream)
            try:
                if begin_s > 0:
                    file.seek(int((origin + begin_s) / base), stream=stream)
                for k, frame in enumerate(file.decode(stream)):
                    stamp = frame.pts if frame.pts is not None else frame.dts
                    if stamp is None:
                        raise TandemError(f"{self.where}: picture {k} has no time")
                    at = stamp * base - origin
                    if k == 0 and at > begin_s > 0:  # its index led past the place: read it from the start
                        yield from self._decoded(0.0)
                        return
                    yield max(at, 0.0), frame
            except (self._av.error.FFmpegError, ValueError, MemoryError) as error:
                raise self._broken(error) from error

    def _origin(self, file: Any, stream: Any) -> float:
        """The first picture's time in the file, seconds."""
        if not hasattr(self, "_first_s"):
            for packet in file.demux(stream):
                for frame in packet.decode():
                    stamp = frame.pts if frame.pts is not None else frame.dts
                    self._first_s = float((stamp or 0) * stream.time_base)
                    file.seek(0 if stamp is None else stamp, stream=stream)
                    return self._first_s
            raise TandemError(f"{self.where}: no pictures")
        return self._first_s

    def _upright(self, frame: Any) -> np.ndarray:
        if frame.width * frame.height > MAX_PIXELS:
            raise TandemError(f"{self.where}: a picture of {frame.width}x{frame.height}")
        pixels = frame.to_ndarray(format="rgb24")
        turns = round(frame.rotation / 90) % 4  # counter-clockwise, as the display matrix tells
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels

    def _broken(self, error: Exception) -> TandemError:
        told = getattr(error, "strerror", None) or str(error)
        return TandemError(f"{self.where}: cannot be decoded: {' '.join(told.split())[:120]}")
