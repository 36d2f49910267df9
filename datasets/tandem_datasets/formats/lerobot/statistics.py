"""Statistics as LeRobot keeps them, per episode and of the whole: its keys, its shapes, its choice of images.

Numbers are counted exactly, where LeRobot estimates quantiles from histograms of 5000 bins.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Statistics = dict[str, np.ndarray]

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_FEW, _MANY, _POWER = 100, 10_000, 0.75  # LeRobot looks at count**0.75 images of an episode, within these
_LARGE, _SIDE = 300, 150  # pixels: images at least so large are thinned to about that


def of_numbers(values: np.ndarray) -> Statistics:
    """Of one column of an episode, (T,) or (T, D): arrays (1,) or (D,), and ``count`` (1,)."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(rows, list(_QUANTILES.values()), axis=0)
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


class ImageStatistics:
    """Of one camera over one episode of ``frames`` frames, from a part of its images as LeRobot takes it."""

    def __init__(self, frames: int, dtype: np.dtype, channels: int) -> None:
        count = max(min(_FEW, frames), min(int(frames**_POWER), _MANY))
        self._wanted = np.unique(np.round(np.linspace(0, frames - 1, count)).astype(int))
        self._seen = 0
        self._counts = np.zeros((channels, np.iinfo(dtype).max + 1), np.int64)

    def add(self, images: np.ndarray) -> None:
        """The next images of the episode, (T, H, W, C)."""
        within = self._wanted[(self._wanted >= self._seen) & (self._wanted < self._seen + len(images))] - self._seen
        self._seen += len(images)
        height, width = images.shape[1:3]
        step = 1 if max(height, width) < _LARGE else max(height, width) // _SIDE
        picked = images[within, ::step, ::step]
        levels = self._counts.shape[1]
        for channel in range(len(self._counts)):
            self._counts[channel] += np.bincount(picked[..., channel].ravel(), minlength=levels)

    def result(self, scale: float) -> Statistics:
        """Arrays (C, 1, 1) in units of ``scale``, and ``count`` (1,)."""
        levels = np.arange(self._counts.shape[1])
        total = self._counts.sum(1)
        mean = self._counts @ levels / total
        variance = self._counts @ (levels.astype(np.float64) ** 2) / total - mean**2
        sums = self._counts.cumsum(1)
        found = {
            "min": np.array([levels[row > 0][0] for row in self._counts]),
            "max": np.array([levels[row > 0][-1] for row in self._counts]),
            "mean": mean,
            "std": np.sqrt(np.maximum(variance, 0)),
        }
        for key, share in _QUANTILES.items():
            found[key] = np.array([np.searchsorted(row, share * row[-1]) for row in sums])
        scaled = {key: (values / scale).reshape(-1, 1, 1) for key, values in found.items()}
        return {**scaled, "count": np.array([len(self._wanted)])}


def together(episodes: Sequence[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """The whole from its episodes; quantiles, as in LeRobot, are the episodes' weighted means."""
    return {key: _together([episode[key] for episode in episodes]) for key in episodes[0]}


def _together(parts: Sequence[Statistics]) -> Statistics:
    stacked = {key: np.stack([part[key] for part in parts]) for key in parts[0]}
    total = stacked["count"].sum(0)
    weights = (stacked["count"] / total).reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    mean = (stacked["mean"] * weights).sum(0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weights).sum(0)
    quantiles = {key: (stacked[key] * weights).sum(0) for key in _QUANTILES}
    return {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": total,
        **quantiles,
    }
