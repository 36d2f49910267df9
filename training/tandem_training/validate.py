"""Checks of plain numbers in a configuration."""

from tandem_datasets.errors import TandemError


def at_least(where: str, **limits: tuple[object, float]) -> None:
    """Each keyword is ``key=(value, lowest)``; raises TandemError naming the first that is lower or no number."""
    for key, (value, lowest) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < lowest:
            raise TandemError(f"{where}: {key}={value} (allowed: a number from {lowest})")
