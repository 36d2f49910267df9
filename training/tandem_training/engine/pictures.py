"""Pictures that a stage draws of its module: PNG files beside the curves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tandem_training.results import write_png

FOLDER = "pictures"
_KEPT = 20  # validations


def write_pictures(out: Path, step: int, pictures: Mapping[str, np.ndarray]) -> None:
    """Writes ``<out>/pictures/<step>-<name>.png``; those of the newest 20 validations are kept.

    Args:
        out: the training's folder.
        step: optimizer steps done.
        pictures: by name, uint8 (H, W, 3).
    """
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        write_png(folder / f"{step}-{name}.png", picture)
    _thin(folder)


def _thin(folder: Path) -> None:
    """Removes all but the newest; what does not begin with a step is not ours."""
    numbered = [(path, path.name.split("-")[0]) for path in folder.glob("*-*.png")]
    ours = [(int(number), path) for path, number in numbered if number.isdigit()]
    kept = sorted({number for number, _ in ours})[-_KEPT:]
    for number, path in ours:
        if number not in kept:
            path.unlink(missing_ok=True)
