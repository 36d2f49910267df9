"""Python, the installed packages against the lock file, LeRobot, and where the output goes."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from tandem_datasets.health import Finding, Health

DISTRIBUTION = "tandem-robotics"
NEEDED_EXTRAS = ("", "ros")  # what the loop needs; LeRobot and the tools of developers come on top
CHECKOUT = Path(__file__).resolve().parents[3]


def check() -> list[Finding]:
    return [_python(), _packages(CHECKOUT / "requirements.lock"), _lerobot(), _output(Path("outputs"))]


def _python() -> Finding:
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] == (3, 12):
        return Finding("Python", Health.FINE, found)
    return Finding("Python", Health.BROKEN, found, "Tandem runs on Python 3.12 only: make setup")


def _packages(lock: Path) -> Finding:
    """Compares what is installed with what the lock file pins for this platform."""
    absent = sorted(name for name in _needed() if _installed(name) is None)
    if absent:
        listed = ", ".join(absent[:6]) + (" ..." if len(absent) > 6 else "")
        return Finding("packages", Health.BROKEN, f"missing: {listed}", "make setup", {"missing": absent})
    if not lock.is_file():
        return Finding("packages", Health.FINE, "all there; no requirements.lock here to compare their versions with")
    pinned = dict(_pins(lock.read_text()))
    odd = {name: _installed(name) for name, wanted in pinned.items() if _installed(name) != wanted}
    values = {"pinned": len(pinned), "differing": odd}
    if not odd:
        return Finding("packages", Health.FINE, f"all {len(pinned)} as in requirements.lock", values=values)
    listed = ", ".join(f"{name} {came or 'absent'} (pinned {pinned[name]})" for name, came in list(odd.items())[:4])
    found = f"{len(odd)} of {len(pinned)} differ from requirements.lock: {listed}"
    return Finding("packages", Health.LIMITED, found, "make setup", values)


def _needed() -> Iterator[str]:
    """The distributions that Tandem itself asks for on this platform."""
    from packaging.requirements import Requirement

    for line in requires(DISTRIBUTION) or []:
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in NEEDED_EXTRAS):
            yield wanted.name


def _pins(lock: str) -> Iterator[tuple[str, str]]:
    from packaging.requirements import Requirement

    for line in lock.splitlines():
        if line.strip() and not line.startswith("#"):
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate():
                yield wanted.name, str(wanted.specifier).removeprefix("==")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lerobot() -> Finding:
    """Only asks whether it is installed: importing it takes many seconds."""
    found = _installed("lerobot")
    if found:
        return Finding("LeRobot", Health.FINE, f"{found} installed", values={"version": found})
    return Finding("LeRobot", Health.LIMITED, "not installed", "only its own policies and datasets need it: make setup")


def _output(folder: Path) -> Finding:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding("outputs/", Health.FINE, f"{place} can be written to")
    except OSError as error:
        advice = "go to a folder of your own, or name another place with out=..."
        if os.access(CHECKOUT, os.W_OK):
            advice += f" (say, cd {CHECKOUT})"
        return Finding("outputs/", Health.BROKEN, f"{place}: {error.strerror}", advice)
