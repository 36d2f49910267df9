"""What writer and reader of shards agree on: names, the table of contents, and how arrays and pictures are stored."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError

FORMAT, VERSION = "tandem-windows", 1
CONTENTS = "index.json"
SHARD = re.compile(r"shard-\d{6}\.tar")
PNG, JPG = "png", "jpg"
TAR_BLOCK = 512

_LEVEL, _SUBSAMPLING, _PNG_LEVEL = 95, "444", 1


def shard_name(number: int) -> str:
    """The file's name."""
    return f"shard-{number:06d}.tar"


@dataclass(frozen=True)
class Windows:
    """What every sample consists of."""

    embodiment: Embodiment
    history: int
    chunk: int
    image: str  # PNG or JPG, of rgb8 cameras

    @property
    def pictures(self) -> list[tuple[Camera, int, str]]:
        """Camera, step and kind of each picture, in the order of the members."""
        return [
            (camera, t, self.image if camera.encoding is Encoding.RGB8 else PNG)
            for camera in self.embodiment.cameras
            for t in range(self.history)
        ]

    @property
    def members(self) -> list[str]:
        """Names of a sample's members after its key, in order."""
        return [*(f"{camera.name}.{t}.{kind}" for camera, t, kind in self.pictures), "state.npy", "action.npy", "json"]

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """Shapes of the two arrays."""
        return {
            "state": (self.history, self.embodiment.state_dim),
            "action": (self.chunk, self.embodiment.action_dim),
        }


def npy_bytes(values: np.ndarray) -> bytes:
    """An array as a ``.npy`` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def npy_head(shape: tuple[int, ...]) -> bytes:
    """What a float32 ``.npy`` of that shape begins with: a file that begins otherwise is another."""
    empty = np.zeros(shape, np.float32)
    return npy_bytes(empty)[: len(npy_bytes(empty)) - empty.nbytes]


def encode(image: np.ndarray, kind: str) -> bytes:
    """A picture (H, W, C)."""
    import imagecodecs

    plane = np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)
    if kind == JPG:
        return bytes(imagecodecs.jpeg8_encode(plane, level=_LEVEL, subsampling=_SUBSAMPLING))
    return bytes(imagecodecs.png_encode(plane, level=_PNG_LEVEL))


def decode(data: memoryview, kind: str, out: np.ndarray) -> None:
    """Fills ``out`` (H, W, C); raises ValueError or RuntimeError if the picture has another size or is damaged."""
    import imagecodecs

    plane = out[..., 0] if out.shape[2] == 1 else out
    (imagecodecs.jpeg8_decode if kind == JPG else imagecodecs.png_decode)(data, out=plane)


def parse_contents(found: Any, where: str) -> tuple[Windows, list[str], list[tuple[str, int]]]:
    """Windows, instructions, and the shards with their numbers of samples, from an untrusted ``index.json``."""
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise TandemError(f"{where}: {CONTENTS} is not of windows that Tandem wrote")
    if found.get("version") != VERSION:
        raise TandemError(f"{where}: version {found.get('version')!r:.20} (allowed: {VERSION})")
    body = Embodiment.from_dict(found.get("embodiment"), f"{where}: embodiment")  # type: ignore[arg-type]
    sizes = [found.get(key) for key in ("history", "chunk")]
    if not all(type(size) is int and 1 <= size <= 4096 for size in sizes) or found.get("image") not in (PNG, JPG):
        raise TandemError(f"{where}: history, chunk, image are {sizes!s:.60}, {found.get('image')!r:.20}")
    texts, shards = found.get("instructions"), found.get("shards")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TandemError(f"{where}: instructions (allowed: texts)")
    if not isinstance(shards, list) or not all(_is_shard(each) for each in shards):
        raise TandemError(f"{where}: shards (allowed: names like {shard_name(0)} with a number of windows)")
    windows = Windows(body, found["history"], found["chunk"], found["image"])
    return windows, texts, [(each["name"], each["windows"]) for each in shards]


def _is_shard(each: Any) -> bool:
    if not isinstance(each, Mapping) or not isinstance(each.get("name"), str) or type(each.get("windows")) is not int:
        return False
    return bool(SHARD.fullmatch(each["name"])) and 0 < each["windows"] < 2**31
