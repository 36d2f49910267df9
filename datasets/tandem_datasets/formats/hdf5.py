"""HDF5 demonstrations, read: robomimic's layout, and ALOHA's.

robomimic (https://robomimic.github.io/docs/datasets/overview.html): one file, ``data/demo_k`` with ``obs/<key>``,
``actions``, ``rewards``, ``dones``, and ``mask/<split>`` with names of demonstrations. ALOHA (https://github.com/
tonyzhaozh/aloha): a file per episode with ``observations/images/<camera>``, ``observations/qpos`` and ``action``.
"""

from pathlib import Path

from tandem_datasets.formats import Source
from tandem_datasets.formats.clips import wanted_size
from tandem_datasets.formats.hdf5_layout import SUFFIXES
from tandem_datasets.formats.hdf5_source import Hdf5Source

_MAGIC = b"\x89HDF\r\n\x1a\n"


def open_source(
    path: str,
    *,
    cameras: list[str] | None = None,
    state: list[str] | None = None,
    map: dict[str, str] | None = None,
    rate_hz: float | None = None,
    instruction: str = "",
    actor: str = "person",
    size: list[int] | None = None,
) -> Source:
    """Episodes of a file in robomimic's layout, or of a file or folder in ALOHA's.

    Limits are the data's smallest and largest values, units unknown ("1"), actions absolute targets. In robomimic's
    layout a step of a reward of at least 1 is a success; ``mask`` goes into the provenance as ``splits``.

    Args:
        path: a ``.hdf5`` file, or a folder of ALOHA's.
        cameras: observations that are pictures; None: all of uint8 (T, H, W, 1 or 3) and uint16 (T, H, W, 1).
        state: observations of numbers, in this order; None: all that are no pictures, by name.
        map: where observations are measured (``joint_position``, ``pose``, ``grip`` ...) by their name; without it
            names tell joints, and all others are poses.
        rate_hz: None: the ``control_freq`` in ``env_args``, else 20 Hz; in ALOHA's layout 50 Hz.
        instruction: of all episodes.
        actor: who acted: ``policy``, ``person``, ``expert``.
        size: ``[height, width]`` to which pictures are resized, each pixel the mean of its area (depth: the nearest);
            None: they stay as they are.

    Raises:
        TandemError: another layout, shapes that differ between episodes, links, types that are no plain numbers.
    """
    return Hdf5Source(
        Path(path), cameras, state, map or {}, rate_hz, instruction, actor, wanted_size(size, f"hdf5 {path}")
    )


def claims(path: str) -> bool:
    """Whether there is an HDF5 file, be it by its name alone, or a folder of some."""
    place = Path(path)
    if place.is_dir():
        return any(file.suffix in SUFFIXES for file in place.iterdir())
    if not place.is_file():
        return False
    if place.suffix in SUFFIXES:
        return True
    with place.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
