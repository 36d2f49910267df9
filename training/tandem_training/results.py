"""What measuring commands write: ``metrics.json``, a table on the terminal, and the machine it was measured on.

And how any small file is written here: whole or not at all.
"""

import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem_datasets.errors import TandemError
from tandem_training.engine.folder import drop_if_empty, holds_something, locked
from tandem_training.validate import path

if TYPE_CHECKING:
    import numpy as np

METRICS = "metrics.json"


@dataclass(frozen=True)
class Row:
    """One measured figure beside its target."""

    name: str
    value: float | bool | None  # None: it broke, or was left out
    unit: str = ""
    reference: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None  # None: left out by an argument, or an absent GPU
    repeats: int = 1
    note: str = ""


def machine() -> dict[str, Any]:
    """Processor, cores, load, versions and whether a GPU is there (asked of torch only if it is loaded)."""
    import sys

    versions = {}
    for name in ("torch", "numpy", "zarr", "gymnasium", "ros-rclpy", "tandem-robotics"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    torch = sys.modules.get("torch")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": versions,
        "gpu": bool(torch is not None and torch.cuda.is_available()),
    }


def machine_line(facts: Mapping[str, Any]) -> str:
    """The machine in one line, as it stands below every table."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    gpu = "GPU" if facts["gpu"] else "no GPU"
    return f"{facts['cpu']}, {facts['cores']} cores, load {facts['load'][0]}, {gpu}; {versions}"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@contextmanager
def claimed(out: object, where: str, name: str) -> Iterator[Path]:
    """The output folder of a measuring command, which owns it inside the block; one left empty is removed.

    Args:
        out: as configured; None: ``outputs/<command>/<name>-<time>``.
        where: the command as it is typed, ``tandem bench loop``.

    Raises:
        TandemError: the folder holds something, is another's, or cannot be made.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    default = Path("outputs", "-".join(where.split()[1:]), f"{name}-{stamp}")
    folder = path(where, "out", out) or default
    _require_empty(folder, where)  # before the lock, which would be litter there
    with locked(folder, where):
        _require_empty(folder, where)
        try:
            yield folder
        finally:
            drop_if_empty(folder)


def _require_empty(folder: Path, where: str) -> None:
    if holds_something(folder):
        raise TandemError(f"{where}: out={folder} is not empty (allowed: a new or an empty folder)")


def write_json(target: Path, data: Mapping[str, Any]) -> None:
    """Plain JSON, whole or absent; NaN is refused."""
    write_whole(target, f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode())


def write_png(target: Path, picture: "np.ndarray") -> None:
    """A picture, uint8 RGB (H, W, 3), whole or absent."""
    from PIL import Image

    assert picture.dtype == "uint8", (target.name, picture.dtype)
    assert picture.ndim == 3 and picture.shape[2] == 3, (target.name, picture.shape)  # noqa: PT018
    png = io.BytesIO()
    Image.fromarray(picture).save(png, format="PNG")
    write_whole(target, png.getvalue())


def write_whole(target: Path, data: bytes) -> None:
    """Writes beside and renames, so that the file is whole or absent."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def write_rows(out: Path, rows: Sequence[Row], facts: Mapping[str, Any], **extra: Any) -> None:
    """``metrics.json`` of a bench: ``rows`` as MEASURES has them, the machine, and what else is given."""
    write_json(out / METRICS, {"rows": [asdict(row) for row in rows], "machine": dict(facts), **extra})


def print_lines(lines: Mapping[str, str]) -> None:
    """The figures of an evaluation on the terminal: a line of text by each name."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, text in lines.items():
        table.add_row(f"[bold]{name}[/]", escape(text))  # a path may hold brackets
    Console().print(table)


def latency_line(latency_ms: Mapping[str, float]) -> str:
    """Percentiles of latencies (see :func:`tandem_training.statistics.percentiles`) in one line."""
    return ", ".join(f"{name} {latency_ms[name]:.2f} ms" for name in ("p50", "p95", "p99"))


def print_rows(title: str, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """The table of a bench on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("row", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    ratios = any(row.ratio is not None for row in rows)
    if ratios:
        table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("target")
    table.add_column("met")
    for row in rows:
        ratio = [] if not ratios else ["" if row.ratio is None else f"{row.ratio:.3g} x"]
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}[row.met]
        table.add_row(row.name, _shown(row), *ratio, row.target, met)
    console.print(table)
    for row in rows:  # notes are long: beside the figures they would squeeze them
        if row.value is not None or row.met is False:
            console.print(f"[bold]{row.name}[/]: {escape(row.note)}")
    console.print(f"[dim]{escape(machine_line(facts))}[/]")


def _shown(row: Row) -> str:
    if row.value is None:
        return "-"
    if isinstance(row.value, bool):
        return "yes" if row.value else "no"
    return f"{row.value:,.4g} {row.unit}".rstrip()
