"""Runs every check and lays out what they found."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.health import Finding, Health
from tandem_training.results import machine

GROUP = "tandem.checks"
_MARKS = {Health.FINE: "[green]fine[/]", Health.LIMITED: "[yellow]limited[/]", Health.BROKEN: "[bold red]broken[/]"}


def examine(skip: Collection[str] = ()) -> list[Finding]:
    """What all checks find, one after the other: several measure times, which must not disturb each other.

    Raises:
        TandemError: a name in ``skip`` is no check.
    """
    checks = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in skip:
        if name not in checks:
            raise unknown("tandem doctor: skip", str(name), checks)
    return [finding for name in sorted(checks) if name not in skip for finding in _run(checks[name])]


def _run(entry: EntryPoint) -> list[Finding]:
    try:
        return entry.load()()
    except ImportError as error:
        return [Finding(entry.name, Health.BROKEN, f"cannot be imported: {error}", "make setup")]
    except TandemError as error:
        return [Finding(entry.name, Health.BROKEN, str(error), "see the message")]


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as plain JSON types; ``ready`` says whether the loop can run."""
    ready = all(finding.health is not Health.BROKEN for finding in findings)
    return {"ready": ready, "findings": [asdict(finding) for finding in findings], "machine": machine()}


def print_table(findings: Sequence[Finding]) -> None:
    """One line per finding, and a last one with the verdict."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_lines=False)
    for column in ("", "is", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding.subject, _MARKS[finding.health], escape(finding.found), escape(finding.advice))
    console = Console()
    console.print(table)
    broken = [finding.subject for finding in findings if finding.health is Health.BROKEN]
    verdict = f"The loop cannot run here: mend {', '.join(broken)}." if broken else "The loop can run here: make demo"
    console.print(verdict, style="bold red" if broken else "bold green", highlight=False)
