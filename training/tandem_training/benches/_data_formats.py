"""Rows of ``tandem bench data`` about formats: what comes back of a store that was written in another."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.compare import episodes_equal
from tandem_datasets.embodiment import Encoding
from tandem_datasets.formats import export, open_source
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.store import Store
from tandem_training.results import Row

_LEAST_DB = 40.0


def roundtrip_lerobot(store: Store, folder: Path) -> Row:
    """Whether a store written as a LeRobotDataset with images comes back exact, and in JPEG at 40 dB or better.

    Args:
        store: with lossless images.
        folder: an empty place for the data set and what is read from it.
    """
    exact = _round_trip("roundtrip_lerobot", store, "lerobot", folder / "dataset", {})
    jpeg = import_episodes(open_source(str(folder / "dataset"), "lerobot"), folder / "lerobot-jpeg.zarr", codec="jpeg")
    quality = _decibels(store, jpeg)
    fine = bool(exact.value) and quality >= _LEAST_DB
    return Row(exact.name, fine, repeats=exact.repeats, note=f"{exact.note}; as JPEG {quality:.1f} dB")


def roundtrip_replay(store: Store, folder: Path) -> Row:
    """Whether a store written as Diffusion Policy's replay buffer comes back exact; arguments as above."""
    return _round_trip("roundtrip_replay", store, "replay_buffer", folder / "buffer.zarr", {})


def roundtrip_mcap(store: Store, folder: Path) -> Row:
    """Whether a store written as a rosbag2 recording comes back exact; arguments as above."""
    return _round_trip("roundtrip_mcap", store, "mcap", folder / "recording", {"compression": "none"})


def _round_trip(name: str, store: Store, form: str, target: Path, options: Mapping[str, Any]) -> Row:
    """Whether everything comes back to the byte, with every stamp and fact."""
    started = time.perf_counter()
    export(store, form, target, options=options)
    written = time.perf_counter()
    found = import_episodes(open_source(str(target), form), target.with_name(f"{form}.zarr"), codec=store.codec)
    read = time.perf_counter()
    kept = [int(index) for index in store.kept]
    same = found.embodiment == store.embodiment and found.n_episodes == len(kept)
    differ = [k for k, index in enumerate(kept) if same and not _is_equal(found, k, store, index)]
    frames = found.n_frames
    note = f"{len(kept)} episodes, {frames / (written - started):.0f} frames/s out, {frames / (read - written):.0f} in"
    if differ:
        note += f"; episodes {differ[:5]} differ"
    return Row(name, same and not differ, repeats=len(kept), note=note)


def _is_equal(found: Store, episode: int, expected: Store, index: int) -> bool:
    return found.info(episode) == expected.info(index) and not episodes_equal(found, episode, expected, index)


def _decibels(store: Store, found: Store) -> float:
    """Peak signal to noise of the rgb8 cameras' worst frame; infinite if none lost anything."""
    worst = 0.0
    for camera in store.embodiment.cameras:
        if camera.encoding is not Encoding.RGB8:
            continue
        for k, index in enumerate(store.kept.tolist()):
            mine, theirs = store.episode_slice(index), found.episode_slice(k)
            wanted = store.load(camera.name, mine.start, mine.stop).astype(np.float32)
            errors = (found.load(camera.name, theirs.start, theirs.stop) - wanted) ** 2
            worst = max(worst, float(errors.mean((1, 2, 3)).max()))
    return 10 * math.log10(255**2 / worst) if worst else math.inf
