"""What video files and folders of images share: one camera, no state, no action, and an instruction beside the clip."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.foreign import episode_uuid, plain_name
from tandem_datasets.formats.pictures import fitted
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source

_MAX_SIDECAR = 1 << 20
_DEFAULT_HZ = 10.0
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Sidecar:
    """What is told of a clip."""

    instruction: str
    facts: Mapping[str, Any]  # what else its .json says


def read_sidecar(clip: Path, default: str) -> Sidecar:
    """From ``clip.txt`` (the instruction) or ``clip.json`` (its key ``instruction``), else ``default``.

    For a folder, ``instruction.txt`` and ``instruction.json`` in it count too.
    """
    stem = clip if clip.is_dir() else clip.with_suffix("")
    places = [stem.with_name(stem.name + suffix) for suffix in (".txt", ".json")]
    places += [clip / "instruction.txt", clip / "instruction.json"] if clip.is_dir() else []
    for place in places:
        if place.is_file():
            return _sidecar(place, default)
    return Sidecar(default, {})


def _sidecar(place: Path, default: str) -> Sidecar:
    try:
        if place.stat().st_size > _MAX_SIDECAR:
            raise TandemError(f"{place}: larger than {_MAX_SIDECAR} bytes")
        text = place.read_text("utf-8")
        if place.suffix == ".txt":
            return Sidecar(" ".join(text.split()), {})
        found = json.loads(text)
    except OSError as error:
        raise TandemError(f"{place}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{place}: damaged: {' '.join(str(error).split())[:100]}") from error
    if not isinstance(found, dict) or not isinstance(found.get("instruction", ""), str):
        raise TandemError(f"{place}: no mapping with the text 'instruction'")
    return Sidecar(found.pop("instruction", default), found)


def clip_rate(rate_hz: float | None, step_s: float | None, where: str) -> float:
    """The rate of the store: one of the two, or 10 Hz."""
    if rate_hz is not None and step_s is not None:
        raise TandemError(f"{where}: rate_hz and step_s (allowed: one of them)")
    given = rate_hz if step_s is None else step_s
    if given is not None and not 1e-4 <= given <= 1e4:
        raise TandemError(f"{where}: {'rate_hz' if step_s is None else 'step_s'} is {given} (allowed: 1e-4..1e4)")
    return float(_DEFAULT_HZ if given is None else given if step_s is None else 1.0 / given)


def wanted_size(size: list[int] | None, where: str) -> tuple[int, int] | None:
    """``[height, width]`` checked."""
    if size is None:
        return None
    if len(size) != 2 or not all(type(side) is int and 1 <= side <= 16384 for side in size):
        raise TandemError(f"{where}: size is {size!s:.40} (allowed: [height, width] in pixels)")
    return size[0], size[1]


@dataclass(frozen=True)
class Shape:
    """How pictures become the camera's."""

    camera: Camera
    resize: bool  # else a picture of another size is an error
    crop: bool  # to the camera's proportions, before it is resized

    def fit(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """``pixels`` (H, W, C) as the camera has them."""
        camera = self.camera
        if camera.encoding is Encoding.RGB8 and pixels.dtype == np.uint16:
            raise TandemError(f"{where}: 16 bits (allowed: 8, as the first)")
        if pixels.dtype != camera.dtype or (not self.resize and pixels.shape != camera.shape):
            came, first = (
                f"{w}x{h} {kind}"
                for h, w, kind in ((*pixels.shape[:2], pixels.dtype), (camera.height, camera.width, camera.dtype))
            )
            raise TandemError(f"{where}: {came} (allowed: {first}, as the first; give size=[height,width])")
        return fitted(_cropped(pixels, camera) if self.crop else pixels, camera.height, camera.width)


def clip_embodiment(
    name: str, camera: str, first: np.ndarray, size: tuple[int, int] | None, rate_hz: float, hears: bool
) -> Embodiment:
    """An embodiment that only sees; ``first`` is a picture (H, W, C) of its camera."""
    height, width = size or first.shape[:2]
    encoding = Encoding.RGB8 if first.dtype == np.uint8 else Encoding.DEPTH
    cameras = (Camera(plain_name(camera) or "camera", height, width, encoding),)
    return Embodiment(plain_name(name) or "video", rate_hz, hears, cameras, (), ())


def clip_info(
    index: int, identity: str, number: int, sidecar: Sidecar, end_ns: int, imported: Mapping[str, Any]
) -> EpisodeInfo:
    """Facts of episode ``index``, whose uuid follows from ``identity`` and ``number`` in it."""
    return EpisodeInfo(
        seed=index,
        instruction=sidecar.instruction,
        outcome="unknown",
        end_ns=end_ns,
        uuid=episode_uuid(identity, number),
        provenance={"imported": {**imported, **({"sidecar": dict(sidecar.facts)} if sidecar.facts else {})}},
    )


def clip_frames(camera: str, instruction: str, shown: Iterator[tuple[int, int, np.ndarray]]) -> Iterator[Frame]:
    """Frames without actions from (tick, own stamp, picture)."""
    for tick, own, pixels in shown:
        seen = Observation({camera: pixels}, _NOTHING, instruction, tick, {camera: own})
        yield Frame(seen, _NOTHING, Source.HOLD)


def _cropped(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """The largest part from the middle that has the camera's proportions."""
    height, width = pixels.shape[:2]
    tall = min(height, max(round(width * camera.height / camera.width), 1))
    wide = min(width, max(round(height * camera.width / camera.height), 1))
    top, left = (height - tall) // 2, (width - wide) // 2
    return np.ascontiguousarray(pixels[top : top + tall, left : left + wide])
