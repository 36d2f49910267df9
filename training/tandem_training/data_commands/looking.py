"""`tandem data` commands that look at stores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tandem_datasets.errors import TandemError
from tandem_training.data_commands.arguments import bar, choice_of, counted, file_place, place

_MOST_TEXTS = 12  # tasks and the like, in a table on the terminal
_MOST_FLAWS = 40
_SHOWN_QUANTILES = ("0.01", "0.5", "0.99")  # json=true gives all


def info(config) -> int:
    """Tell what a store holds. Reads no images.

    tandem data info outputs/demos.zarr
    tandem data info https://example.org/demos.zarr json=true
    """
    from tandem_datasets.ops.overview import overview
    from tandem_datasets.store import Store
    from tandem_training.results import print_lines

    store = Store(place(config, "store", "tandem data info"))
    found = overview(store)
    if config.json:
        facts = {"store": store.name, "codec": store.codec, "digest": store.digest}
        _print_json({**facts, "embodiment": store.embodiment.to_dict(), **asdict(found)})
        return 0
    robot = store.embodiment
    marked = f", {found.deleted} more marked as deleted" if found.deleted else ""
    size = "" if found.bytes is None else f", {megabytes(found.bytes)}"
    lines = {
        "store": f"{store.name} ({store.codec} images{size}, digest {store.digest})",
        "episodes": f"{found.episodes}{marked}; {found.shortest} to {found.longest} frames, median {found.median:g}",
        "frames": f"{found.frames} at {robot.rate_hz:g} Hz: {duration(found.seconds)}",
        "success": f"{found.successes} of {found.episodes}",
        "outcomes": _counts(found.outcomes),
        "acted": _counts(found.sources) + (f"; {counted(found.labelled, 'frame')} labelled" if found.labelled else ""),
        "tasks": _counts(found.tasks),
        "environments": _counts(found.envs),
        **{key: _counts(values) for key, values in found.origins.items()},
        "embodiment": f"{robot.name}{', hears instructions' if robot.hears_instruction else ''}",
        "cameras": ", ".join(f"{c.name} {c.width}x{c.height} {c.encoding}" for c in robot.cameras) or "none",
        "state": ", ".join(f"{s.name} ({s.unit}, {s.source})" for s in robot.state) or "none",
        "action": ", ".join(f"{a.name} ({a.unit}, {a.kind})" for a in robot.action) or "none",
    }
    print_lines({key: text for key, text in lines.items() if text})
    return 0


def check(config) -> int:
    """Look at every file and every frame of a store; with repair=true, mend what can be mended.

    tandem data validate outputs/demos.zarr
    tandem data validate outputs/demos.zarr repair=true workers=2

    Exit status 0: all is well (or well again), 1: something is broken. Nothing is written without repair=true, which
    never throws away what can still be read: damaged episodes are marked as deleted.
    """
    from tandem_datasets.ops.validate import validate
    from tandem_training.validate import at_least

    where = "tandem data validate"
    at_least(where, workers=(config.workers, 1))
    store = place(config, "store", where)
    with bar("validate") as progress:
        report = validate(store, repair=config.repair, decode=config.decode, workers=config.workers, progress=progress)
    if config.json:
        repaired = set(report.repaired)
        rows = [asdict(flaw) | {"repaired": flaw in repaired} for flaw in report.flaws]
        _print_json(
            {
                "store": store,
                "episodes": report.episodes,
                "frames": report.frames,
                "flaws": rows,
                "deleted": report.deleted,
            }
        )
        return 1 if report.broken else 0
    for title, flaws in (("repaired", report.repaired), ("broken", report.broken), ("warning", report.warnings)):
        for flaw in flaws[:_MOST_FLAWS]:
            remedy = f" (repair {flaw.remedy})" if flaw.remedy and title == "broken" else ""
            print(f"{title}: {flaw}{remedy}")
        if len(flaws) > _MOST_FLAWS:
            print(f"{title}: and {len(flaws) - _MOST_FLAWS} more (json=true lists all)")
    if report.deleted:
        print(f"marked as deleted: {', '.join(map(str, report.deleted))}")
    mendable = sum(bool(flaw.remedy) for flaw in report.broken)
    hint = f"; repair=true mends {mendable} of them" if mendable and not config.repair else ""
    verdict = f"{counted(len(report.broken), 'flaw')}{hint}" if report.broken else "all is well"
    print(f"{store}: {counted(report.episodes, 'episode')}, {counted(report.frames, 'frame')}: {verdict}")
    return 1 if report.broken else 0


def stats(config) -> int:
    """Statistics of what a store teaches, as training normalises with them. They are kept under the store's digest.

    tandem data stats outputs/demos.zarr
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from tandem_datasets.stats import statistics
    from tandem_datasets.store import Store
    from tandem_training.validate import at_least

    where = "tandem data stats"
    at_least(where, frames=(config.frames, 1), seed=(config.seed, 0))
    store = Store(place(config, "store", where))
    with bar("stats") as progress:
        found = statistics(store, learn=config.learn, frames=config.frames, seed=config.seed, progress=progress)
    if config.json:
        _print_json({key: asdict(summary) for key, summary in found.items()})
        return 0
    console = Console(highlight=False)
    for key, summary in found.items():
        table = Table(title=f"{key}: {summary.count} values each", title_justify="left", box=box.SIMPLE_HEAD)
        quantiles = [f"{float(q):.0%}" for q in summary.quantiles if q in _SHOWN_QUANTILES]
        for name in ("name", "mean", "std", "min", *quantiles, "max"):
            table.add_column(name, justify="left" if name == "name" else "right", no_wrap=name != "name")
        for k, name in enumerate(summary.names):
            middle = [values[k] for q, values in summary.quantiles.items() if q in _SHOWN_QUANTILES]
            numbers = (summary.mean[k], summary.std[k], summary.min[k], *middle, summary.max[k])
            table.add_row(name, *(f"{number:.4g}" for number in numbers))
        console.print(table)
    return 0


