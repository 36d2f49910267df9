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
    here = local_folder(name)
    if here is not None:
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
    if variable := _told_offline():
        raise TandemError(f"{where}: {state}, and {variable} is set (wanted: a local folder, or unset it)")
    fetched = _snapshot(name, [*wanted, *also], where, fetch=True) if _reachable() else None
    if fetched is None:
        raise TandemError(f"{where}: {state}, and the hub cannot be reached (give a local folder or connect)")
    if not _found(fetched, wanted):
        raise TandemError(f"{where}: the repository holds none of its files (wanted: {shown})")
    if missing := lacks(fetched):
        raise TandemError(f"{where}: the repository has no {missing} (wanted: a whole model)")
    return fetched


def local_folder(name: str) -> Path | None:
    """The folder of this name, which may begin with ``~``; None if there is none."""
    try:
        here = Path(name).expanduser()
        return here if name and here.is_dir() else None
    except (RuntimeError, OSError):  # nobody's home; a name that no file can have
        return None


@contextmanager
def not_asked_in_vain() -> Iterator[None]:
    """Inside, libraries that fetch by themselves look into the cache alone, if the hub cannot be reached.

    They would ask it again and again, for more than a minute in all.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(_told_offline()) or not _reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _told_offline() -> str | None:
    """The variable that forbids to ask the hub, None if it may be asked; huggingface_hub reads them likewise."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    name = next((name for name in names if os.environ.get(name)), None)
    return name if name and os.environ[name].upper() in ("1", "ON", "YES", "TRUE") else None


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
    url = getproxies().get("https") or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    address = urlsplit(url if "://" in url else f"http://{url}")  # as it is usual for proxies
    answered = threading.Event()

    def knock() -> None:
        try:
            port = address.port or (80 if address.scheme == "http" else 443)
            socket.create_connection((address.hostname or "", port), _ANSWER_S).close()
        except (OSError, ValueError):  # the latter of what is no port or no name
            return
        answered.set()

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    return answered.is_set()
