"""Video files as episodes without actions: cut into scenes, resampled in seconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats import Source
from tandem_datasets.formats.bags import natural
from tandem_datasets.formats.clips import (
    Shape,
    Sidecar,
    clip_embodiment,
    clip_frames,
    clip_info,
    clip_rate,
    read_sidecar,
    wanted_size,
)
from tandem_datasets.formats.video_file import FORMATS, VideoFile
from tandem_datasets.frames import EpisodeInfo, Frame

_MAX_FRAMES = 10_000_000  # of an episode, whatever times a file tells


@dataclass(frozen=True)
class _Scene:
    path: Path
    number: int  # in its file
    begin_s: float
    end_s: float  # the time of the last picture, or of the next scene's first one
    is_last: bool


def open_source(
    path: str,
    *,
    scenes: bool = True,
    threshold: float = 27.0,
    min_scene_s: float = 1.0,
    rate_hz: float | None = None,
    step_s: float | None = None,
    size: list[int] | None = None,
    crop: bool = False,
    instruction: str = "",
    camera: str = "camera",
    name: str = "video",
    skip_broken: bool = False,
) -> Source:
    """Scenes of a video file, or of all in a folder and those below it.

    At each tick stands the newest picture at or before it, with its own stamp; an episode's time counts from 0.

    Args:
        path: a video file, or a folder.
        scenes: whether files are cut where PySceneDetect's content detector sees a cut; else a file is an episode.
        threshold: the detector's: lower cuts more often.
        min_scene_s: the shortest scene, seconds.
        rate_hz: ticks per second; or
        step_s: seconds between ticks. Neither: 10 Hz.
        size: ``[height, width]`` to which pictures are resized, each pixel the mean of its area. None: the first
            file's, and others must have it too.
        crop: whether pictures are first cropped to the proportions of ``size``.
        instruction: of clips without a text beside them (``clip.txt``, or ``instruction`` in ``clip.json``).
        camera: the camera's name.
        name: the embodiment's name.
        skip_broken: whether files that cannot be decoded are left out; :attr:`VideoSource.skipped` names them.

    Raises:
        TandemError: nothing is there, or a file cannot be decoded: the line names it.
    """
    where = f"video {path}"
    plan = _Plan(scenes, threshold, min_scene_s, clip_rate(rate_hz, step_s, where), instruction, skip_broken)
    return VideoSource(Path(path), plan, wanted_size(size, where), crop, camera, name)


def claims(path: str) -> bool:
    """Whether there is a video file, or a folder with one in it."""
    place = Path(path)
    if place.is_dir():
        return any(file.suffix.lower() in FORMATS for file in place.iterdir())
    return place.is_file() and place.suffix.lower() in FORMATS


@dataclass(frozen=True)
class _Plan:
    scenes: bool
    threshold: float
    min_scene_s: float
    rate_hz: float
    instruction: str
    skip_broken: bool


class VideoSource:
    """See ``formats.Source``."""

    def __init__(
        self, path: Path, plan: _Plan, size: tuple[int, int] | None, crop: bool, camera: str, name: str
    ) -> None:
        self._where = f"video {path}"
        self._plan = plan
        self.skipped: list[str] = []  # errors of files that were left out
        self._root = path if path.is_dir() else path.parent
        self._scenes: list[_Scene] = []
        self._sidecars: dict[Path, Sidecar] = {}
        first: np.ndarray | None = None
        for file in _files(path, self._where):
            try:
                shown = VideoFile(file).first()
                found = list(self._cut(file))
            except TandemError as error:
                if not plan.skip_broken:
                    raise
                self.skipped.append(str(error))
                continue
            first = shown if first is None else first
            self._sidecars[file] = read_sidecar(file, plan.instruction)
            self._scenes += found
        if first is None:
            raise TandemError(f"{self._where}: no file can be decoded ({self.skipped[0]})")
        hears = any(sidecar.instruction for sidecar in self._sidecars.values())
        self.embodiment = clip_embodiment(name, camera, first, size, plan.rate_hz, hears)
        self._shape = Shape(self.embodiment.cameras[0], size is not None, crop)

    @property
    def n_episodes(self) -> int:
        return len(self._scenes)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterator[Frame]]:
        """One scene; pictures are decoded as they are asked for."""
        if not 0 <= index < len(self._scenes):
            raise TandemError(f"{self._where}: no episode {index} (it has: {len(self._scenes)})")
        scene = self._scenes[index]
        sidecar, period = self._sidecars[scene.path], self.embodiment.period_ns
        file = scene.path.relative_to(self._root).as_posix()
        imported: dict[str, Any] = {
            "format": "video",
            "file": file,
            "scene": scene.number,
            "begin_s": round(scene.begin_s, 6),
            "end_s": round(scene.end_s, 6),
        }
        identity = f"video/{self.embodiment.digest}/{file}"
        info = clip_info(index, identity, scene.number, sidecar, (self._ticks(scene) - 1) * period, imported)
        return info, clip_frames(self.embodiment.cameras[0].name, sidecar.instruction, self._shown(scene))

    def _cut(self, file: Path) -> Iterator[_Scene]:
        video, plan = VideoFile(file), self._plan
        if plan.scenes:
            begins, last = video.cuts(plan.threshold, plan.min_scene_s)
        else:
            begins, last = [0.0], float(video.times()[-1])
        for number, (begin, end) in enumerate(zip(begins, [*begins[1:], last], strict=True)):
            scene = _Scene(file, number, begin, end, number == len(begins) - 1)
            if self._ticks(scene) > _MAX_FRAMES:
                raise TandemError(f"{video.where}: {end - begin:.4g} s in one episode (are its times broken?)")
            yield scene

    def _ticks(self, scene: _Scene) -> int:
        """How many ticks a scene has; the last scene's end is a picture of its own, another's is the next one's."""
        ticks = (scene.end_s - scene.begin_s) * self._plan.rate_hz
        return int(ticks + 1e-6) + 1 if scene.is_last else max(int(np.ceil(ticks - 1e-6)), 1)

    def _shown(self, scene: _Scene) -> Iterator[tuple[int, int, np.ndarray]]:
        """(tick, own stamp, picture), ns from the scene's begin on."""
        video, period = VideoFile(scene.path), self.embodiment.period_ns
        pictures = video.pictures(scene.begin_s)
        newest: tuple[int, np.ndarray] | None = None
        coming = next(pictures, None)
        for k in range(self._ticks(scene)):
            tick = k * period
            while coming is not None and (own := round((coming[0] - scene.begin_s) * 1e9)) <= tick + 1000:
                newest = (min(own, tick), self._shape.fit(coming[1], f"{video.where} at {coming[0]:.3f} s"))
                coming = next(pictures, None)
            if newest is None:
                raise TandemError(f"{video.where}: no picture at {scene.begin_s:.3f} s")
            yield tick, newest[0], newest[1]


def _files(path: Path, where: str) -> list[Path]:
    if path.is_file():
        return [path]
    found = [file for file in path.rglob("*") if file.suffix.lower() in FORMATS and file.is_file()]
    if not found:
        raise TandemError(f"{where}: no video file (allowed: {', '.join(FORMATS)})")
    return sorted(found, key=lambda file: natural(file.relative_to(path).as_posix()))
