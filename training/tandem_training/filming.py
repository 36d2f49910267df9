"""Films for people: an MP4 of episodes as they are acted, cameras side by side, with a caption."""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.lerobot.video import VideoOptions, VideoWriter
from tandem_datasets.policy import Policy
from tandem_datasets.rollout import EnvSpec
from tandem_sim.performing import Instant, Performance
from tandem_training.films import CAPTION, captioned
from tandem_training.validate import path

MOST_FPS = 30  # unless asked for more
LAST_S = 1.0  # for which the last picture of an episode stays
SIDE_PX = 320
GAP = 2  # pixels between two cameras
_LEAST_PX, _MOST_PX = 32, 1024
_CODEC = VideoOptions(vcodec="libx264", g=50, crf=20, preset="veryfast")  # every browser and player shows it


@dataclass(frozen=True)
class FilmSettings:
    """How a film looks."""

    cameras: tuple[str, ...] = ()  # none: all that the environment has
    size: tuple[int, int] = (SIDE_PX, SIDE_PX)  # height and width of each picture in pixels
    fps: int | None = None  # None: of every control step, or every second, or ..., at most MOST_FPS


def film_settings(config: Mapping[str, Any], where: str, observed: Sequence[str] | None = None) -> FilmSettings:
    """From the keys ``cameras`` (null: ``observed``), ``size`` and ``fps``.

    Raises:
        TandemError: anything but what those allow.
    """
    cameras, size, fps = config["cameras"], config["size"], config["fps"]
    names = [cameras] if isinstance(cameras, str) else cameras
    fine = names is None or (isinstance(names, list) and names and all(isinstance(name, str) for name in names))
    if not fine or (names is not None and len(set(names)) < len(names)):
        raise TandemError(
            f"{where}: cameras is {cameras!r:.80} (allowed: names, each once, as '[front,head]', or null)"
        )
    pair = [size, size] if _whole(size) else size or [SIDE_PX, SIDE_PX]
    if not isinstance(pair, list) or len(pair) != 2 or not all(_whole(side) for side in pair):
        raise TandemError(f"{where}: size is {size!r:.80} (allowed: pixels of a side, or '[height,width]')")
    if not all(_LEAST_PX <= side <= _MOST_PX for side in pair):
        raise TandemError(f"{where}: size is {size} (allowed: sides from {_LEAST_PX} to {_MOST_PX} pixels)")
    if fps is not None and (not _whole(fps) or fps < 1):
        raise TandemError(f"{where}: fps={fps} (allowed: a whole number from 1, or null)")
    return FilmSettings(tuple(observed or () if names is None else names), (pair[0], pair[1]), fps)


def film_path(value: Any, env: str, policy: str, where: str) -> Path:
    """Where the film goes; raises TandemError if something is there already or the name is no MP4's."""
    target = path(where, "out", value)
    if target is None:
        name = f"{env}-{Path(policy).name or 'policy'}-{datetime.now():%Y%m%d-%H%M%S}.mp4"
        target = Path("outputs/render") / name
    if target.suffix.lower() != ".mp4":
        raise TandemError(f"{where}: out={target} (allowed: a name that ends in .mp4)")
    if target.exists():
        raise TandemError(f"{where}: out={target} exists (allowed: a new file)")
    return target


def film(
    spec: EnvSpec, actor: Policy | None, seed: int, episodes: int, settings: FilmSettings, target: Path, where: str
) -> tuple[dict[int, str], int]:
    """Films the episodes ``seed``, ``seed + 1`` ... into ``target``, which is whole or absent.

    Returns:
        What became of each seed, and how many frames were written.

    Raises:
        TandemError: an environment, actor, camera or rate that does not fit, no OpenGL, no encoder, no place.
    """
    outcomes: dict[int, str] = {}
    frames = 0
    with Performance(spec, actor) as performance:
        rate = performance.embodiment.rate_hz
        fps = settings.fps or max(1, round(rate / math.ceil(rate / MOST_FPS)))
        if fps > rate:
            raise TandemError(f"{where}: fps={fps} (allowed: 1 to {rate:g}, the control steps a second)")
        cameras = _cameras(performance, settings, spec, where)
        height, width = _whole_size(settings.size, len(cameras))
        _CODEC.check(where)
        with _whole_file(target, where) as temporary, VideoWriter(temporary, fps, height, width, _CODEC, where) as film:
            for number in range(seed, seed + episodes):
                for picture, times, instant in _pictures(performance, number, cameras, settings.size, fps):
                    for _ in range(times):
                        film.add(picture, begins=False)
                    frames += times
                    if instant.last:
                        outcomes[number] = instant.outcome
    return outcomes, frames


def _cameras(performance: Performance, settings: FilmSettings, spec: EnvSpec, where: str) -> tuple[str, ...]:
    """Those that are asked for, else all."""
    views = performance.views
    for name in settings.cameras:
        if name not in views:
            raise unknown(f"{where}: camera", name, views)
    if not views:
        raise TandemError(f"{where}: environment '{spec.id}' has no camera (allowed: an environment with pictures)")
    return settings.cameras or views


def _whole_size(size: tuple[int, int], count: int) -> tuple[int, int]:
    """Height and width of the film; both even, as its colours are stored for pixels in twos."""
    height, width = size[0] + CAPTION, (size[1] + GAP) * count - GAP
    return height + height % 2, width + width % 2


def _pictures(
    performance: Performance, seed: int, cameras: Sequence[str], size: tuple[int, int], fps: int
) -> Iterator[tuple[np.ndarray, int, Instant]]:
    """The frames of an episode: each picture, how many frames long it is shown, and of when it is.

    Frame i shows the first control step that is not before i / fps; the last step is shown whenever it comes.
    """
    shape = _whole_size(size, len(cameras))
    rate, shown = performance.embodiment.rate_hz, 0
    for instant in performance.play(seed):
        due = instant.step * fps >= shown * rate
        if not due and not instant.last:
            continue
        shown += 1
        row = np.zeros((size[0], shape[1], 3), np.uint8)
        for place, name in enumerate(cameras):
            left = place * (size[1] + GAP)
            row[:, left : left + size[1]] = performance.look(name, *size)
        seconds = f"{instant.step / rate:.1f} s"
        text = instant.outcome.replace("_", " ") if instant.last else instant.words
        picture = captioned(
            Image.fromarray(row),
            instant.instruction,
            f"{seconds}  {text}".rstrip(),
            instant.success if instant.last else None,
        )
        whole = Image.new("RGB", (shape[1], shape[0]))
        whole.paste(picture)
        yield np.asarray(whole), max(1, round(LAST_S * fps)) if instant.last else 1, instant


@contextmanager
def _whole_file(target: Path, where: str) -> Iterator[Path]:
    """A file beside ``target`` that becomes it if all goes well and is gone if not, with the folders made for it."""
    made = [folder for folder in target.parents if not folder.exists()]  # the deepest first
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=".mp4")
    except OSError as error:
        _remove(made)
        raise TandemError(f"{where}: out={target}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        _remove(made)
        raise


def _remove(folders: Sequence[Path]) -> None:
    """Those that are there and empty."""
    for folder in folders:
        if not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
