"""The images of training stores: in memory where they fit, else read and decoded when a batch asks for them."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.rows import JoinedRows

AUTO, MEMORY, LAZY = "auto", "memory", "lazy"
KINDS = (AUTO, MEMORY, LAZY)

_MOST_MEMORY = 0.8  # of what is free
_MOST_THREADS = 8  # that decode images of one batch


class Images(Protocol):
    """One camera's images (N, H, W, C) by row: an array, or something that is read when it is indexed."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


def images_of(stores: Sequence[Any], rows: Sequence[np.ndarray], where: str, kind: str = AUTO) -> dict[str, Images]:
    """Every camera's images of all stores; a batch of them is the same, wherever they are.

    Args:
        stores: of one embodiment.
        rows: of each store, which of its frames.
        where: begins the errors.
        kind: "memory": all of them are loaded; "lazy": they are read when a batch asks for them; "auto": memory if
            they fit into it.

    Raises:
        TandemError: no such kind, "memory" does not suffice, or an image is damaged.
    """
    if kind not in KINDS:
        raise unknown(f"{where}: images", str(kind), KINDS)
    embodiment, count = stores[0].embodiment, sum(map(len, rows))
    lacks = "" if kind == LAZY else _lacking(embodiment, count)
    if lacks and kind == MEMORY:
        raise TandemError(f"{where}: {lacks} (allowed: stage.images=lazy, or fewer or smaller stores)")
    lazy = kind == LAZY or bool(lacks)
    threads = min(_MOST_THREADS, (os.cpu_count() or 1) // 2) if lazy else 0
    found: dict[str, Images] = {}
    for camera in embodiment.cameras:
        parts = [(store.rows(camera.name, threads), own) for store, own in zip(stores, rows, strict=True)]
        if lazy:
            found[camera.name] = JoinedRows(parts)
            continue
        whole, at = np.empty((count, *camera.shape), camera.dtype), 0
        for column, own in parts:
            column.read_into(own, whole[at : at + len(own)])
            at += len(own)
        found[camera.name] = whole
    return found


def _lacking(embodiment: Embodiment, frames: int) -> str:
    """That so many frames' images do not fit into memory; nothing if they do."""
    import psutil

    wanted = frames * sum(int(np.prod(camera.shape)) * camera.dtype.itemsize for camera in embodiment.cameras)
    free = psutil.virtual_memory().available
    if wanted <= _MOST_MEMORY * free:
        return ""
    return f"{frames} frames need {wanted / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
