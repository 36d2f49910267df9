"""WebDataset tar shards: training windows, ready to be streamed by ``webdataset`` or read at random by our own reader.

A sample is one window, so that whoever trains needs nothing but that sample. Samples are already shuffled over the
whole data set (seeded), because a stream shuffles only as far as its buffer reaches.

| member of a sample | what |
|---|---|
| ``<camera>.<t>.png`` or ``.jpg`` | the picture at step t of the observation, oldest first |
| ``state.npy``, ``action.npy`` | float32 (T, S) and (K, A), in the embodiment's units |
| ``json`` | instruction, episode, index (the frame in the store), window, and how many steps are padding |

``index.json`` beside the shards tells the embodiment, the windows and the shards; ``<shard>.index.npy``, int64
(N, M, 2), where each of a sample's M members begins in the tar, and its size.
"""

from collections.abc import Sequence
from pathlib import Path

from tandem_datasets.formats.webdataset.reading import ShardWindows
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store

__all__ = ["ShardWindows", "export"]


def export(
    store: Store,
    target: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    workers: int = 1,
    progress: Progress = silent,
    history: int = 1,
    chunk: int = 16,
    stride: int = 1,
    learn: str = "targets",
    image: str = "auto",
    shard_windows: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
) -> Path:
    """Writes training windows as tar shards, complete or not at all.

    Args:
        store: what to export.
        target: a folder that is not there yet, or empty.
        episodes: which; None: all that are not deleted.
        workers: so many processes; the shards do not depend on how many.
        progress: told after each shard.
        history, chunk, stride, learn: of the windows, see ``windows.WindowSpec``.
        image: ``png`` (lossless), ``jpg`` (95, 4:4:4), or ``auto``: a jpeg store's own bytes as they are, else png.
            Depth and segmentation are png always.
        shard_windows: windows in a shard.
        shuffle: False: windows stand in the store's order.
        seed: of the order.

    Raises:
        TandemError: the place is taken, there are no windows, or an option is not understood.
    """
    from tandem_datasets.formats.webdataset.writing import Options, write
    from tandem_datasets.windows import WindowSpec

    spec = WindowSpec(history=history, chunk=chunk, stride=stride, learn=learn)
    options = Options(image, shard_windows, shuffle, seed)
    return write(store, Path(target), None if episodes is None else list(episodes), spec, options, workers, progress)
