"""Statistics of what a store teaches: of each state and action scalar, and of each channel of each camera.

They are computed once and kept in the user's cache folder under the store's digest, so that a read-only or a remote
store has them, too, and another content never gets them.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store
from tandem_datasets.targets import Origin, episode_rows, origins, require_finite
from tandem_datasets.windows import EXECUTED, TARGETS

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)

_VERSION = 1  # of the numbers: another one finds no older ones
_BLOCK = 1 << 16  # rows that are read together
_MOST_ROWS = 200_000  # that quantiles are taken from
_FRAMES_AT_ONCE = 32
_STREAM = 6  # of random numbers, so that one seed serves several purposes


@dataclass(frozen=True)
class Summary:
    """Of several scalars or channels; every list has one entry of each."""

    names: list[str]  # of the scalars; of a camera 0, 1, 2
    count: int  # values of each
    mean: list[float]
    std: list[float]  # of the population
    min: list[float]
    max: list[float]
    quantiles: dict[str, list[float]]  # "0.01" and so on; of scalars from at most 200,000 rows


def statistics(
    store: Store,
    episodes: Sequence[int] | np.ndarray | None = None,
    learn: str = TARGETS,
    frames: int = 1000,
    seed: int = 0,
    cached: bool = True,
    progress: Progress = silent,
) -> dict[str, Summary]:
    """``state``, ``action`` and ``images.<camera>`` over some episodes.

    Args:
        store: what is described.
        episodes: of these only; None: all that are not marked as deleted.
        learn: "targets": frames that teach something, ``action`` being a label where there is one; "executed": all
            frames and what was done (see :class:`windows.WindowSpec`).
        frames: of each camera at most so many images are looked at, chosen by chance.
        seed: of that choice.
        cached: whether to look into the cache folder (``$XDG_CACHE_HOME/tandem/statistics``) and to write there.
        progress: is told about rows.

    Raises:
        TandemError: the store is damaged, or no frame is left to describe.
    """
    chosen = store.kept if episodes is None else np.unique(np.asarray(episodes, np.int64))
    basis = [_VERSION, store.digest, hashlib.sha256(chosen.tobytes()).hexdigest(), learn, frames, seed]
    path = cache_folder() / f"{hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:24]}.json"
    if cached and (found := _read(path)) is not None:
        return found
    found = _computed(store, chosen, learn, frames, seed, progress)
    if cached:
        with contextlib.suppress(OSError):  # a full disk or a folder of somebody else's: they are there all the same
            _write(path, found)
    return found


def cache_folder() -> Path:
    """Where statistics are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "tandem", "statistics")


def _computed(
    store: Store, episodes: np.ndarray, learn: str, frames: int, seed: int, progress: Progress
) -> dict[str, Summary]:
    if learn not in (TARGETS, EXECUTED) or frames < 1:
        raise TandemError(f"{store.where}: statistics: learn={learn}, frames={frames} (allowed: targets|executed, 1..)")
    rows = episode_rows(store.episode_ends, episodes)
    has_label = store.load("has_label") if learn == TARGETS else np.zeros(store.n_frames, bool)
    if learn == TARGETS and store.embodiment.action:  # videos teach by their pictures alone
        rows = rows[(origins(has_label, store.load("source")) != Origin.NONE)[rows]]
    if not len(rows):
        raise TandemError(f"{store.where}: statistics: no frame to describe (allowed: at least one that teaches)")
    random = np.random.default_rng([seed, _STREAM])
    sample = _sample(rows, _MOST_ROWS, random)
    cameras = [camera.name for camera in store.embodiment.cameras]
    looked_at = _sample(rows, frames, random)
    total = 2 * len(rows) + len(cameras) * len(looked_at)
    found, done = {}, 0
    for key, scalars in (("state", store.embodiment.state), ("action", store.embodiment.action)):
        if scalars:
            labels = has_label if key == "action" and has_label.any() else None
            found[key] = _of_scalars(store, key, [scalar.name for scalar in scalars], rows, sample, labels)
        done += len(rows)
        progress(done, total, "rows")
    for name in cameras:
        found[f"images.{name}"] = _of_images(store, name, looked_at)
        done += len(looked_at)
        progress(done, total, "rows")
    return found


def _of_scalars(
    store: Store, key: str, names: list[str], rows: np.ndarray, sample: np.ndarray, has_label: np.ndarray | None
) -> Summary:
    """Exact but for the quantiles; block by block, so that memory does not grow with the store."""
    count, mean, spread = 0, np.zeros(len(names)), np.zeros(len(names))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    drawn = []
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        values = _values(store, key, part, has_label).astype(np.float64)
        require_finite(values, part, key, store.where)
        block_mean = values.mean(0)
        shift = block_mean - mean
        whole = count + len(values)
        mean += shift * len(values) / whole  # Chan, Golub and LeVeque's merging of two parts
        spread += ((values - block_mean) ** 2).sum(0) + shift**2 * count * len(values) / whole
        count = whole
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        drawn.append(values[np.isin(part, sample, assume_unique=True)])
    quantiles = np.quantile(np.concatenate(drawn), QUANTILES, axis=0)
    return Summary(
        names=names,
        count=count,
        mean=mean.tolist(),
        std=np.sqrt(spread / count).tolist(),
        min=low.tolist(),
        max=high.tolist(),
        quantiles={str(q): values.tolist() for q, values in zip(QUANTILES, quantiles, strict=True)},
    )


def _values(store: Store, key: str, rows: np.ndarray, has_label: np.ndarray | None) -> np.ndarray:
    """Rows of a column, (n, size); of actions the labels where there are any."""
    values = store.rows(key)[rows]
    if has_label is not None and (labelled := has_label[rows]).any():
        values[labelled] = store.rows("action_label")[rows[labelled]]
    return values


def _of_images(store: Store, camera: str, rows: np.ndarray) -> Summary:
    """Of every pixel of the given frames, by counting how often each value comes."""
    images = store.rows(camera)
    size = int(np.iinfo(images.dtype).max) + 1
    channels = images.shape[-1]
    counts = np.zeros((channels, size), np.int64)
    for start in range(0, len(rows), _FRAMES_AT_ONCE):
        batch = images[rows[start : start + _FRAMES_AT_ONCE]]
        for channel in range(channels):
            counts[channel] += np.bincount(batch[..., channel].reshape(-1), minlength=size)
    values, total = np.arange(size, dtype=np.float64), int(counts[0].sum())
    means = counts @ values / total
    stds = [float(np.sqrt(counts[k] @ (values - means[k]) ** 2 / total)) for k in range(channels)]
    seen = [np.flatnonzero(row) for row in counts]
    below = counts.cumsum(1)
    return Summary(
        names=[str(k) for k in range(channels)],
        count=total,
        mean=means.tolist(),
        std=stds,
        min=[float(some[0]) for some in seen],
        max=[float(some[-1]) for some in seen],
        quantiles={
            str(q): [float(np.searchsorted(row, q * (total - 1), side="right")) for row in below] for q in QUANTILES
        },
    )


def _sample(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """At most ``most`` of the rows, ascending."""
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def _read(path: Path) -> dict[str, Summary] | None:
    """What was kept there; None if nothing is, or it is damaged."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return {key: Summary(**values) for key, values in found.items()} or None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(path: Path, found: dict[str, Summary]) -> None:
    """Whole or not at all, whoever else does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.stem}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({key: asdict(summary) for key, summary in found.items()}, file)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
