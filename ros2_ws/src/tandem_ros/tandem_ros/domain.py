"""Which ROS domain a graph lives in: a file lock per domain keeps two graphs of this user apart.

ROS 2 isolates graphs by domain, but nothing stops two of them from using the same one and stepping each other's
simulation. Robots that are meant to share a domain have different namespaces, and are let in.
"""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tandem_datasets.errors import TandemError

DOMAINS = range(233)
_LOOK_S = 5.0
# Linux hands out ports 32768-60999 to anybody, which the domains 102-214 map to: they are tried last
_PREFERRED = (*range(1, 102), *range(215, 233))


class DomainInUseError(TandemError):
    """The domain that was asked for belongs to another running graph."""


@contextmanager
def claim(domain_id: int | None = None, namespace: str = "") -> Iterator[int]:
    """Holds a domain for the length of a ``with`` block and gives its number; ends with the process, however it ends.

    Args:
        domain_id: 0..232, or None for a free one of 1..232 in which no ROS participant of this machine is heard either.
        namespace: several graphs may share a given domain if their namespaces differ.

    Raises:
        TandemError: the number is none, the domain is taken, or all are.
    """
    if domain_id is not None and domain_id not in DOMAINS:
        raise TandemError(f"ROS domain: {domain_id} (allowed: 0..232)")
    held = _claim_free(namespace) if domain_id is None else _claim_given(domain_id, namespace)
    found, locks = held
    try:
        yield found
    finally:
        for lock in locks:
            os.close(lock)


def _claim_given(domain_id: int, namespace: str) -> tuple[int, list[int]]:
    shared = _lock(f"{domain_id}", fcntl.LOCK_SH)
    own = _lock(_own_name(domain_id, namespace), fcntl.LOCK_EX) if shared is not None else None
    if shared is None or own is None:
        if shared is not None:
            os.close(shared)
        place = f"namespace '{namespace}' of ROS domain {domain_id}" if namespace else f"ROS domain {domain_id}"
        owner = _owner(_own_name(domain_id, namespace))
        raise DomainInUseError(
            f"{place}: taken by another Tandem graph{owner} (allowed: a free one of 0..232, or none named)"
        )
    _sign(own)
    return domain_id, [shared, own]


def _claim_free(namespace: str) -> tuple[int, list[int]]:
    preferred, rest = list(_PREFERRED), list(range(102, 215))
    random.SystemRandom().shuffle(preferred)  # what a killed graph left behind is not met again at once
    for domain_id in preferred + rest:
        whole = _lock(f"{domain_id}", fcntl.LOCK_EX)
        if whole is None:
            continue
        if _is_quiet(domain_id):
            own = _lock(_own_name(domain_id, namespace), fcntl.LOCK_EX)
            if own is not None:
                fcntl.flock(whole, fcntl.LOCK_SH | fcntl.LOCK_NB)  # whoever names this domain may join
                _sign(own)
                return domain_id, [whole, own]
        os.close(whole)
    raise DomainInUseError("ROS domain: all of 1..232 are taken (allowed: end another graph first)")


def patience_s(domain_id: int | None) -> float:
    """How long a graph looks for another robot in its domain before it moves anything; asked before it starts.

    Fast DDS announces a participant only every 3 s where the first announcements got lost, so a look at a domain
    with others in it takes longer than that; one in which nobody listens on this machine needs none, unless
    discovery reaches other machines.

    Args:
        domain_id: None for that of ``ROS_DOMAIN_ID``, which is 0 if it is not set.
    """
    if domain_id is None:
        text = os.environ.get("ROS_DOMAIN_ID", "")
        domain_id = int(text) if text.isdecimal() else 0
    near = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST") in ("LOCALHOST", "OFF")
    if domain_id not in DOMAINS:
        return 0.0  # refused by :func:`claim`
    return 0.0 if near and _is_quiet(domain_id) else _LOOK_S


def _is_quiet(domain_id: int) -> bool:
    """Whether no DDS participant of this machine listens in the domain (its first one's discovery port is free)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain_id + 10))
        except OSError:
            return False
    return True


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"tandem-domains-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise TandemError(f"{folder}: belongs to somebody else (allowed: a folder of your own; set TMPDIR)")
    return folder


def _own_name(domain_id: int, namespace: str) -> str:
    return f"{domain_id}-{namespace.strip('/').replace('/', '-')}"


def _lock(name: str, kind: int) -> int | None:
    """A descriptor that holds the lock, or None if somebody else does."""
    lock = os.open(_folder() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _sign(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _owner(name: str) -> str:
    """Which process signed the lock, as a phrase; nothing if that cannot be read."""
    with suppress(OSError, ValueError):
        return f" (process {int((_folder() / f'{name}.lock').read_text())})"
    return ""
