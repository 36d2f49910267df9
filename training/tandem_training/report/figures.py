"""Figures that several reports share."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tandem_sim.pictures import spotlight

COLOURS = ("#2563a8", "#c2571a", "#3d8a4f", "#8a4fa3", "#666f80")


def success_bars(rates: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Success per policy as (rate, low, high), with its 95 % interval."""
    figure = Figure(figsize=(5.2, 0.6 + 0.5 * len(rates)), layout="constrained")
    axes = figure.subplots()
    names = list(rates)
    values = np.array([rates[name] for name in names])
    errors = np.abs(np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]))
    axes.barh(names, values[:, 0], xerr=errors, color=COLOURS[: len(names)], height=0.6, capsize=4)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel="success (95 % interval)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def learning_curves(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], ylabel: str = "loss") -> Figure:
    """Per training: "train" and "val" as (step, value) pairs; training smoothed, validation dotted."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        for kind, style in (("train", "-"), ("val", "o--")):
            points = np.array(curve.get(kind, ()), float).reshape(-1, 2)
            if len(points):
                label = f"{name}, {'training' if kind == 'train' else 'validation'}"
                axes.plot(points[:, 0], _smooth(points[:, 1]) if kind == "train" else points[:, 1], style,
                          color=colour, markersize=3, linewidth=1.2, label=label)  # fmt: skip
    axes.set(xlabel="step", ylabel=ylabel, yscale="log")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def attention_overlay(image: np.ndarray, attention: np.ndarray, size: int = 224) -> Image.Image:
    """An RGB image (H, W, 3) dimmed except where attention (gh, gw) lies."""
    large = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))
    return Image.fromarray(spotlight(large, attention))


def _smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    width = max(1, int(len(values) * share))
    padded = np.concatenate([np.full(width - 1, values[0]), values])
    return np.convolve(padded, np.ones(width) / width, "valid")
