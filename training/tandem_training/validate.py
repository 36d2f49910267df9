"""Checks of plain values in a configuration that their defaults do not make already."""

from pathlib import Path

from tandem_datasets.errors import TandemError


def at_least(where: str, **limits: tuple[object, float]) -> None:
    """Each keyword is ``key=(value, lowest)``, whole numbers where ``lowest`` is one.

    Raises:
        TandemError: names the first that is lower or no such number.
    """
    for key, (value, lowest) in limits.items():
        whole = isinstance(lowest, int)
        kind = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not value >= lowest:
            raise TandemError(f"{where}: {key}={value} (allowed: a {'whole ' * whole}number from {lowest:g})")


def path(where: str, key: str, value: object) -> Path | None:
    """A configured path, None where there is none; a name that reads as a number is a name.

    Raises:
        TandemError: anything else, or an empty text.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path) or value == "":
        raise TandemError(f"{where}: {key} is {value!r:.80} (allowed: a path)")
    return Path(str(value))
