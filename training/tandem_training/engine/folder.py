"""The output folder of a training has one owner at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tandem_datasets.errors import TandemError

LOCK = ".lock"
LAST = "last"  # of a training: what a resumed run begins from
CONFIG = "config.yaml"  # of a training; from then on the folder is one
_BESIDE = f".{CONFIG}.new"


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
    """Whether anything but a lock, and what a kill left of a first configuration, lies in the folder."""
    return folder.is_dir() and any(item.name not in (LOCK, _BESIDE) for item in folder.iterdir())


def replace_config(folder: Path, text: str) -> None:
    """Writes ``config.yaml``: whole, or not at all."""
    beside = folder / _BESIDE
    beside.write_text(text)
    beside.rename(folder / CONFIG)


def drop_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing, as :func:`holds_something` has it."""
    if folder.is_dir() and not holds_something(folder):
        shutil.rmtree(folder, ignore_errors=True)


def has_checkpoint(out: Path) -> bool:
    """Whether a training in ``out`` can go on from a checkpoint."""
    return (out / LAST).is_dir() or _old(out / LAST).is_dir()


def recover(target: Path) -> None:
    """Puts the previous directory back, if a kill hit in the middle of a ``replacing_directory`` in two renames.

    That happens on file systems that cannot exchange two directories at once.
    """
    old = _old(target)
    if not target.exists() and old.is_dir():
        old.rename(target)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
