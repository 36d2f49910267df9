"""How an operation gets hold of a store: one that is there, a new one, or one that is written anew in its place."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tandem_datasets.beside import beside_of, clear_beside
from tandem_datasets.codecs import Codec
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.files import exchange, make_folders, remove_tree, replace, sync_folder
from tandem_datasets.formats.importing import require_vacant
from tandem_datasets.ops.flaws import Level
from tandem_datasets.ops.structure import skeleton, strangers
from tandem_datasets.places import place_of
from tandem_datasets.reading import read_root
from tandem_datasets.store import Store
from tandem_datasets.writer import StoreWriter

StorePath = str | os.PathLike[str]

_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


def local_folder(path: StorePath, doing: str) -> Path:
    """The folder of a store that is going to be changed; raises TandemError if it is remote."""
    place = place_of(path)
    if place.local is None:
        raise TandemError(f"{doing} {path}: it is remote (allowed: a folder of this machine)")
    return Path(place.local)


@contextlib.contextmanager
def opened(path: StorePath, doing: str) -> Iterator[StoreWriter]:
    """A store that is there, held alone and brought into order as a recorder would.

    Raises:
        TandemError: there is none, it is damaged, another writer has it, or the disk refuses.
    """
    root = local_folder(path, doing)
    where = f"store {root}"
    embodiment, codec = read_root(str(root), where)
    try:
        writer = StoreWriter(root, embodiment, codec, exist_ok=True, sync=True)
        try:
            yield writer
        finally:
            writer.close()
    except OSError as error:
        raise TandemError(f"{doing} {root}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def new_store(target: StorePath, embodiment: Embodiment, codec: Codec, doing: str) -> Iterator[StoreWriter]:
    """A new store, which is at ``target`` once the block ends well; on any error nothing of it stays.

    Raises:
        TandemError: the place is taken, another process is writing to it, or the disk refuses.
    """
    place = local_folder(target, doing)
    where = f"{doing} to {place}"
    require_vacant(place, where)
    try:
        make_folders(str(place.parent))
        with _grown_beside(place, embodiment, codec, where) as writer:
            yield writer
            _put_in_place(place, where)
            sync_folder(str(place.parent))
    except OSError as error:
        raise TandemError(f"{where}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def rewritten(path: StorePath, doing: str) -> Iterator[tuple[Store, StoreWriter]]:
    """A store, and a new one that takes its place once the block ends well; meanwhile nobody else writes to either.

    Readers that have the old one open get an error that says so when they next open a file of it.

    Raises:
        TandemError: it is damaged, another writer has it, or the disk refuses; the old store stays as it was.
    """
    root = local_folder(path, doing)
    where = f"{doing} {root}"
    embodiment, codec = read_root(str(root), f"store {root}")
    with opened(root, doing):
        _require_nothing_else(root, where)
        try:
            with _grown_beside(root, embodiment, codec, where) as writer:
                yield Store(root), writer
                _exchange(beside_of(root), str(root), where)
                sync_folder(str(root.parent))
                with contextlib.suppress(OSError):  # the next writer removes what is left of the old one
                    remove_tree(beside_of(root))
        except OSError as error:
            raise TandemError(f"{where}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _grown_beside(place: Path, embodiment: Embodiment, codec: Codec, where: str) -> Iterator[StoreWriter]:
    """A new store beside ``place``, locked until the block ends, wherever it is moved; removed if the block fails."""
    if reason := clear_beside(place):
        raise TandemError(f"{where}: {reason}")
    beside = beside_of(place)
    writer = StoreWriter(Path(beside), embodiment, codec, exist_ok=False, sync=True)
    try:
        yield writer
    except BaseException:
        if not writer.replaced:  # else it stands in its place already
            with contextlib.suppress(OSError):
                remove_tree(beside)
        raise
    finally:
        writer.close()


def _put_in_place(place: Path, where: str) -> None:
    try:
        replace(beside_of(place), str(place))
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise TandemError(f"{where}: something was put there meanwhile") from error
        raise


def _require_nothing_else(root: Path, where: str) -> None:
    """What is no part of a store would be gone with the old one."""
    odd = [flaw.where for flaw in strangers(skeleton(str(root), where)) if flaw.level is Level.WARNING]
    if odd:
        raise TandemError(f"{where}: it holds what is no part of a store: {', '.join(odd)[:200]} (allowed: out=)")


def _exchange(beside: str, place: str, where: str) -> None:
    try:
        exchange(beside, place)
    except OSError as error:
        if error.errno in _NO_EXCHANGE:
            raise TandemError(
                f"{where}: this file system cannot exchange two folders ({error.strerror}; allowed: out=, a new place)"
            ) from error
        raise
