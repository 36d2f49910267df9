"""A store that is written anew grows beside its place, under a name of its own that whoever writes next cleans up."""

import contextlib
import os
from pathlib import Path

from tandem_datasets.errors import TandemError
from tandem_datasets.files import remove_tree
from tandem_datasets.layout import EPISODE_ENDS
from tandem_datasets.locks import WriterLock

LOCK = os.path.join(EPISODE_ENDS.key, "writer.lock")  # plain Zarr looks for no names in an array's folder

_OURS = {"data", "meta", "zarr.json", "zarr.json.partial"}


def beside_of(place: str | os.PathLike[str]) -> str:
    """Where a store grows that is to be at ``place``, an absolute path."""
    folder, name = os.path.split(os.fspath(place))
    return os.path.join(folder, f".{name}.beside")


def clear_beside(place: str | os.PathLike[str]) -> str:
    """Removes what a killed rewriting of ``place`` left; returns why it cannot be, "" if nothing is there any more.

    Only what looks like a part of a store is removed, and only if nobody is writing it.
    """
    beside = beside_of(place)
    if not os.path.lexists(beside):
        return ""
    if os.path.islink(beside) or not os.path.isdir(beside) or set(os.listdir(beside)) - _OURS:
        return f"{beside} is in the way"
    lock = None
    try:
        if os.path.exists(os.path.join(beside, LOCK)):
            lock = WriterLock(Path(beside, LOCK), f"store {place}")
        remove_tree(beside)
    except TandemError as error:
        return str(error)
    except OSError as error:
        return f"{beside} cannot be removed: {error.strerror or error}"
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                lock.release()
    return ""
