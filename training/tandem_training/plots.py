"""Plots that commands leave beside their numbers."""

from collections.abc import Sequence
from pathlib import Path

from tandem_datasets.rollout import EpisodeResult


def plot_evaluation(results: Sequence[EpisodeResult], path: Path) -> None:
    """How long episodes took, by outcome, and how long inference took, as one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    outcomes = sorted({result.info.outcome for result in results}, key=lambda name: (name != "success", name))
    longest = max((result.steps for result in results), default=1)
    bins = [edge - 0.5 for edge in range(1, longest + 2)] if longest <= 64 else 40
    left.hist(
        [[result.steps for result in results if result.info.outcome == name] for name in outcomes],
        bins=bins,
        stacked=True,
        label=outcomes,
    )
    left.set(xlabel="steps of the episode", ylabel="episodes")
    left.legend(frameon=False)
    latencies = [value for result in results for value in result.latency_ms]
    if latencies:
        right.hist(latencies, bins=60)
        right.set(xlabel="latency of an inference (ms)", ylabel="inferences", yscale="log")
    else:
        right.set_axis_off()
    figure.savefig(path, dpi=110)
