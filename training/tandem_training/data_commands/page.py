"""The page of `tandem data view`: one HTML file that needs nothing from anywhere else."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np

from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.ops.overview import Overview, overview
from tandem_datasets.progress import Progress
from tandem_datasets.store import Store
from tandem_training.data_commands.drawing import lengths_plot, scalar_plot
from tandem_training.data_commands.looking import duration, megabytes
from tandem_training.data_commands.pictures import filmstrip, moments
from tandem_training.results import write_whole

_MOST_TEXTS = 10  # in a table
_MOST_SCALARS = 64  # plots of state, and of action


def write_page(
    out: Path, store: Store, episodes: Sequence[int], chosen: int, frames: int, height: int, progress: Progress
) -> int:
    """Writes the page, whole or not at all.

    Args:
        out: the file.
        store: what is shown.
        episodes: that are shown one by one.
        chosen: how many episodes there would be to show.
        frames: pictures of each camera in a strip.
        height: of a picture in pixels.
        progress: told after each episode.

    Returns:
        The page's size in bytes.
    """
    articles = []
    for done, episode in enumerate(episodes, 1):
        articles.append(_episode(store, episode, frames, height))
        progress(done, len(episodes), "episodes")
    name = store.name.rstrip("/").rpartition("/")[2] or store.name
    rest = chosen - len(episodes)
    note = f"<p class=soft>{rest} more episodes are not shown (shown=, episodes= ... choose them).</p>" if rest else ""
    style = files(__package__).joinpath("view.css").read_text(encoding="utf-8")
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n<body>'
        f"<h1>{escape(name)}</h1>{_summary(store, overview(store))}"
        f"<h2>Episodes</h2>{_legend()}{''.join(articles)}{note}</body></html>\n"
    )
    data = text.encode("utf-8", "replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, data)
    return len(data)


# -- the whole store


def _summary(store: Store, found: Overview) -> str:
    robot = store.embodiment
    hears = "hears instructions" if robot.hears_instruction else "hears no instructions"
    lead = f"{robot.name}, {robot.rate_hz:g} Hz, {hears}; {store.codec} images; digest {store.digest}"
    tiles = {
        "episodes": str(found.episodes),
        "frames": f"{found.frames:,}",
        "recorded": duration(found.seconds),
        "success": f"{found.successes / found.episodes:.0%}" if found.episodes else "-",
        "on disk": "remote" if found.bytes is None else megabytes(found.bytes),
    }
    if found.deleted:
        tiles["marked as deleted"] = str(found.deleted)
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span class="soft">{key}</span></div>' for key, value in tiles.items()
    )
    columns = [
        _counts("Tasks", found.tasks, "episodes"),
        _counts("Outcomes", found.outcomes, "episodes"),
        _counts("Who acted", found.sources, "frames"),
        _counts("Reasons of failure", found.failure_reasons, "episodes"),
        *(_counts(key.capitalize(), values, "episodes") for key, values in found.origins.items()),
        _lengths(store, found),
    ]
    robot_table = _embodiment(store)
    return (
        f'<p class="soft">{escape(lead)}</p><div class="tiles">{shown}</div>'
        f'<div class="columns">{"".join(columns)}</div><h2>Embodiment</h2>{robot_table}'
    )


def _counts(title: str, values: Mapping[str, int], unit: str) -> str:
    if not values:
        return ""
    most = max(values.values())
    rows = "".join(
        f"<tr><td>{escape(text) or '<span class=soft>(none)</span>'}</td>"
        f'<td class="bar"><i style="width:{100 * count / most:.1f}%"></i></td><td class="n">{count:,}</td></tr>'
        for text, count in list(values.items())[:_MOST_TEXTS]
    )
    if len(values) > _MOST_TEXTS:
        rows += f'<tr><td class="soft" colspan="3">and {len(values) - _MOST_TEXTS} more</td></tr>'
    return f'<div><h2>{escape(title)} <small class="soft">{unit}</small></h2><table>{rows}</table></div>'


def _lengths(store: Store, found: Overview) -> str:
    if found.episodes < 2:
        return ""
    lengths = np.diff(store.episode_ends, prepend=0)[store.kept]
    return (
        f'<div><h2>Lengths <small class="soft">frames</small></h2>{lengths_plot(lengths)}'
        f'<small class="soft">{found.shortest} to {found.longest}, median {found.median:g}</small></div>'
    )


def _embodiment(store: Store) -> str:
    robot = store.embodiment
    cameras = [
        ("camera", camera.name, f"{camera.width}x{camera.height} {camera.encoding}", camera.frame_id)
        for camera in robot.cameras
    ]
    state = [("state", s.name, f"{s.low:g} … {s.high:g} {s.unit}", f"{s.source} {s.frame}") for s in robot.state]
    action = [("action", a.name, f"{a.low:g} … {a.high:g} {a.unit}", f"{a.kind} {a.frame}") for a in robot.action]
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell.strip())}</td>' for cell in cells)}</tr>"
        for cells in (*cameras, *state, *action)
    )
    table = f"<table><tr><th></th><th>name</th><th>range</th><th>what</th></tr>{rows}</table>"
    many = len(cameras) + len(state) + len(action) > 14
    if not many:
        return table
    summary = f"{len(cameras)} cameras, {len(state)} state, {len(action)} action scalars"
    return f"<details><summary>{summary}</summary>{table}</details>"


# -- one episode


def _episode(store: Store, episode: int, frames: int, height: int) -> str:
    info, rows = store.info(episode), store.episode_slice(episode)
    count = rows.stop - rows.start
    stamps = store.load("stamp", rows.start, rows.stop)
    seconds = (stamps - stamps[0]) / 1e9
    parts = [
        _head(store, episode, info, count, float(seconds[-1])),
        *(_strip(store, camera.name, rows, seconds, frames, height) for camera in store.embodiment.cameras),
        _who(store.load("source", rows.start, rows.stop)),
        _plots(store, rows),
    ]
    return f'<article id="episode-{episode}"{" class=deleted" if info.deleted else ""}>{"".join(parts)}</article>'


def _head(store: Store, episode: int, info: EpisodeInfo, count: int, seconds: float) -> str:
    rows = store.episode_slice(episode)
    codes = store.load("instruction", rows.start, rows.stop)
    heard = [store.instructions[code] for code in dict.fromkeys(codes.tolist())]
    later = [text for text in heard if text != info.instruction]
    told = "".join(f'<span class="soft"> then</span> {escape(text)}' for text in later if text)
    outcome = info.outcome or ("success" if info.success else "no outcome")
    badges = f'<span class="badge {"good" if info.success else "bad"}">{escape(outcome)}</span>'
    if info.deleted:
        badges += '<span class="badge">marked as deleted</span>'
    reward = float(store.load("reward", rows.start, rows.stop).sum())
    facts = [
        f"{count} frames, {duration(seconds)}",
        f"seed {info.seed}",
        info.env,
        f"reward {reward:g}" if reward else "",
    ]
    reason = f'<p class="soft">{escape(info.failure_reason)}</p>' if info.failure_reason else ""
    return (
        f"<header><h3>Episode {episode}</h3>{badges}"
        f'<span class="soft small">{escape(", ".join(filter(None, facts)))}</span>'
        f'<span class="soft small">{info.uuid}</span></header>'
        f'<p class="said">{escape(info.instruction) or "<span class=soft>no instruction</span>"}{told}</p>{reason}'
    )


def _strip(store: Store, name: str, rows: slice, seconds: np.ndarray, frames: int, height: int) -> str:
    camera = store.embodiment.camera(name)
    when = moments(rows.stop - rows.start, frames)
    images = store.rows(name)[np.array(when) + rows.start]
    data, width, enlarged = filmstrip(camera, images, height)
    times = "".join(f"<span>{seconds[t]:.1f} s</span>" for t in when)
    wide = width * len(when)
    return (
        f'<div class="strip{" pixel" if enlarged else ""}" style="max-width:{wide}px">'
        f'<p class="soft small">{escape(name)}</p>'
        f'<img alt="camera {escape(name)}" width="{wide}" height="{height}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        f'<div class="times" style="grid-template-columns:repeat({len(when)},1fr)">{times}</div></div>'
    )


def _who(sources: np.ndarray) -> str:
    """A bar over time, coloured by who acted."""
    bounds = [0, *(np.flatnonzero(np.diff(sources)) + 1).tolist(), len(sources)]
    parts = "".join(
        f'<i class="{Source(int(sources[a])).name.lower()}" style="width:{100 * (b - a) / len(sources):.3f}%" '
        f'title="{Source(int(sources[a])).name.lower()}: frames {a} to {b - 1}"></i>'
        for a, b in pairwise(bounds)
    )
    return f'<div class="who">{parts}</div>'


def _legend() -> str:
    acted = "".join(f'<span><i class="{s.name.lower()}"></i>{s.name.lower()}</span>' for s in Source)
    return (
        f'<p class="legend"><span>who acted:</span>{acted}<span>plots: dashed what an expert would have done, '
        "dotted what was asked for before the gate, red beyond the limits</span></p>"
    )


def _plots(store: Store, rows: slice) -> str:
    robot = store.embodiment

    def load(key: str) -> np.ndarray:
        return store.load(key, rows.start, rows.stop)

    parts = []
    if robot.state:
        seen = load("state")
        cells = [
            scalar_plot(f"{s.name} {_of_joint(s.source)}".strip(), s.unit, {"": seen[:, k]}, s.low, s.high)
            for k, s in enumerate(robot.state[:_MOST_SCALARS])
        ]
        parts.append(_section("State", cells, len(robot.state)))
    if robot.action:
        done = load("action")
        extra = {key: _where(load(f"action_{key}"), load(f"has_{key}")) for key in ("requested", "label")}
        cells = [
            scalar_plot(
                a.name,
                a.unit,
                {"": done[:, k]} | {key: values[:, k] for key, values in extra.items() if values is not None},
                a.low,
                a.high,
            )
            for k, a in enumerate(robot.action[:_MOST_SCALARS])
        ]
        parts.append(_section("Action", cells, len(robot.action)))
    return "".join(parts)


def _section(title: str, cells: Sequence[str], total: int) -> str:
    more = f" ({total - len(cells)} more are not shown)" if total > len(cells) else ""
    return f'<h4>{title}{more}</h4><div class="plots">{"".join(cells)}</div>'


def _of_joint(source: str) -> str:
    """A joint's position, velocity and effort share its name."""
    return source.removeprefix("joint_") if source.startswith("joint_") else ""


def _where(values: np.ndarray, there: np.ndarray) -> np.ndarray | None:
    """NaN where there are none; None if there are nowhere any."""
    return np.where(there[:, None], values, np.nan) if there.any() else None
