"""Files by name: of a folder, or of a repository on the Hugging Face hub, without hanging where there is no network."""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tandem_datasets.errors import TandemError

_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_ANSWER_S = 4.0  # the hub's door answers within this time, or there is no network


def folder_of(
    name: str,
    wanted: Sequence[str],
    where: str,
    also: Sequence[str] = (),
    lacks: Callable[[Path], str | None] = lambda folder: None,
) -> Path:
    """The folder with the files of ``name``: that folder itself, or a hub repository's in the local cache.

    Args:
        name: a folder, or a name on the hub.
        wanted: patterns of the files; at least one is there afterwards. What the cache has is not fetched again.
        where: begins an error's line.
        also: patterns of files that are fetched with them where there are any.
        lacks: names a file that a folder needs and has not, as after an interrupted download; None: it is whole.

    Raises:
        TandemError: no such folder or repository, none of the files in it or not all that it needs, or no network to
            fetch it.
    """
    shown = ", ".join(wanted[:3])
    here = Path(name).expanduser()
    if name and here.is_dir():
        if not _found(here, wanted):
            raise TandemError(f"{where}: the folder holds none of its files (wanted: {shown})")
        if missing := lacks(here):
            raise TandemError(f"{where}: the folder has no {missing} (wanted: the whole model)")
        return here
    if not _NAME.fullmatch(name) or name.startswith((".", "-")):
        raise TandemError(f"{where}: no such folder (allowed: a folder, or a hub name such as 'owner/model')")
    cached = _snapshot(name, [*wanted, *also], where, fetch=False)
    begun = cached is not None and _found(cached, wanted)
    missing = lacks(cached) if cached is not None and begun else None
    if cached is not None and begun and missing is None:
        return cached
    state = f"only in part in the cache, without {missing}" if begun else "not in the cache"
    if _told_offline():
        raise TandemError(f"{where}: {state}, and HF_HUB_OFFLINE is set (wanted: a local folder, or unset it)")
    if not _reachable():
        raise TandemError(f"{where}: {state}, and the hub cannot be reached (give a local folder or connect)")
    fetched = _snapshot(name, [*wanted, *also], where, fetch=True)
    if fetched is None or not _found(fetched, wanted):
        raise TandemError(f"{where}: the repository holds none of its files (wanted: {shown})")
    if missing := lacks(fetched):
        raise TandemError(f"{where}: the repository has no {missing} (wanted: a whole model)")
    return fetched


@contextmanager
def not_asked_in_vain() -> Iterator[None]:
    """Inside, libraries that fetch by themselves look into the cache alone, if the hub cannot be reached.

    They would ask it again and again, for more than a minute in all.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or _told_offline() or not _reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _told_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _found(folder: Path, wanted: Sequence[str]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in wanted)


def _snapshot(name: str, patterns: list[str], where: str, *, fetch: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not fetch))
    except LocalEntryNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 (the hub's, the network library's and the file system's)
        line = " ".join(str(error).split())[:160]
        raise TandemError(f"{where}: the hub refused '{name}': {line} (wanted: an open repository's name)") from None


def _reachable() -> bool:
    """Whether the hub, or the proxy before it, takes a connection. Looking up a name has no time limit of its own."""
    address = urlsplit(getproxies().get("https") or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection((address.hostname or "", address.port or 443), _ANSWER_S).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    return answered.is_set()
