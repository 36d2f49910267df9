"""Films of recorded episodes as animated GIFs, small enough to lie in a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tandem_datasets.embodiment import Encoding
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.store import Store

SIZE = 256  # pixels of the shorter side, at least
CAPTION = 34  # pixels of the strip below the image
MAX_MS, FILM_MS = 350, 8000  # of one frame; of a whole film, about


def write_films(store: Path, infos: Sequence[EpisodeInfo], folder: Path, each: int) -> list[str]:
    """Films the first ``each`` successes and failures among ``infos``; returns paths relative to ``folder``'s parent.

    ``infos`` are the last episodes of the store, in order. Without a colour camera there is nothing to film.
    """
    reader = Store(store)
    if not any(camera.encoding is Encoding.RGB8 for camera in reader.embodiment.cameras):
        return []
    first = reader.n_episodes - len(infos)
    written: list[str] = []
    for success in (True, False):
        chosen = [index for index, info in enumerate(infos) if info.success is success][:each]
        for index in chosen:
            folder.mkdir(exist_ok=True)
            info = infos[index]
            path = folder / f"{info.outcome}_seed{info.seed}.gif"
            write_film(path, info, reader.frames(first + index))
            written.append(f"{folder.name}/{path.name}")
    return written


def write_film(path: Path, info: EpisodeInfo, frames: Sequence[Frame]) -> None:
    """One episode as a GIF of all colour cameras side by side, the instruction and the outcome below."""
    pictures = []
    for step, frame in enumerate(frames):
        picture = side_by_side([image for image in frame.observation.images.values() if image.dtype == np.uint8])
        last = step == len(frames) - 1
        text = f"{step + 1}/{len(frames)}" + (f"  {info.outcome}" if last else "")
        pictures.append(captioned(picture, frame.observation.instruction, text, info.success if last else None))
    each_ms = max(40, min(MAX_MS, FILM_MS // len(pictures)))
    durations = [each_ms] * (len(pictures) - 1) + [1500]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


def side_by_side(images: Sequence[np.ndarray]) -> Image.Image:
    """RGB images (H, W, 3) of any sizes in a row, enlarged without smoothing."""
    enlarged = []
    for image in images:
        scale = max(1, round(SIZE / min(image.shape[:2])))
        enlarged.append(
            Image.fromarray(image).resize((image.shape[1] * scale, image.shape[0] * scale), Image.Resampling.NEAREST)
        )
    row = Image.new("RGB", (sum(picture.width for picture in enlarged), max(picture.height for picture in enlarged)))
    left = 0
    for picture in enlarged:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def captioned(picture: Image.Image, instruction: str, text: str, success: bool | None) -> Image.Image:
    """The picture with two lines below it, the second in the colour of success, failure, or neither (None)."""
    whole = Image.new("RGB", (picture.width, picture.height + CAPTION), (24, 26, 32))
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    colour = {True: (120, 220, 140), False: (240, 130, 120), None: (200, 205, 215)}[success]
    for line, top, fill in ((instruction, 2, (235, 238, 245)), (text, 17, colour)):
        draw.text((6, picture.height + top), line, font=_font(line, picture.width - 12), fill=fill)
    return whole


def _font(line: str, width: int) -> Any:
    """As large as the line fits, if it fits at all."""
    sizes = range(12, 7, -1)
    fonts = (ImageFont.load_default(size) for size in sizes)
    return next((font for font in fonts if font.getlength(line) <= width), ImageFont.load_default(sizes[-1]))
