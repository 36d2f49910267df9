"""Files that are replaced whole or not at all, read within limits, and locked by one writer."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

from tandem_datasets.errors import TandemError

_SYNC_DATA = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
PARTIAL = ".partial"


def write_file(path: str, parts: Iterable[bytes | memoryview], syncer: "Syncer") -> None:
    """Writes a file that no reader looks at yet; it is on the disk after the next flush of ``syncer``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for part in parts:
            write_all(descriptor, part)
    except BaseException:
        os.close(descriptor)
        raise
    syncer.take(descriptor)


def replace_file(path: str, data: bytes, syncer: "Syncer") -> None:
    """Writes a small file beside ``path`` and renames it into place, so that no reader sees half of it."""
    write_file(path + PARTIAL, (data,), syncer)
    syncer.flush()
    os.replace(path + PARTIAL, path)
    syncer.note_folder(os.path.dirname(path))
    syncer.flush()


class Syncer:
    """Collects what was written, and has the disk confirm all of it together: that costs little more than one.

    With ``enabled=False`` it waits for nothing.
    """

    _PENDING = 64  # descriptors held open before they are confirmed unasked
    _THREADS = 8

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._taken: list[int] = []
        self._lent: set[int] = set()
        self._folders: set[str] = set()
        self._pool = ThreadPoolExecutor(self._THREADS, thread_name_prefix="fsync") if enabled else None

    def take(self, descriptor: int) -> None:
        """A written file, to be closed once it is on the disk."""
        self._taken.append(descriptor)
        if not self._enabled or len(self._taken) >= self._PENDING:
            self.flush()

    def note(self, descriptor: int) -> None:
        """A written file that its owner keeps open, until :meth:`forget`."""
        self._lent.add(descriptor)

    def forget(self, descriptor: int) -> None:
        """Its owner is about to close it."""
        if self._enabled and descriptor in self._lent:
            _SYNC_DATA(descriptor)
        self._lent.discard(descriptor)

    def note_folder(self, path: str) -> None:
        """A folder in which names were made or renamed."""
        self._folders.add(path)

    def flush(self) -> None:
        """Returns when everything noted is on the disk."""
        taken, lent, folders = self._taken, self._lent, self._folders
        self._taken, self._lent, self._folders = [], set(), set()
        try:
            if self._pool is not None:
                jobs = [self._pool.submit(_SYNC_DATA, descriptor) for descriptor in (*taken, *lent)]
                jobs += [self._pool.submit(_sync_folder, path) for path in folders]
                wait(jobs)
                for job in jobs:
                    job.result()
        finally:
            for descriptor in taken:
                os.close(descriptor)

    def drop(self) -> None:
        """Forgets everything, unconfirmed."""
        for descriptor in self._taken:
            os.close(descriptor)
        self._taken, self._lent, self._folders = [], set(), set()

    def close(self) -> None:
        """Forgets everything and ends its threads."""
        self.drop()
        if self._pool is not None:
            self._pool.shutdown()


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """``os.write`` until nothing is left (one call takes at most 2 GB)."""
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def write_all_at(descriptor: int, data: memoryview, offset: int) -> None:
    """``os.pwrite`` until nothing is left."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _open_regular(path: str, flags: int) -> int:
    """Opens regular files only: a pipe by that name would block for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


@contextlib.contextmanager
def open_data(path: str, where: str) -> Iterator[BinaryIO]:
    """A data file for reading; every I/O error inside becomes a TandemError that names it."""
    try:
        with open(path, "rb", opener=_open_regular) as file:
            yield file
    except OSError as error:
        raise TandemError(f"{where}: cannot read {os.path.basename(path)}: {error.strerror or error}") from error


class WriterLock:
    """At most one writer of a store: an advisory lock, which the kernel drops when its owner dies.

    Processes forked while it is held share it; spawned ones do not.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise TandemError(f"{where}: another writer has it open (process {owner})") from error
            raise TandemError(f"{where}: this file system cannot lock files: {error.strerror}") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Gives it up; the file stays, since removing it would let two writers lock different files."""
        os.ftruncate(self._descriptor, 0)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a forked child may hold the descriptor, too
        os.close(self._descriptor)
