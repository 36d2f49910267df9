"""Replacing a whole directory at once, so that whoever reads meanwhile sees the old one or the new one."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux's renameat2; the same number is RENAME_SWAP of macOS's renamex_np


@contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """Yields an empty directory beside ``target``; on leaving without an error it takes its place.

    What a killed run left beside is cleared by the next one. Only one process may write a target at a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        for path in [*fresh.iterdir(), fresh]:
            _sync(path)
        if target.exists():
            _swap(fresh, target)  # `fresh` now names the old one
        else:
            fresh.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*names, _RENAME_EXCHANGE)
    elif hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    else:
        failed = -1
    if failed:  # a file system that cannot: for a moment there is no target
        aside = other.with_name(f".{other.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
