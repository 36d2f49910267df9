"""Offline evaluation: a policy's actions against recorded ones, without rolling anything out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Observation
from tandem_datasets.rollout import EXPERT
from tandem_training.accuracy import Directions, are_directions, directions, errors
from tandem_training.data import Frames, load_frames, thinned
from tandem_training.results import METRICS, latency_line, machine, print_lines, write_json
from tandem_training.statistics import percentiles, wilson

WHERE = "tandem eval"
INSTRUCTION = "instruction"  # what figures are broken down by where the data set names nothing else
_BATCH = 128  # observations of one inference
_WARM = 3  # inferences before those that are timed
_MOST_GROUPS = 24  # values of one quantity that a plot has room for


@dataclass(frozen=True)
class Offline:
    """N frames of recorded data and what a policy makes of them; P actions are played of each chunk."""

    frames: Frames
    indices: np.ndarray  # (N,) int64, of the frames
    ours: np.ndarray  # (N, P, A) float32, predicted, in units
    theirs: np.ndarray  # (N, P, A) float32, true
    there: np.ndarray  # (N, P) bool: no padding
    groups: Mapping[str, np.ndarray]  # (N,) each: by what figures are broken down
    latency_ms: list[float]

    @property
    def errors(self) -> np.ndarray:
        """(N,) float64: the mean Euclidean error of the actions that would be played."""
        misses = np.where(self.there, errors(self.ours, self.theirs), 0.0)
        return misses.sum(1) / self.there.sum(1)

    @property
    def directions(self) -> Directions | None:
        """Of each frame's first action, where actions are directions and some target has one."""
        if not are_directions(self.frames.embodiment):
            return None
        found = directions(self.frames.embodiment, self.ours[:, 0], self.theirs[:, 0])
        return found if found.moves.any() else None

    @property
    def counted(self) -> np.ndarray:
        """(N,) bool: the frames that figures are made from; where there are directions, those whose target has one."""
        aims = self.directions
        return np.ones(len(self.indices), bool) if aims is None else aims.moves


def evaluate_offline(
    policy: Any,
    stores: list[str],
    most: int | None = None,
    timed: int = 200,
    ablate: str | None = None,
    seed: int = 0,
) -> Offline:
    """Asks a policy about every frame of the stores that has a target.

    Args:
        policy: as of ``tandem_policies.load``.
        stores: of one embodiment.
        most: frames at most, evenly spread; None: all.
        timed: inferences of one observation each that are timed.
        ablate: a control, see :func:`tandem_training.ablation.ablated`.
        seed: of the control.

    Raises:
        TandemError: unusable stores, or a policy that is made for something else.
    """
    from tandem_training.ablation import ablated

    frames, _ = load_frames(stores)
    policy.embodiment.require_fit(frames.embodiment, f"{WHERE}: policy")
    frames = ablated(frames, ablate, seed)
    indices = frames.usable if most is None else thinned(frames.usable, most)
    played = policy.n_action_steps
    theirs, is_pad = frames.windows(indices, played)
    ours = np.concatenate([_infer(policy, frames, indices[at : at + _BATCH]) for at in range(0, len(indices), _BATCH)])
    return Offline(
        frames=frames,
        indices=indices,
        ours=ours[:, :played],
        theirs=theirs,
        there=~is_pad,
        groups=_groups(frames, indices, stores),
        latency_ms=_latencies(policy, frames, indices[:timed]),
    )


def measures(found: Offline) -> dict[str, Any]:
    """``direction_accuracy`` and ``l2`` as MEASURES has them, where actions are directions; else ``l2`` of all."""
    misses, aims = found.errors, found.directions
    figures: dict[str, Any] = {"samples": len(misses)}
    if aims is None:
        return figures | {"direction_accuracy": None, "l2": float(misses.mean())}
    moves, stands = aims.moves, ~aims.moves
    low, high = wilson(int(aims.right[moves].sum()), int(moves.sum()))
    return figures | {
        "direction_accuracy": float(aims.right[moves].mean()),
        "direction_accuracy_ci95": [low, high],
        "direction_cosine": float(aims.cosine[moves].mean()),
        "l2": float(misses[moves].mean()),
        "l2_p95": float(np.percentile(misses[moves], 95)),
        "l2_max": float(misses[moves].max()),
        "samples_centre": int(stands.sum()),  # their targets have no direction, and count for nothing above
        "centre_accuracy": float(aims.right[stands].mean()) if stands.any() else None,
    }


def run_offline(config: Any) -> dict[str, Any]:
    """`tandem eval data=...`: writes ``metrics.json`` and plots to ``out``, and returns the metrics."""
    from tandem_policies import load
    from tandem_training.named_data import evaluation_stores
    from tandem_training.provenance import policy_provenance
    from tandem_training.results import claimed

    path = str(config.policy)
    _refuse(config, path)
    provenance = policy_provenance(path)
    with claimed(config.out, WHERE, Path(path).name) as out:
        policy = load(path, device=config.device, threads=config.threads)
        stores = evaluation_stores(config.data, config.split)
        started = time.perf_counter()
        found = evaluate_offline(policy, stores, config.frames)
        metrics = {
            "policy": path,
            "weights_sha256": provenance["weights_sha256"],
            "backend": "offline",
            "data": stores,
            **measures(found),
            "latency_ms": percentiles(found.latency_ms),
            "groups": break_down(found),
            "seconds": time.perf_counter() - started,
            "machine": machine(),
        }
        _write(out, found, policy, metrics)
    print_offline(metrics)
    print(f"written to {out}")
    return metrics


