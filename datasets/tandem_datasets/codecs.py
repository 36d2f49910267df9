"""How one image becomes the bytes of one inner chunk: the table of codecs that a store may be made with.

To add one: a class with these five members, and its instance in ``CODECS``.
"""

import struct
from functools import cache
from typing import Any, Protocol

import numpy as np

from tandem_datasets.errors import TandemError, unknown

DEFAULT_CODEC = "zstd"
_TEXT_HEAD = struct.Struct("<II")  # vlen-utf8: number of items, then each item's length before its bytes
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_JPEG_END = b"\xff\xd9"


class Codec(Protocol):
    """Bytes of one row of an image array."""

    name: str
    lossless: bool  # of uint8 images; uint16 ones (depth, segmentation) are lossless in every codec

    def chain(self, dtype: np.dtype) -> list[dict[str, Any]]:
        """The Zarr v3 codecs by which a plain reader decodes a row."""
        ...

    def encode(self, row: np.ndarray) -> bytes:
        """``row`` (H, W, C) is C-contiguous. Threads may call it at once."""
        ...

    def decode(self, data: memoryview, out: np.ndarray) -> None:
        """Fills ``out`` (H, W, C) wholly.

        Raises ValueError or RuntimeError if ``data`` does not hold exactly that, before memory is taken for what it
        says to hold.
        """
        ...


class Raw:
    """The pixels as they are."""

    name = "raw"
    lossless = True

    def chain(self, dtype: np.dtype) -> list[dict[str, Any]]:
        return [bytes_codec(dtype)]

    def encode(self, row: np.ndarray) -> bytes:
        return row.tobytes()

    def decode(self, data: memoryview, out: np.ndarray) -> None:
        if len(data) != out.nbytes:
            raise ValueError(f"{len(data)} bytes instead of {out.nbytes}")
        out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)


class Zstd:
    """Lossless; each row carries its own checksum, so that rot is seen when it is read."""

    name = "zstd"
    lossless = True
    _LEVEL = 1  # 16 us for a 64x64 RGB image; higher levels gain nothing on flat drawings

    def __init__(self) -> None:
        self._zstd: Any = None

    def chain(self, dtype: np.dtype) -> list[dict[str, Any]]:
        return [bytes_codec(dtype), {"name": "zstd", "configuration": {"level": self._LEVEL, "checksum": True}}]

    def encode(self, row: np.ndarray) -> bytes:
        return self._codec().encode(row)

    def decode(self, data: memoryview, out: np.ndarray) -> None:
        size = _zstd_content_size(data)
        if size != out.nbytes:  # zstd itself only refuses what is too long
            raise ValueError(f"content of {size} bytes instead of {out.nbytes}")
        self._codec().decode(data, out=out)

    def _codec(self) -> Any:
        if self._zstd is None:
            from numcodecs.zstd import Zstd as Numcodec  # 0.3 s: only when images are touched

            self._zstd = Numcodec(level=self._LEVEL, checksum=True)
        return self._zstd


class JpegXl:
    """Lossless JPEG XL at effort 1: half the size of ``zstd`` on camera pictures, and slower to read."""

    name = "jpegxl"
    lossless = True

    def chain(self, dtype: np.dtype) -> list[dict[str, Any]]:
        return [{"name": "imagecodecs_jpegxl", "configuration": {"effort": 1, "lossless": True, "numthreads": 1}}]

    def encode(self, row: np.ndarray) -> bytes:
        return _imagecodecs().jpegxl_encode(_plane(row), effort=1, lossless=True, numthreads=1)

    def decode(self, data: memoryview, out: np.ndarray) -> None:
        _imagecodecs().jpegxl_decode(data, numthreads=1, out=_plane(out))


class Jpeg:
    """JPEG at quality 95 without chroma subsampling (4:4:4): some 42 dB on camera pictures at a tenth of their size."""

    name = "jpeg"
    lossless = False
    _LEVEL, _SUBSAMPLING = 95, "444"

    def __init__(self, exact: Codec) -> None:
        self._exact = exact  # of what is no picture: depth and segmentation

    def chain(self, dtype: np.dtype) -> list[dict[str, Any]]:
        if dtype != np.uint8:
            return self._exact.chain(dtype)
        return [{"name": "imagecodecs_jpeg", "configuration": {"level": self._LEVEL, "subsampling": self._SUBSAMPLING}}]

    def encode(self, row: np.ndarray) -> bytes:
        if row.dtype != np.uint8:
            return self._exact.encode(row)
        return _imagecodecs().jpeg8_encode(_plane(row), level=self._LEVEL, subsampling=self._SUBSAMPLING)

    def decode(self, data: memoryview, out: np.ndarray) -> None:
        if out.itemsize != 1:
            self._exact.decode(data, out)
            return
        if data[-2:] != _JPEG_END:  # libjpeg would fill up what is missing with grey
            raise ValueError("a truncated JPEG")
        _imagecodecs().jpeg8_decode(data, out=_plane(out))


def _plane(image: np.ndarray) -> np.ndarray:
    """Image formats have no axis for a single channel."""
    return image[..., 0] if image.shape[-1] == 1 else image


@cache
def _imagecodecs() -> Any:
    import imagecodecs  # 0.1 s: only when images are touched

    return imagecodecs


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Zstd(), Raw(), JpegXl(), Jpeg(JpegXl()))}
"""By name. Plain zarr-python reads the last two once ``imagecodecs.zarr.register_codecs()`` ran in its process."""


def codec_by_name(name: str, where: str) -> Codec:
    """The codec called ``name``; raises TandemError with the known ones otherwise."""
    codec = CODECS.get(name) if isinstance(name, str) else None
    if codec is None:
        raise unknown(f"{where}: codec", str(name)[:40], CODECS)
    return codec


def bytes_codec(dtype: np.dtype) -> dict[str, Any]:
    """Zarr's plain codec of fixed-size items, as zarr-python writes it."""
    if dtype.itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


TEXT_CHAIN: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}]


def encode_text(text: str) -> bytes:
    """One string as an inner chunk of Zarr's ``vlen-utf8``."""
    data = text.encode()
    return _TEXT_HEAD.pack(1, len(data)) + data


def decode_text(data: memoryview, where: str) -> str:
    """The inverse of :func:`encode_text`; raises TandemError if ``data`` is anything else."""
    if len(data) >= _TEXT_HEAD.size and _TEXT_HEAD.unpack_from(data) == (1, len(data) - _TEXT_HEAD.size):
        try:
            return str(data[_TEXT_HEAD.size :], "utf-8")
        except UnicodeDecodeError:
            pass
    raise TandemError(f"{where}: damaged text")


def _zstd_content_size(data: memoryview) -> int | None:
    """What a zstd frame says that it holds (RFC 8878, section 3.1.1); None if it does not say."""
    if len(data) < 14 or data[:4] != _ZSTD_MAGIC:  # smallest with checksum: 4 + 1 + 1 + 3 + 4, and one byte
        return None
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(data) < start + width:
        return None
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if width == 2 else size
