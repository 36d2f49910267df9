"""Rows of ``tandem bench data`` about formats: what comes back of a store that was written in another."""

import time
from pathlib import Path

from tandem_datasets.compare import episodes_equal
from tandem_datasets.formats import export, open_source
from tandem_datasets.formats.importing import import_episodes
from tandem_datasets.store import Store
from tandem_training.results import Row


def roundtrip_mcap(store: Store, folder: Path) -> Row:
    """Whether a store written as a rosbag2 recording comes back exact to the byte, with every stamp and fact.

    Args:
        store: with lossless images.
        folder: an empty place for the recording and what is read from it.
    """
    started = time.perf_counter()
    recording = export(store, "mcap", folder / "recording", options={"compression": "none"})
    written = time.perf_counter()
    found = import_episodes(open_source(str(recording), "mcap"), folder / "mcap.zarr", codec=store.codec)
    read = time.perf_counter()
    kept = [int(index) for index in store.kept]
    same = found.embodiment == store.embodiment and found.n_episodes == len(kept)
    differ = [k for k, index in enumerate(kept) if same and not _is_equal(found, k, store, index)]
    frames = found.n_frames
    note = f"{len(kept)} episodes, {frames / (written - started):.0f} frames/s out, {frames / (read - written):.0f} in"
    if differ:
        note += f"; episodes {differ[:5]} differ"
    return Row("roundtrip_mcap", same and not differ, repeats=len(kept), note=note)


def _is_equal(found: Store, episode: int, expected: Store, index: int) -> bool:
    return found.info(episode) == expected.info(index) and not episodes_equal(found, episode, expected, index)
