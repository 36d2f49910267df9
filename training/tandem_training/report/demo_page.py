"""The demo's report: the loop's numbers, learning curves, films, attention, failures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.rollout import EnvSpec
from tandem_datasets.store import Store
from tandem_sim.registry import make
from tandem_training.films import write_film
from tandem_training.report import figures
from tandem_training.report.page import film, loop, page, png, row, svg, table
from tandem_training.results import Row, machine_line, write_whole
from tandem_training.steps import Done

if TYPE_CHECKING:
    from tandem_training.demo import Evaluated

SHOWN = 4  # films and scenes of each kind


def write_page(
    path: Path,
    rows: Sequence[Row],
    evaluated: Mapping[str, "Evaluated"],
    named: Mapping[str, Done],
    env: EnvSpec,
    facts: Mapping[str, Any],
) -> None:
    """Writes the page: whole, or the one before stays."""
    films = path.parent / "films"
    films.mkdir(exist_ok=True)
    trainings = {"before": "first", "after": "last", "control": "control"}
    curves = {name: _history(named[step]) for name, step in trainings.items()}
    sections = [
        ("The loop", loop(_stations(evaluated, named))),
        ("Before and after", _comparison(evaluated) + row([svg(figures.success_bars(_rates(evaluated)))])),
        ("Figures", table(("row", "value", "target", "met", "note"), [_cells(item) for item in rows], {1})),
        ("Learning curves", svg(figures.learning_curves(curves))),
        ("Rollouts over ROS 2, same seeds before and after", _films(evaluated, films)),
        ("Where the policy looks", _attention(named["last"], evaluated["after"], env)),
        ("What still fails", _failures(evaluated["after"], films)),
    ]  # fmt: skip
    lead = f"Tandem on {env.id}: demonstrate, train, serve in ROS 2, roll out, record, train again."
    text = page("Once round the loop", lead, sections, machine_line(facts))
    write_whole(path, text.encode())


def _stations(evaluated: Mapping[str, "Evaluated"], named: Mapping[str, Done]) -> list[tuple[str, str, str]]:
    demos, rollouts = named["demos"], named["rollouts"]
    driven = rollouts.facts["metrics"]
    first, last = named["first"].facts["metrics"], named["last"].facts["metrics"]
    return [
        (
            "Demonstrate",
            f"{demos.facts['episodes']} episodes",
            f"{demos.facts['frames']} frames, {demos.seconds:.1f} s",
        ),
        (
            "Train",
            f"{evaluated['before'].interval[0]:.0%} success",
            f"{first['steps']} steps, {first['seconds']:.0f} s",
        ),
        (
            "Serve and roll out",
            f"{driven['episodes']} episodes",
            f"over ROS 2, {driven['steps_per_s']:.0f} steps a second",
        ),
        ("Record and label", f"{round(driven['steps_mean'] * driven['episodes'])} frames", "labelled by the expert"),
        (
            "Train again",
            f"{evaluated['after'].interval[0]:.0%} success",
            f"{last['steps']} steps, {last['seconds']:.0f} s",
        ),
    ]


def _rates(evaluated: Mapping[str, "Evaluated"]) -> dict[str, tuple[float, float, float]]:
    return {name: evaluated[name].interval for name in ("before", "after", "control")}


def _comparison(evaluated: Mapping[str, "Evaluated"]) -> str:
    meaning = {
        "before": "demonstrations only",
        "after": "and its own rollouts, labelled",
        "control": "and equally many extra demonstrations",
        "realtime": "the policy 'after' at 30 Hz in real time",
    }
    lines = []
    for name, what in meaning.items():
        metrics = evaluated[name].metrics
        rate, low, high = evaluated[name].interval
        latency = metrics["latency_ms"]
        lines.append(
            (name, what, f"{rate:.1%}", f"{low:.1%} to {high:.1%}", f"{metrics['episodes']}",
             f"{metrics['steps_mean']:.2f}", f"{latency['p50']:.1f} / {latency['p99']:.1f}")
        )  # fmt: skip
    head = ("policy", "learned from", "success", "95 % interval", "episodes", "steps", "latency p50 / p99 (ms)")
    return table(head, lines, range(2, len(head)))


def _cells(item: Row) -> tuple[str, ...]:
    value = "-" if item.value is None else f"{item.value:.4g} {item.unit}".strip()
    return (item.name, value, item.target, {True: "yes", False: "no", None: ""}[item.met], item.note)


def _history(step: Done) -> dict[str, list[tuple[int, float]]]:
    """Training and validation losses that the engine left in ``history.jsonl``."""
    curves: dict[str, list[tuple[int, float]]] = {"train": [], "val": []}
    for line in (step.path / "history.jsonl").read_text().splitlines():
        point = json.loads(line)
        if "loss" in point:
            curves["train"].append((point["step"], point["loss"]))
        if "val" in point:
            curves["val"].append((point["step"], point["val"]["loss"]))
    return curves


def _films(evaluated: Mapping[str, "Evaluated"], folder: Path) -> str:
    """The same seeds under the policies before and after, those where they differ first."""
    before, after = evaluated["before"].successes, evaluated["after"].successes
    order = sorted(range(len(after)), key=lambda index: (before[index], not after[index]))
    figure_rows = []
    for index in order[:SHOWN]:
        pair = []
        for name in ("before", "after"):
            path, info = _film(evaluated[name], index, folder, name)
            pair.append(film(path, f"{name}: {info.outcome}, seed {info.seed}"))
        figure_rows.append(row(pair))
    return row(figure_rows)


def _film(found: "Evaluated", index: int, folder: Path, name: str) -> tuple[Path, EpisodeInfo]:
    store = Store(found.step.path / "episodes.zarr")
    info = store.info(index)
    path = folder / f"{name}_seed{info.seed}.gif"
    write_film(path, info, store.frames(index))
    return path, info


def _attention(policy: Done, found: "Evaluated", env: EnvSpec) -> str:
    """First images of unseen episodes with the attention that each instruction draws."""
    import tandem_policies

    network: Any = tandem_policies.load(str(policy.path / "best"), device="cpu", threads=1)
    store = Store(found.step.path / "episodes.zarr")
    rows = []
    for index in range(min(SHOWN, store.n_episodes)):
        scene = store.frames(index)[0].observation
        asked = _instructions(env, store.info(index))
        maps = network.attention([[replace(scene, instruction=words)] for words in asked])
        image = next(iter(scene.images.values()))
        overlays = [figures.attention_overlay(image, attention) for attention in maps]
        rows.append(row([png(overlay, words, 190) for overlay, words in zip(overlays, asked, strict=True)]))
    note = "<p>Bright is where the instruction's cross-attention lies, on the first image of unseen episodes.</p>"
    return note + "".join(rows)


def _instructions(env: EnvSpec, info: EpisodeInfo) -> list[str]:
    """The episode's own instruction first, then others that its scene allows, where the environment says which."""
    made = make(env)
    try:
        made.reset(seed=info.seed)
        others = getattr(made.unwrapped, "possible_instructions", [])
    finally:
        made.close()
    return list(dict.fromkeys([info.instruction, *others]))


def _failures(found: "Evaluated", folder: Path) -> str:
    failures = found.metrics["failures"]
    if not failures:
        return f"<p>Nothing: all {found.metrics['episodes']} episodes succeeded.</p>"
    kinds = table(("kind", "episodes"), [(kind, str(count)) for kind, count in failures.items()], {1})
    lost = [index for index, success in enumerate(found.successes) if not success][: 2 * SHOWN]
    shown = []
    for index in lost:
        path, info = _film(found, index, folder, "failure")
        shown.append(film(path, f"{info.outcome}: {info.instruction}, seed {info.seed}"))
    return kinds + row(shown)
