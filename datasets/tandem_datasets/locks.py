"""At most one writer of a store: an advisory lock that names its owner and goes when the owner goes."""

import contextlib
import fcntl
import os
import socket
import sys
import time
import weakref
from datetime import datetime
from pathlib import Path

from tandem_datasets.errors import TandemError

_OWNER_BYTES = 500
_PATIENCE_S = (0.01, 0.03, 0.1, 0.3)  # with an owner without a name: it has just come, or only looks, as is_held does


class WriterLock:
    """Held from construction to :meth:`release`.

    The kernel drops the lock when its owner dies, however it dies. Processes that are forked while it is held let go
    of it, so that they do not hold it for a dead parent; they must not write.

    Raises:
        TandemError: another writer holds it, or the file system cannot lock files.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._path, self._process = path, os.getpid()
        if path.is_symlink():
            raise TandemError(f"{where}: {path.name} is a link (allowed: a file of its own)")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            _lock(self._descriptor, where)
        except BaseException:
            os.close(self._descriptor)
            raise
        if not self.in_place:  # who had it put another store there
            os.close(self._descriptor)
            raise TandemError(f"{where}: it was just replaced by another (try again)")
        _held.add(self)
        with contextlib.suppress(OSError):  # a full disk: it is locked all the same, only not by name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, _owner(), 0)

    @property
    def held(self) -> bool:
        """Whether it is this process's."""
        return self._descriptor >= 0 and self._process == os.getpid()

    @property
    def in_place(self) -> bool:
        """Whether its file is still the one of that name; else what it guards was removed or replaced."""
        return _is_still(self._path, self._descriptor)

    def release(self) -> None:
        """Gives it up; the file stays, since removing it would let two writers lock different files."""
        if self.held:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
        _held.discard(self)
        self._descriptor = -1

    def _let_go(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


def _lock(descriptor: int, where: str) -> None:
    for wait_s in (*_PATIENCE_S, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            owner = " ".join(os.pread(descriptor, _OWNER_BYTES, 0).decode("utf-8", "replace").split())
            if owner or wait_s is None:
                raise TandemError(f"{where}: another writer has it open ({owner or 'unknown'})") from error
            time.sleep(wait_s)
        except OSError as error:
            raise TandemError(f"{where}: this file system cannot lock files: {error.strerror}") from error


def is_held(path: Path) -> bool:
    """Whether another writer has the lock at this moment; nothing is written to find out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file is still the one of that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _owner() -> bytes:
    program = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:3]]) if sys.argv else "python"
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, {program[:200]}, since {now}\n".encode(errors="replace")


_held: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock._let_go()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)
