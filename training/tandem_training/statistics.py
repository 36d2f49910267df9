"""Intervals for success rates and for paired comparisons."""

from collections.abc import Sequence
from math import sqrt

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson, JASA 1927); (0, 1) without trials."""
    if trials == 0:
        return (0.0, 1.0)
    rate, z2 = successes / trials, Z95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    # At 0 and at all successes the closed form is exactly 0 and 1; rounding must not say otherwise.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def paired_difference(after: Sequence[bool], before: Sequence[bool]) -> tuple[float, float, float]:
    """(difference, low, high) of two success rates on the same seeds, 95 %.

    The difference is the plain one; the interval is the adjusted Wald interval of Agresti and Min
    (Biostatistics 2005): half a pseudo-pair in each of the four cells.
    """
    if len(after) != len(before) or not after:
        raise ValueError(f"paired results must be equally many and some, got {len(after)} and {len(before)}")
    won = sum(bool(x) and not y for x, y in zip(after, before, strict=True))
    lost = sum(bool(y) and not x for x, y in zip(after, before, strict=True))
    trials = len(after)
    n, b, c = trials + 2, won + 0.5, lost + 0.5
    centre = (b - c) / n
    half = Z95 * sqrt((b + c) - (b - c) ** 2 / n) / n
    return ((won - lost) / trials, max(-1.0, centre - half), min(1.0, centre + half))


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p95 and p99 of ``values`` (linear interpolation); None where there are none."""
    import numpy as np

    if not values:
        return {"p50": None, "p95": None, "p99": None}
    found = np.percentile(np.asarray(values, float), [50, 95, 99])
    return {name: round(float(value), 4) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}
