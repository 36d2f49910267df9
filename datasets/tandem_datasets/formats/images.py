"""Folders of images as episodes without actions: one folder, or a folder of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats import Source
from tandem_datasets.formats.bags import natural
from tandem_datasets.formats.clips import (
    Shape,
    clip_embodiment,
    clip_frames,
    clip_info,
    clip_rate,
    read_sidecar,
    wanted_size,
)
from tandem_datasets.formats.pictures import compressed_picture
from tandem_datasets.frames import EpisodeInfo, Frame

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MAX_BYTES = 1 << 28


def open_source(
    path: str,
    *,
    rate_hz: float | None = None,
    step_s: float | None = None,
    size: list[int] | None = None,
    crop: bool = False,
    instruction: str = "",
    camera: str = "camera",
    name: str = "images",
) -> Source:
    """Images in their natural order (``2.png`` before ``10.png``), one each tick.

    Args:
        path: a folder of images, which is one episode, or a folder of such folders.
        rate_hz: images per second; or
        step_s: seconds between images. Neither: 10 Hz.
        size: ``[height, width]`` to which pictures are resized, each pixel the mean of its area. None: the first
            one's, and all others must have it too.
        crop: whether pictures are first cropped to the proportions of ``size``.
        instruction: of folders without a text (``<folder>.txt``, ``instruction.txt`` in it, or ``.json``).
        camera: the camera's name.
        name: the embodiment's name.

    Raises:
        TandemError: there are no images, or one is broken: the line names it.
    """
    where = f"images {path}"
    rate = clip_rate(rate_hz, step_s, where)
    return ImagesSource(Path(path), rate, wanted_size(size, where), crop, instruction, camera, name)


def claims(path: str) -> bool:
    """Whether there is a folder of images, or of such folders."""
    place = Path(path)
    return place.is_dir() and bool(_folders(place))


class ImagesSource:
    """See ``formats.Source``."""

    def __init__(
        self,
        path: Path,
        rate_hz: float,
        size: tuple[int, int] | None,
        crop: bool,
        instruction: str,
        camera: str,
        name: str,
    ) -> None:
        self._where = f"images {path}"
        self._root = path
        self._folders = _folders(path) if path.is_dir() else []
        if not self._folders:
            raise TandemError(f"{self._where}: no images (allowed: {', '.join(SUFFIXES)})")
        self._sidecars = [read_sidecar(folder, instruction) for folder in self._folders]
        hears = any(sidecar.instruction for sidecar in self._sidecars)
        first = _picture(_images(self._folders[0])[0])
        self.embodiment = clip_embodiment(name, camera, first, size, rate_hz, hears)
        self._shape = Shape(self.embodiment.cameras[0], size is not None, crop)

    @property
    def n_episodes(self) -> int:
        return len(self._folders)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterator[Frame]]:
        """One folder; its images are read as they are asked for."""
        if not 0 <= index < len(self._folders):
            raise TandemError(f"{self._where}: no episode {index} (it has: {len(self._folders)})")
        folder, sidecar, period = self._folders[index], self._sidecars[index], self.embodiment.period_ns
        images = _images(folder)
        name = folder.relative_to(self._root).as_posix()
        imported = {"format": "images", "folder": name, "first": images[0].name, "last": images[-1].name}
        identity = f"images/{self.embodiment.digest}/{name}"
        info = clip_info(index, identity, index, sidecar, (len(images) - 1) * period, imported)
        shown = (
            (k * period, k * period, self._shape.fit(_picture(image), str(image))) for k, image in enumerate(images)
        )
        return info, clip_frames(self.embodiment.cameras[0].name, sidecar.instruction, shown)


def _folders(path: Path) -> list[Path]:
    if _images(path):
        return [path]
    inner = [folder for folder in path.iterdir() if folder.is_dir() and _images(folder)]
    return sorted(inner, key=lambda folder: natural(folder.name))


def _images(folder: Path) -> list[Path]:
    found = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()]
    return sorted(found, key=lambda file: natural(file.name))


def _picture(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TandemError(f"{path}: larger than {_MAX_BYTES} bytes")
        return compressed_picture(path.read_bytes(), str(path))
    except OSError as error:
        raise TandemError(f"{path}: cannot be read: {error.strerror}") from error