def view(config) -> int:
    """Write a page that shows a store's episodes: filmstrips, state and action, outcomes. It needs nothing beside it.

    tandem data view outputs/demos.zarr out=page.html
    tandem data view outputs/demos.zarr out=page.html episodes='[3,17]' frames=20 height=160
    tandem data view outputs/demos.zarr success=false rerun=failures.rrd

    rerun= writes all frames of the same episodes for the Rerun viewer (`rerun failures.rrd`).
    """
    from tandem_datasets.ops.choosing import choose
    from tandem_datasets.store import Store
    from tandem_training.data_commands.page import write_page
    from tandem_training.validate import at_least

    where = "tandem data view"
    at_least(where, shown=(config.shown, 1), frames=(config.frames, 1), height=(config.height, 16))
    store = Store(place(config, "store", where))
    chosen = choose(store, choice_of(config), deleted=None if config.deleted else False)
    if len(store.kept) and not len(chosen):  # an empty store has a page, too
        raise TandemError(f"{where}: {store.name}: no episode is left to show (of {store.n_episodes})")
    shown = chosen[: config.shown].tolist()
    out = Path(f"{_stem(store.name)}.html") if config.out is None else file_place(config, "out", where)
    target = None if config.rerun is None else file_place(config, "rerun", where)
    with bar("view") as progress:
        size = write_page(out, store, shown, len(chosen), config.frames, config.height, progress)
    left = f" of {len(chosen)}" if len(chosen) > len(shown) else ""
    print(f"{len(shown)} episodes{left} on {out} ({megabytes(size)})")
    if target is not None:
        from tandem_training.data_commands.rerun_file import write_recording

        with bar("rerun") as progress:
            write_recording(target, store, shown, progress)
        print(f"{counted(len(shown), 'episode')} in {target}")
    return 0


def card(config) -> int:
    """Write a dataset card: a README.md as the Hugging Face Hub shows them, from what the store says of itself.

    tandem data card outputs/demos.zarr
    tandem data card outputs/demos.zarr out=README.md license=cc-by-4.0

    The licence is yours to choose. A card that is there already is not overwritten.
    """
    from tandem_datasets.store import Store
    from tandem_training.data_commands.card import card_text
    from tandem_training.results import write_whole

    where = "tandem data card"
    store = Store(place(config, "store", where))
    beside = store.path.parent / f"{_stem(store.path.name)}.md"
    out = beside if config.out is None else file_place(config, "out", where)
    if out.exists():
        raise TandemError(f"{where}: {out} is there already (allowed: out=, a new path)")
    name = _stem(store.name) if config.name is None else str(config.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, card_text(store, name, None if config.license is None else str(config.license)).encode())
    print(f"written to {out}")
    return 0


def megabytes(count: int) -> str:
    """A size for people."""
    return (
        f"{count / 1e9:.2f} GB"
        if count >= 1e9
        else f"{count / 1e6:.1f} MB"
        if count >= 1e5
        else f"{count / 1e3:.1f} kB"
    )


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _stem(name: str) -> str:
    last = name.rstrip("/").rpartition("/")[2]
    return last.removesuffix(".zarr") or "store"


def _counts(values: Mapping[str, int]) -> str:
    shown = [f"{text or '(none)'} {count}" for text, count in list(values.items())[:_MOST_TEXTS]]
    return ", ".join(shown) + (f", and {len(values) - _MOST_TEXTS} more" if len(values) > _MOST_TEXTS else "")


def _print_json(facts: Mapping[str, object] | Sequence[object]) -> None:
    import json

    print(json.dumps(facts, indent=2))
