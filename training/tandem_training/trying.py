"""`tandem try` as a picture: instructions as rows, the steps of each trial as columns."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import blank_observation
from tandem_datasets.policy import Policy
from tandem_sim.pictures import spotlight
from tandem_sim.trying import Look, Moment, Tryout
from tandem_training.results import write_png
from tandem_training.validate import path
from tandem_training.views import AUTO, PICTURE, TERMINAL, WINDOW

VIEWS = (AUTO, WINDOW, TERMINAL, PICTURE)
_SIDE, _GAP, _STRIP, _MOST = 160, 6, 20, 7  # pixels of an image, between them, of a line of text; images of a row
_NIGHT, _BRIGHT, _SOFT = (24, 26, 32), (235, 238, 245), (165, 172, 185)


def look_of(policy: Policy) -> Look | None:
    """The policy's attention over histories, None where it has none to show."""
    from tandem_policies.runtime import TorchPolicy

    if not isinstance(policy, TorchPolicy):
        return None
    try:
        policy.attention([[blank_observation(policy.embodiment)] * policy.n_obs_steps])
    except TandemError:  # this kind of network has no map
        return None
    return policy.attention


def instructions(value: Any, where: str) -> list[str]:
    """The instructions that a configuration asks for, none for null; TandemError for anything but texts."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    texts = [] if found is None else found if isinstance(found, list) else [found]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise TandemError(f"{where}: instruction is {text!r:.60} (allowed: a text, or a list of texts '[a,b]')")
    return texts


def picture_path(value: Any, policy: str, where: str) -> Path:
    """Where the picture goes; TandemError if something is there already or the name is no PNG's."""
    target = path(where, "out", value)
    if target is None:
        target = Path("outputs/try") / f"{Path(policy).name or 'policy'}-{datetime.now():%Y%m%d-%H%M%S}.png"
    if target.suffix.lower() != ".png":
        raise TandemError(f"{where}: out={target} (allowed: a name that ends in .png)")
    if target.exists():
        raise TandemError(f"{where}: out={target} exists (allowed: a new file)")
    return target


def write_picture(tryout: Tryout, seed: int, asked: list[str], target: Path) -> Mapping[str, str]:
    """Asks for everything on the scene of ``seed``, draws the trials and writes them whole; verdicts by instruction."""
    tryout.lay_out(seed)
    verdicts, rows = {}, []
    for words in asked or tryout.suggestions:
        moments = list(tryout.ask(words))
        verdicts[words] = tryout.verdict
        rows.append(_row(words, moments, tryout.verdict))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _NIGHT)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, np.asarray(sheet))
    except OSError as error:
        raise TandemError(f"tandem try: out={target}: {error.strerror or error}") from error
    return verdicts


def _row(words: str, moments: list[Moment], verdict: str) -> Image.Image:
    """One trial: what was asked and came of it above, evenly chosen steps below, the last one always."""
    last = len(moments) - 1
    places = sorted({round(k * last / (_MOST - 1)) for k in range(_MOST)})
    width = _GAP + (_SIDE + _GAP) * max(len(places), 3)
    row = Image.new("RGB", (width, 2 * _STRIP + _SIDE + 2 * _GAP), _NIGHT)
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(13)
    draw.text((_GAP, 3), f"{words}: {verdict}", font=font, fill=_BRIGHT)
    for column, place in enumerate(places):
        moment, left = moments[place], _GAP + column * (_SIDE + _GAP)
        lit = moment.image if moment.attention is None else spotlight(_large(moment.image), moment.attention)
        row.paste(Image.fromarray(_large(lit)), (left, _STRIP))
        said = f"step {place}" + (f": {moment.words}" if moment.words else "") if place < last else "end"
        draw.text((left, _STRIP + _SIDE + 3), said, font=font, fill=_SOFT)
    return row


def _large(image: Any) -> Any:
    import cv2

    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    shape = (round(width * scale), round(height * scale))
    return cv2.resize(image, shape, interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA)
