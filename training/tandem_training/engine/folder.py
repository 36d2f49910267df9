"""The output folder: one owner at a time, and directories in it that are replaced whole or not at all."""

import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tandem_datasets.errors import TandemError

LOCK = ".lock"
_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


@contextmanager
def locked(folder: Path, where: str) -> Iterator[None]:
    """Makes the folder and holds its lock; the kernel frees it when the process ends, however it ends.

    Raises:
        TandemError: somebody else holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise TandemError(f"{where}: out={folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise TandemError(f"{where}: out={folder} is in use by process {owner}") from error
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def holds_something(folder: Path) -> bool:
    """Whether anything but a lock lies in the folder."""
    return folder.is_dir() and any(item.name != LOCK for item in folder.iterdir())


def drop_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing but its lock."""
    if folder.is_dir() and not holds_something(folder):
        shutil.rmtree(folder, ignore_errors=True)


def publish(target: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a directory beside ``target`` and then puts it in its place in one rename.

    Whoever opens ``target``, also after a kill or a power cut, finds the old one or the new one, whole.
    """
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    write(fresh)
    for path in sorted(fresh.rglob("*")):
        _sync(path)
    _sync(fresh)
    if not target.exists():
        fresh.rename(target)
    elif not _exchange(fresh, target):
        old = _aside(target)
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old)
    _sync(target.parent)
    shutil.rmtree(fresh, ignore_errors=True)


def recover(target: Path) -> None:
    """Puts the previous directory back, if a kill hit between the two renames of a file system without exchange."""
    old = _aside(target)
    if not target.exists() and old.is_dir():
        old.rename(target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one system call; False where system or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return libc.renamex_np(*names, _EXCHANGE) == 0
    if hasattr(libc, "renameat2"):
        return libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0
    return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
