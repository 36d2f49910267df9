"""Single encoded pictures of others: their size is checked before they are decoded."""

import io

import numpy as np

from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError

_KINDS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")


def decode_picture(data: bytes | None, camera: Camera, where: str) -> np.ndarray:
    """A picture as the camera's frames are, (H, W, C); grey ones become rgb8 of equal channels.

    Raises:
        TandemError: it is damaged, of another size (it is never resized) or of another depth.
    """
    from PIL import Image

    if not data:
        raise TandemError(f"{where}: no picture (allowed: an encoded picture inside the file)")
    try:
        with Image.open(io.BytesIO(data), formats=_KINDS) as picture:
            if (picture.height, picture.width) != camera.shape[:2]:
                raise TandemError(
                    f"{where}: a picture of {picture.width}x{picture.height} (allowed: {camera.width}x{camera.height})"
                )
            deep = picture.mode in _DEEP
            if deep != (camera.dtype == np.uint16):
                raise TandemError(f"{where}: a picture of mode {picture.mode} (allowed: {camera.encoding})")
            if deep:
                return np.asarray(picture, np.uint16)[..., None]
            return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TandemError(f"{where}: damaged picture: {str(error)[:100]}") from error