def break_down(found: Offline) -> dict[str, dict[str, dict[str, float]]]:
    """Per quantity and value of it the samples, their mean error and the share that points right."""
    aims, misses = found.directions, found.errors
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, values in found.groups.items():
        rows = table.setdefault(name, {})
        for value in np.unique(values):
            chosen = (values == value) & found.counted
            if not chosen.any():
                continue
            rows[str(value)] = {"samples": int(chosen.sum()), "l2": float(misses[chosen].mean())}
            if aims is not None:
                rows[str(value)]["direction_accuracy"] = float(aims.right[chosen].mean())
    return table


def print_offline(metrics: Mapping[str, Any]) -> None:
    """The evaluation as a table on the terminal."""
    lines = {"policy": metrics["policy"], "data": ", ".join(metrics["data"]), "samples": f"{metrics['samples']:,}"}
    if metrics["direction_accuracy"] is not None:
        low, high = metrics["direction_accuracy_ci95"]
        lines["direction"] = f"{metrics['direction_accuracy']:.1%} right  (95 % interval {low:.1%} to {high:.1%})"
        lines["L2"] = f"{metrics['l2']:.4f}  (95th percentile {metrics['l2_p95']:.4f}, worst {metrics['l2_max']:.4f})"
        if metrics["samples_centre"]:
            lines["no direction"] = f"{metrics['samples_centre']} targets, {metrics['centre_accuracy']:.1%} right"
    else:
        lines["L2"] = f"{metrics['l2']:.4f}"
    lines["latency"] = latency_line(metrics["latency_ms"])
    print_lines(lines)


def observation(frames: Frames, index: int) -> Observation:
    """One frame as a policy sees it."""
    return Observation(
        images={name: images[index] for name, images in frames.images.items()},
        state=frames.state[index],
        instruction=frames.instructions[frames.instruction[index]],
        stamp_ns=int(index),
    )


def histories(policy: Any, frames: Frames, indices: np.ndarray) -> list[list[Observation]]:
    """What the policy sees at each of the frames, oldest first."""
    return [[observation(frames, seen) for seen in rows] for rows in frames.history(indices, policy.n_obs_steps)]


def _infer(policy: Any, frames: Frames, indices: np.ndarray) -> np.ndarray:
    return policy.infer(histories(policy, frames, indices), [(int(index), 0) for index in indices])


def _latencies(policy: Any, frames: Frames, indices: np.ndarray) -> list[float]:
    """Milliseconds of inferences of one observation each."""
    found = []
    for index in [*indices[:_WARM], *indices]:
        seen = histories(policy, frames, np.array([index]))
        started = time.perf_counter()
        policy.infer(seen, [(int(index), 0)])
        found.append(1000 * (time.perf_counter() - started))
    return found[len(indices[:_WARM]) :]


def _groups(frames: Frames, indices: np.ndarray, stores: list[str]) -> dict[str, np.ndarray]:
    """What the episodes' provenance says under ``groups``; without it the instruction, where there are few."""
    from tandem_datasets.store import Store

    opened = [Store(path) for path in stores]
    found = [info.provenance.get("groups") for store in opened for info in store.infos() if not info.deleted]
    episodes = [groups for groups in found if _are_groups(groups)]
    if len(episodes) == len(found) and all(groups.keys() == episodes[0].keys() for groups in episodes):
        owners = frames.episode[indices]
        return {str(name): np.array([groups[name] for groups in episodes])[owners] for name in episodes[0]}
    if 1 < len(frames.instructions) <= _MOST_GROUPS:
        return {INSTRUCTION: np.array(frames.instructions)[frames.instruction[indices]]}
    return {}


def _are_groups(value: Any) -> TypeGuard[dict[str, str | int | float]]:
    return isinstance(value, dict) and all(isinstance(item, str | int | float) for item in value.values())


def _refuse(config: Any, policy: str) -> None:
    if policy == EXPERT:
        raise TandemError(f"{WHERE}: policy={EXPERT} with data={config.data} (allowed: a policy directory)")
    recorded = config.record not in (None, False)
    if config.backend != "inprocess" or recorded:
        key = "record" if recorded else "backend"
        raise TandemError(f"{WHERE}: {key}={config[key]} with data={config.data} (allowed: nothing is rolled out then)")
    if config.frames is not None:
        from tandem_training.validate import at_least

        at_least(WHERE, frames=(config.frames, 1))


def _write(out: Path, found: Offline, policy: Any, metrics: Mapping[str, Any]) -> None:
    from tandem_training.offline_plots import write_plots

    try:
        write_plots(out, found, policy)
        write_json(out / METRICS, metrics)
    except BaseException:  # a full disk, Ctrl-C: all of it or nothing
        for path in out.glob("*.png"):
            path.unlink()
        raise
