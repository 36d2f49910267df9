"""Small inline SVG: a scalar over time, and how long episodes are."""

from collections.abc import Mapping
from html import escape

import numpy as np

_WIDE, _HIGH, _EDGE = 240.0, 46.0, 3.0
_MOST_POINTS = 140
_BARS = 24


def scalar_plot(name: str, unit: str, lines: Mapping[str, np.ndarray], low: float, high: float) -> str:
    """A scalar over an episode's frames, in a cell with its name, unit and range.

    Args:
        name: the scalar's.
        unit: the scalar's.
        lines: values (T,) by their class: "" for what was seen or done, "label", "requested"; NaN where there is none.
        low: the limits' lower end; values beyond are told by a tint.
        high: the upper one.
    """
    values = np.concatenate(list(lines.values()))
    finite = values[np.isfinite(values)]
    bottom, top = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    spread = top - bottom
    if spread < 1e-9 * max(1.0, abs(top)):
        bottom, top = bottom - 0.5, top + 0.5
    paths = "".join(_path(kind, line, bottom, top) for kind, line in lines.items())
    outside = _outside(bottom, top, low, high)
    label = f"{name} ({unit})" if unit not in ("", "1") else name
    measure = f" {escape(unit)}" if unit not in ("", "1") else ""
    shown = f"{_number(bottom)} … {_number(top)}" if spread > 0 else _number(float(finite[0]) if len(finite) else 0.0)
    return (
        f'<div class="plot"><p><span title="{escape(label, quote=True)}">{escape(name)}</span>'
        f'<span class="soft">{shown}{measure}</span></p>'
        f'<svg viewBox="0 0 {_WIDE:g} {_HIGH:g}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(label, quote=True)} over time">{outside}{paths}</svg></div>'
    )


def lengths_plot(lengths: np.ndarray) -> str:
    """How many episodes have how many frames, as bars."""
    counts, edges = np.histogram(lengths, bins=min(_BARS, max(1, int(lengths.max() - lengths.min()) + 1)))
    width = 100.0 / len(counts)
    bars = "".join(
        f'<rect x="{k * width + 0.15:.2f}" y="{40 - 40 * count / counts.max():.2f}" width="{width - 0.3:.2f}" '
        f'height="{40 * count / counts.max():.2f}">'
        f"<title>{edges[k]:.0f} to {edges[k + 1]:.0f} frames: {count}</title></rect>"
        for k, count in enumerate(counts.tolist())
    )
    return f'<svg class="lengths" viewBox="0 0 100 40" preserveAspectRatio="none">{bars}</svg>'


def _path(kind: str, values: np.ndarray, bottom: float, top: float) -> str:
    frames, values = _thinned(values)
    last = max(int(frames[-1]), 1) if len(frames) else 1
    parts, pen_down = [], False
    for frame, value in zip(frames.tolist(), values.tolist(), strict=True):
        if not np.isfinite(value):
            pen_down = False
            continue
        x = _EDGE + (_WIDE - 2 * _EDGE) * frame / last
        y = _HIGH - _EDGE - (_HIGH - 2 * _EDGE) * (value - bottom) / (top - bottom)
        parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}{'' if pen_down else 'h0'}")
        pen_down = True
    return f'<path{f" class={kind}" if kind else ""} d="{"".join(parts)}" stroke-linecap="round"/>'


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames and values: all, or the lowest and highest of each stretch of a long episode, so that no peak is lost."""
    if len(values) <= _MOST_POINTS:
        return np.arange(len(values)), values
    kept = {0, len(values) - 1}
    for stretch in np.array_split(np.arange(len(values)), _MOST_POINTS // 2):
        part = values[stretch]
        if np.isfinite(part).any():
            kept |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
        else:
            kept.add(int(stretch[0]))
    frames = np.array(sorted(kept))
    return frames, values[frames]


def _outside(bottom: float, top: float, low: float, high: float) -> str:
    """Tints over what lies beyond the limits, where the plot reaches so far."""
    scale = (_HIGH - 2 * _EDGE) / (top - bottom)
    rects, slack = "", 1e-4 * (high - low)
    if top > high + slack:
        rects += f'<rect x="0" y="0" width="{_WIDE:g}" height="{min(_EDGE + (top - high) * scale, _HIGH):.1f}"/>'
    if bottom < low - slack:
        tall = min(_EDGE + (low - bottom) * scale, _HIGH)
        rects += f'<rect x="0" y="{_HIGH - tall:.1f}" width="{_WIDE:g}" height="{tall:.1f}"/>'
    return rects


def _number(value: float) -> str:
    return f"{value:.3g}"
