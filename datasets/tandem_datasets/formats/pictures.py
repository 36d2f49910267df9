"""Pictures from elsewhere as arrays of one size: from compressed bytes, and from sensor_msgs/Image of any encoding."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.formats.packages import package

MAX_PIXELS = 16384 * 16384 // 4  # of a picture from elsewhere, before memory is taken for it

_DEPTH = ("16UC1", "mono16", "32FC1")
# encoding -> (type of a pixel's numbers, channels as they lie, OpenCV's name of the conversion to RGB)
_ENCODINGS: dict[str, tuple[str, int, str]] = {
    "rgb8": ("u1", 3, ""),
    "8UC3": ("u1", 3, "COLOR_BGR2RGB"),
    "bgr8": ("u1", 3, "COLOR_BGR2RGB"),
    "rgba8": ("u1", 4, "COLOR_RGBA2RGB"),
    "8UC4": ("u1", 4, "COLOR_BGRA2RGB"),
    "bgra8": ("u1", 4, "COLOR_BGRA2RGB"),
    "mono8": ("u1", 1, "COLOR_GRAY2RGB"),
    "8UC1": ("u1", 1, "COLOR_GRAY2RGB"),
    "bayer_rggb8": ("u1", 1, "COLOR_BAYER_RGGB2RGB"),
    "bayer_bggr8": ("u1", 1, "COLOR_BAYER_BGGR2RGB"),
    "bayer_gbrg8": ("u1", 1, "COLOR_BAYER_GBRG2RGB"),
    "bayer_grbg8": ("u1", 1, "COLOR_BAYER_GRBG2RGB"),
    "yuv422": ("u1", 2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": ("u1", 2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": ("u1", 2, "COLOR_YUV2RGB_YUY2"),
    "yuyv": ("u1", 2, "COLOR_YUV2RGB_YUY2"),
    "16UC1": ("u2", 1, ""),
    "mono16": ("u2", 1, ""),
    "32FC1": ("f4", 1, ""),
}


def raw_picture(message: Mapping[str, Any], where: str) -> np.ndarray:
    """A decoded sensor_msgs/Image as uint8 (H, W, 3), or uint16 (H, W, 1) of millimetres for depth encodings.

    Raises:
        TandemError: the encoding is unknown, or the data is not of the size that the fields tell.
    """
    encoding, height, width = message["encoding"], message["height"], message["width"]
    if encoding not in _ENCODINGS:
        raise TandemError(f"{where}: encoding is '{encoding:.40}' (allowed: {', '.join(_ENCODINGS)})")
    code, channels, conversion = _ENCODINGS[encoding]
    kind = np.dtype((">" if message["is_bigendian"] else "<") + code)
    row, step, data = width * channels * kind.itemsize, message["step"], message["data"]
    if not height or not width or height * width > MAX_PIXELS or step < row or len(data) != step * height:
        raise TandemError(f"{where}: {width}x{height} {encoding} in rows of {step} bytes, {len(data)} bytes in all")
    pixels = np.ascontiguousarray(data.reshape(height, step)[:, :row]).view(kind).reshape(height, width, channels)
    if encoding in _DEPTH:
        return _millimetres(pixels)
    if not conversion:
        return pixels
    cv2 = package("cv2", where)
    return _opencv(lambda: cv2.cvtColor(pixels, getattr(cv2, conversion)), where)


def compressed_picture(data: bytes | memoryview | np.ndarray, where: str, what: str = "") -> np.ndarray:
    """A JPEG, PNG, WebP ... as uint8 (H, W, 3), turned as its metadata says; 16-bit grey ones as uint16 (H, W, 1).

    Args:
        data: the file's bytes; of ROS's "compressedDepth" the header in front is taken off.
        where: for errors.
        what: ``format`` of a sensor_msgs/CompressedImage.
    """
    from PIL import Image, UnidentifiedImageError

    cv2 = package("cv2", where)
    found = np.frombuffer(data, np.uint8)
    if "compressedDepth" in what:
        found = found[12:]
    try:
        with Image.open(io.BytesIO(found.tobytes())) as image:  # reads its head only
            width, height, mode = *image.size, image.mode
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        told = "no known encoding" if isinstance(error, UnidentifiedImageError) else str(error)[:80]
        raise TandemError(f"{where}: no picture{f' ({what:.40})' if what else ''}: {told}") from None
    if width * height > MAX_PIXELS:
        raise TandemError(f"{where}: a picture of {width}x{height} (allowed: {MAX_PIXELS} pixels)")
    is_deep = mode.startswith("I")
    flags = cv2.IMREAD_UNCHANGED if is_deep else cv2.IMREAD_COLOR_RGB
    pixels = _opencv(lambda: cv2.imdecode(found, flags), where)
    if pixels is None or (is_deep and (pixels.ndim != 2 or pixels.dtype != np.uint16)):
        raise TandemError(f"{where}: a damaged picture of {width}x{height}")
    return pixels[..., None] if is_deep else pixels


def fitted(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """``pixels`` (H, W, C) in another size, each new pixel the mean of the area that it covers (depth: the nearest)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    cv2 = package("cv2", "resize")
    way = cv2.INTER_NEAREST if pixels.dtype == np.uint16 else cv2.INTER_AREA
    return cv2.resize(pixels, (width, height), interpolation=way).reshape(height, width, pixels.shape[2])


def _millimetres(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "u":
        return pixels.astype(np.uint16)
    return np.clip(np.nan_to_num(pixels * 1000.0, nan=0.0, posinf=0.0, neginf=0.0).round(), 0, 65535).astype(np.uint16)


def _opencv(function: Callable[[], Any], where: str) -> Any:
    cv2 = package("cv2", where)
    try:
        return function()
    except cv2.error as error:
        raise TandemError(f"{where}: {' '.join(str(error).split())[:120]}") from None
