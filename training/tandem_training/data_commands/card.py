"""Dataset cards as the Hugging Face Hub shows them: YAML in front of Markdown."""

import json
from collections.abc import Mapping, Sequence

from tandem_datasets.ops.overview import Overview, overview
from tandem_datasets.store import Store
from tandem_training.data_commands.looking import duration, megabytes

_SIZES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (1e8, "10M<n<100M"),
)
_MOST_TEXTS = 30
_CODECS = {
    "jpeg": "JPEG 95 4:4:4 (depth and segmentation lossless)",
    "jpegxl": "lossless JPEG XL",
    "zstd": "lossless, zstd",
    "raw": "uncompressed",
}


def card_text(store: Store, name: str, licence: str | None) -> str:
    """A card's whole text.

    Args:
        store: what it describes.
        name: its title.
        licence: an identifier of the Hub; None: the field is left to be filled in.
    """
    found = overview(store)
    parts = [
        _front(store, found, name, licence),
        f"# {_plain(name)}",
        _lead(store, found),
        _embodiment(store),
        _counted("Tasks", "instruction", found.tasks),
        _counted("Outcomes", "outcome", found.outcomes),
        _counted("Reasons of failure", "reason", found.failure_reasons),
        _counted("Who acted", "source", found.sources, "frames"),
        _counted("Environments", "environment", {key: count for key, count in found.envs.items() if key}),
        _provenance(found),
        _use(store),
        "## Licence\n\n" + (f"{_plain(licence)}." if licence else "To be filled in, here and in `license:` above."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(store: Store, found: Overview, name: str, licence: str | None) -> str:
    robot = store.embodiment
    tags = ["robotics", "tandem", "zarr", robot.name]
    if robot.action:
        tags.append("imitation-learning")
    size = next((word for most, word in _SIZES if found.frames < most), "n>100M")
    lines = [
        "---",
        f"license: {json.dumps(licence)}" if licence else "license: # to be filled in: apache-2.0, cc-by-4.0 ...",
        f"pretty_name: {json.dumps(name)}",
        "task_categories:\n- robotics",
        "tags:\n" + "\n".join(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags)),
        f"size_categories:\n- {json.dumps(size)}",
        "---",
    ]
    return "\n".join(lines)


def _lead(store: Store, found: Overview) -> str:
    robot = store.embodiment
    size = "" if found.bytes is None else f", {megabytes(found.bytes)}"
    rate = f"{found.successes} of {found.episodes} succeeded" if found.episodes else "none"
    rows = [
        ("episodes", f"{found.episodes} ({rate})"),
        ("frames", f"{found.frames} at {robot.rate_hz:g} Hz, {duration(found.seconds)}"),
        ("length", f"{found.shortest} to {found.longest} frames, median {found.median:g}"),
        ("images", f"{_CODECS.get(store.codec, store.codec)}{size}"),
        ("digest", store.digest),
    ]
    return f"Episodes of the robot `{robot.name}`, recorded with Tandem.\n\n" + _table(("", ""), rows)


def _embodiment(store: Store) -> str:
    robot = store.embodiment
    rows = [("camera", c.name, f"{c.width}x{c.height} {c.encoding}", "") for c in robot.cameras]
    rows += [("state", s.name, f"{s.low:g} to {s.high:g} {s.unit}", s.source.value) for s in robot.state]
    rows += [("action", a.name, f"{a.low:g} to {a.high:g} {a.unit}", a.kind.value) for a in robot.action]
    return "## Embodiment\n\n" + _table(("part", "name", "range", "kind"), rows)


def _counted(title: str, what: str, values: Mapping[str, int], unit: str = "episodes") -> str:
    if not values:
        return ""
    rows = [(text or "(none)", str(count)) for text, count in list(values.items())[:_MOST_TEXTS]]
    if len(values) > _MOST_TEXTS:
        rows.append((f"and {len(values) - _MOST_TEXTS} more", ""))
    return f"## {title}\n\n" + _table((what, unit), rows)


def _provenance(found: Overview) -> str:
    rows = [
        (key, text, str(count)) for key, values in found.origins.items() for text, count in list(values.items())[:10]
    ]
    return "## Provenance\n\n" + _table(("what", "", "episodes"), rows) if rows else ""


def _use(store: Store) -> str:
    image = (
        f'\nimages = store.load("{store.embodiment.cameras[0].name}")  # uint8 (T, H, W, C)'
        if store.embodiment.cameras
        else ""
    )
    return (
        "## Use\n\n```python\nfrom tandem_datasets.store import Store\n\n"
        f'store = Store("PATH")\nframes = store.frames(0)  # of the first episode{image}\n```\n\n'
        "It is a Zarr v3 directory, which plain zarr-python reads: `data/*` has a row for each frame, "
        "`meta/episode_ends` says where episodes end."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(_plain(cell) if line is not lines[1] else cell for cell in line) + " |" for line in lines
    )


def _plain(text: str) -> str:
    """Text that is neither HTML nor ends a table's cell."""
    one = " ".join(text.split())
    for char, word in (
        ("\\", "\\\\"),
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "\\|"),
        ("`", "\\`"),
        ("*", "\\*"),
        ("[", "\\["),
    ):
        one = one.replace(char, word)
    return one
