"""LeRobotDataset v3, both ways and without LeRobot (formats checked against lerobot 0.6.1).

LeRobot's own columns carry images or videos, state, executed action, instruction (its task), reward, done and success.
Beside them lie ``meta/embodiment.json`` and the folder ``tandem`` with everything else that a store holds, so that an
export with images comes back to the last bit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tandem_datasets.formats.lerobot.layout import EMBODIMENT_FILE, INFO_FILE
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store

if TYPE_CHECKING:
    from tandem_datasets.formats.lerobot.reading import LeRobotSource

__all__ = ["EMBODIMENT_FILE", "claims", "export", "open_source"]


def export(
    store: Store,
    target: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    workers: int = 1,
    progress: Progress = silent,
    video: bool = False,
    vcodec: str = "libsvtav1",
    pix_fmt: str = "yuv420p",
    g: int = 2,
    crf: int = 30,
    preset: int | str | None = None,
    fast_decode: int = 0,
) -> Path:
    """Writes episodes as a LeRobotDataset, complete or not at all.

    ``observation.images.<camera>`` are lossless pictures (or videos), ``observation.state`` and ``action`` float32 in
    the embodiment's units, each frame's instruction is its ``task``. The action is the executed one. ``next.reward``,
    ``next.done`` (true at the last frame in any case) and ``next.success`` tell what came of the step.

    Args:
        store: what to export.
        target: a directory that is not there yet or empty.
        episodes: which, in this order; None: all that are not deleted.
        workers: so many processes; the files do not depend on how many.
        progress: told after each episode.
        video: rgb8 cameras as mp4 videos, which lose a little; depth and segmentation stay lossless pictures.
        vcodec, pix_fmt, g, crf, preset, fast_decode: of the videos, with LeRobot's meanings and defaults.

    Raises:
        TandemError: the place is taken, there are no episodes, a package is missing, or LeRobot has no words for the
            embodiment (a rate that is no whole number), or FFmpeg none for the video.
    """
    from tandem_datasets.formats.lerobot.video import VideoOptions
    from tandem_datasets.formats.lerobot.writing import write

    options = VideoOptions(vcodec, pix_fmt, g, crf, preset, fast_decode) if video else None
    return write(store, Path(target), None if episodes is None else list(episodes), options, workers, progress)


def open_source(
    path: str,
    *,
    state: list[str] | None = None,
    map: dict[str, str] | None = None,
    actor: str = "person",
) -> "LeRobotSource":
    """Opens a LeRobotDataset v3 in a local folder, images or videos, one file or many.

    One that Tandem exported comes back as it was. Of any other the embodiment is made from the features: names and
    shapes are the dataset's, made to fit; limits are the data's smallest and largest values (half a unit to both sides
    of what never moved); units are unknown ("1"); actions are absolute targets. The frames' stamps count from 0.

    Args:
        path: the folder with ``meta``, ``data`` and ``videos``.
        state: features of numbers that make up the state, one after the other; None: ``observation.state``.
        map: where scalars are measured (``joint_position``, ``pose``, ``grip`` ...), by the scalar's name or the
            feature's key. Without it, names that end in ``.pos``, ``.vel`` or ``.effort`` are joints, others poses.
        actor: who acted: ``policy``, ``person``, ``expert``.

    Raises:
        TandemError: it is of an older version, a file or column is missing or damaged, or a feature fits no embodiment.
    """
    from tandem_datasets.formats import foreign
    from tandem_datasets.formats.lerobot.features import STATE
    from tandem_datasets.formats.lerobot.reading import LeRobotSource

    where = f"import {path}"
    sources = {key: foreign.state_source(text, f"{where}: map {key}") for key, text in (map or {}).items()}
    return LeRobotSource(Path(path), tuple(state or [STATE]), sources, foreign.actor(actor, where))


def claims(path: str) -> bool:
    """Whether a LeRobotDataset lies at ``path``, of whichever version."""
    return Path(path, INFO_FILE).is_file()
