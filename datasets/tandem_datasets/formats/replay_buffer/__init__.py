"""Replay buffers of Diffusion Policy and UMI: read as Zarr v2 or v3, from a folder or a ``.zarr.zip``, written as v2.

``data/<key>`` holds all episodes in a row, ``meta/episode_ends`` says where each ends. The group ``tandem``, at which
their code does not look, carries what else a store holds, so that an export comes back to the last bit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store

if TYPE_CHECKING:
    from tandem_datasets.formats.replay_buffer.reading import ReplayBufferSource

__all__ = ["claims", "export", "open_source"]


def export(
    store: Store,
    target: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    workers: int = 1,
    progress: Progress = silent,
    map: dict[str, str] | None = None,
    compressor: str = "disk",
) -> Path:
    """Writes episodes as a Zarr v2 replay buffer that Diffusion Policy's ``ReplayBuffer`` opens, whole or not at all.

    Args:
        store: what to export.
        target: a folder, or a file whose name ends in ``.zip``; nothing is there yet.
        episodes: which, in this order; None: all that are not deleted.
        workers: so many processes; the arrays do not depend on how many.
        progress: told after each chunk.
        map: their key of a camera, of ``state`` or of ``action``, where it shall not be our name: ``top=img``.
        compressor: ``disk`` (Diffusion Policy's: Blosc, zstd), ``default`` (its: Blosc, lz4), ``none``, or ``jpegxl``
            (lossless; for the images only, and UMI's own code has to register its codecs to read it).

    Raises:
        TandemError: the place is taken, there are no episodes, or an option is not understood.
    """
    from tandem_datasets.formats.replay_buffer.writing import write

    picked = None if episodes is None else list(episodes)
    return write(store, Path(target), picked, map or {}, compressor, workers, progress)


def open_source(
    path: str,
    *,
    map: dict[str, str] | None = None,
    rate_hz: float = 10.0,
    action: str = "auto",
    actor: str = "person",
    instruction: str = "",
) -> "ReplayBufferSource":
    """Opens a replay buffer, a folder or a ``.zarr.zip``.

    One that Tandem exported comes back as it was. Of any other, arrays of pictures are cameras, ``action`` is the
    action and well-known keys (``state``, ``agent_pos``, ``robot0_eef_pos``, ``robot0_gripper_width`` ...) are the
    state, one after the other; the rest is left out and named in the provenance. Limits are the data's smallest and
    largest values, units are unknown ("1"). UMI stores no actions: there, the action of a step is the next
    step's state, as in its code.

    Args:
        path: a folder, or a zip file.
        map: what a key is: ``camera``, ``action``, ``reward``, ``left_out``, ``state``, or where it is measured
            (``joint_position``, ``pose``, ``grip`` ...).
        rate_hz: of the data, which does not tell it: 10 is Diffusion Policy's usual one, UMI's is about 60.
        action: ``data``, ``next_state``, ``none``, or ``auto``: the data's, else the next state of UMI's keys.
        actor: who acted: ``policy``, ``person``, ``expert``.
        instruction: of all episodes.

    Raises:
        TandemError: it is no replay buffer, an array is damaged, of objects, too large or compressed by a codec that is
            not known to be harmless, or an option does not fit.
    """
    from tandem_datasets.formats.replay_buffer.reading import ReplayBufferSource

    return ReplayBufferSource(Path(path), map or {}, rate_hz, action, actor, instruction)


def claims(path: str) -> bool:
    """Whether a replay buffer lies at ``path`` (and no episode store of ours, which looks similar)."""
    from tandem_datasets.formats.replay_buffer.arrays import looks_like_buffer

    return looks_like_buffer(Path(path))
