"""The pictures of an offline evaluation."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tandem_datasets.errors import TandemError
from tandem_training.accuracy import SAME_WAY
from tandem_training.offline import INSTRUCTION, Offline, histories
from tandem_training.report.figures import COLOURS
from tandem_training.results import write_png
from tandem_training.sheets import Case, sheet
from tandem_training.statistics import wilson

_MOST_SCALARS = 12
_MOST_POINTS = 4000  # of a scatter plot
_SHOWN = 8  # worst cases, and as many random ones
_MOST_BARS = 12  # values of a quantity; more numbers than that are binned


def write_plots(out: Path, found: Offline, policy: Any) -> None:
    """``predictions.png``, ``errors.png``, ``groups.png`` (where there are groups), ``worst.png``, ``random.png``."""
    _predictions(found).savefig(out / "predictions.png", dpi=110)
    _errors(found).savefig(out / "errors.png", dpi=110)
    if found.groups:
        _groups(found).savefig(out / "groups.png", dpi=110)
    order = np.argsort(-found.errors, kind="stable")
    drawn = np.sort(np.random.default_rng(0).permutation(len(order))[:_SHOWN])
    for name, places in (("worst", order[:_SHOWN]), ("random", drawn)):
        write_png(out / f"{name}.png", _sheet(found, policy, places))


def _predictions(found: Offline) -> Figure:
    """Predicted against true, a panel per scalar."""
    scalars = found.frames.embodiment.action[:_MOST_SCALARS]
    ours, theirs = found.ours[found.there], found.theirs[found.there]
    step = -(-len(ours) // _MOST_POINTS)
    columns = min(4, len(scalars))
    rows = -(-len(scalars) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, axes in enumerate(panels):
        if place >= len(scalars):
            axes.set_axis_off()
            continue
        scalar = scalars[place]
        axes.axline((scalar.low, scalar.low), slope=1, color="#9aa3b0", linewidth=1)
        axes.plot(theirs[::step, place], ours[::step, place], ".", color=COLOURS[0], markersize=3, alpha=0.35)
        axes.set(title=f"{scalar.name} ({scalar.unit})", xlabel="true", ylabel="predicted")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _errors(found: Offline) -> Figure:
    """Histograms of the error, and of the angle where there are directions."""
    aims = found.directions
    figure = Figure(figsize=(4.4 if aims is None else 8.6, 3.2), layout="constrained")
    panels = figure.subplots(1, 1 if aims is None else 2, squeeze=False)[0]
    misses = np.maximum(found.errors[found.counted], 1e-6)
    edges = np.geomspace(misses.min() * 0.99, misses.max() * 1.01, 41)
    panels[0].hist(misses, bins=edges, color=COLOURS[0])
    mean = float(found.errors[found.counted].mean())
    panels[0].axvline(mean, color=COLOURS[1], linewidth=1.5, label=f"mean {mean:.4g}")
    panels[0].set(xscale="log", xlabel="error (Euclidean, units of the action)", ylabel="samples")
    panels[0].legend(frameon=False, loc="upper left")
    if aims is not None:
        angles = np.degrees(np.arccos(np.clip(aims.cosine[aims.moves], -1, 1)))
        limit = float(np.degrees(np.arccos(SAME_WAY)))
        edges = np.geomspace(max(angles.min(), 0.01), 180, 41)
        panels[1].hist(np.maximum(angles, edges[0]), bins=edges, color=COLOURS[0])
        panels[1].axvline(limit, color=COLOURS[1], linewidth=1.5, label=f"right below {limit:.1f}")
        panels[1].set(xscale="log", xlabel="angle to the true direction (deg)", ylabel="samples")
        panels[1].legend(frameon=False, loc="upper left")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _groups(found: Offline) -> Figure:
    """Direction accuracy (where there are directions) and error by each quantity."""
    aims = found.directions
    names = list(found.groups)
    rows = 1 if aims is None else 2
    figure = Figure(figsize=(3.8 * len(names), 2.7 * rows), layout="constrained")
    panels = np.array(figure.subplots(rows, len(names), squeeze=False))
    for column, name in enumerate(names):
        labels, masks = _binned(found.groups[name], found.counted)
        if aims is not None:
            _accuracy_bars(panels[0, column], labels, [aims.right[mask] for mask in masks])
        _error_bars(panels[-1, column], labels, [found.errors[mask] for mask in masks])
        panels[-1, column].set_xlabel(name)
    panels[-1, 0].set_ylabel("mean error (L2)")
    if aims is not None:
        panels[0, 0].set_ylabel("direction right")
    return figure


def _binned(values: np.ndarray, counted: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Labels and masks of the values of a quantity; many numbers are put into bins, of many texts some are left out."""
    known = np.unique(values[counted])
    if len(known) <= _MOST_BARS or not np.issubdtype(known.dtype, np.number):
        known = known[: 2 * _MOST_BARS]
        return [str(value) for value in known], [(values == value) & counted for value in known]
    edges = np.unique(np.quantile(values[counted], np.linspace(0, 1, 9)))
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    masks = [(places == place) & counted for place in range(len(edges) - 1)]
    labels = [f"{low:.1f}-{high:.1f}" for low, high in pairwise(edges)]
    kept = [place for place, mask in enumerate(masks) if mask.any()]
    return [labels[place] for place in kept], [masks[place] for place in kept]


def _accuracy_bars(axes: Axes, labels: list[str], right: list[np.ndarray]) -> None:
    """Shares with their 95 % intervals."""
    shares = np.array([hits.mean() for hits in right])
    bounds = np.array([wilson(int(hits.sum()), len(hits)) for hits in right])
    axes.bar(labels, shares, color=COLOURS[0], yerr=np.abs(bounds.T - shares), capsize=3, width=0.65)
    axes.set(ylim=(0, 1.03))
    _tidy(axes)


def _error_bars(axes: Axes, labels: list[str], misses: list[np.ndarray]) -> None:
    axes.bar(labels, [float(values.mean()) for values in misses], color=COLOURS[2], width=0.65)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for label in axes.get_xticklabels():
        label.set(rotation=35, fontsize=8, horizontalalignment="right", rotation_mode="anchor")


def _sheet(found: Offline, policy: Any, places: np.ndarray) -> np.ndarray:
    frames, attention = found.frames, _attention(found, policy, places)
    misses = found.errors
    cases = []
    for row, place in enumerate(places):
        index, there = found.indices[place], found.there[place]
        facts = [f"{key.split(' ')[0]} {values[place]}" for key, values in found.groups.items() if key != INSTRUCTION]
        cases.append(
            Case(
                images={name: images[index] for name, images in frames.images.items()},
                state=frames.state[index],
                instruction=frames.instructions[frames.instruction[index]],
                theirs=found.theirs[place][there],
                ours=found.ours[place][there],
                attention=None if attention is None else attention[row],
                note=f"L2 {misses[place]:.4f}\n{', '.join(facts)}",
            )
        )
    return sheet(frames.embodiment, cases)


def _attention(found: Offline, policy: Any, places: np.ndarray) -> np.ndarray | None:
    """Maps (N, rows, columns) of the camera that is shown, where the policy has any."""
    cameras = found.frames.embodiment.cameras
    if not cameras or not hasattr(policy, "attention"):
        return None
    try:
        return policy.attention(histories(policy, found.frames, found.indices[places]), cameras[0].name)
    except TandemError:  # the network says that it has none, or does not look at this camera
        return None
