"""Packages that only some formats need."""

from importlib import import_module
from typing import Any

from tandem_datasets.errors import TandemError


def package(name: str, where: str, extra: str = "data") -> Any:
    """The module ``name``; raises TandemError naming the extra that brings it if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise TandemError(
            f"{where}: {name.partition('.')[0]} is not installed: {error} (wanted: the extra '{extra}')"
        ) from None
