"""Every change that writers make to the disk goes through this module: whole files, confirmed writes, and the lock.

So that a drill can count these operations and let each of them fail, :func:`inject` puts something between callers and
the disk. Without it each function costs one comparison more than the system call.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import BinaryIO, Protocol

from tandem_datasets.errors import TandemError

_SYNC_DATA = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_MOST_PARTS = 512  # buffers of one call; Linux and macOS take 1024
PARTIAL = ".partial"

Buffer = bytes | memoryview


class Faults(Protocol):
    """What a drill puts between the callers of this module and the disk."""

    def run[T](self, operation: str, path: str, whole: Callable[[], T], half: Callable[[], object] | None) -> T:
        """Performs ``whole``, or ``half`` (a short write), or nothing; may raise OSError or end the process."""
        ...


_faults: Faults | None = None


def inject(faults: Faults | None) -> None:
    """From now on all operations of this process go through ``faults``; None: to the disk."""
    global _faults  # noqa: PLW0603
    _faults = faults


def _run[T](operation: str, path: str, whole: Callable[[], T], half: Callable[[], object] | None = None) -> T:
    return whole() if _faults is None else _faults.run(operation, path, whole, half)


# -- operations


def open_file(path: str, flags: int) -> int:
    """``os.open`` for writing, never through a link; what it makes is readable for everybody that the umask lets."""
    return _run("open", path, lambda: os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666))


def write_at(descriptor: int, parts: Sequence[Buffer], offset: int, path: str) -> int:
    """Writes all of ``parts`` one after the other from ``offset``; returns the offset after them."""
    end = offset + sum(map(len, parts))
    _run("write", path, lambda: _write_all(descriptor, parts, offset), lambda: _write_half(descriptor, parts, offset))
    return end


def resize(descriptor: int, size: int, path: str) -> None:
    """Makes a file that long, sparse where it grows."""
    _run("resize", path, lambda: os.ftruncate(descriptor, size))


def sync(descriptor: int, path: str) -> None:
    """Returns when the disk has the file's content and length."""
    _run("sync", path, lambda: _SYNC_DATA(descriptor))


def sync_folder(path: str) -> None:
    """Returns when the disk has the names in a folder."""

    def confirm() -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _run("sync folder", path, confirm)


def replace(source: str, target: str) -> None:
    """``os.replace``: atomic, and for folders only onto a place that is empty."""
    _run("rename", target, lambda: os.replace(source, target))


def exchange(one: str, other: str) -> None:
    """Two names of the same folder change places, both at once: there is no moment at which one is missing.

    Raises OSError with ENOTSUP or EINVAL where the system or the file system cannot do that.
    """
    _run("exchange", other, lambda: _exchange(one, other))


def remove(path: str) -> None:
    """Removes a file."""
    _run("remove", path, lambda: os.unlink(path))


def remove_tree(path: str) -> None:
    """Removes a folder with all that it holds."""
    _run("remove folder", path, lambda: shutil.rmtree(path))


def make_folders(path: str) -> None:
    """Makes a folder and those above it, where they are not there yet."""
    if not os.path.isdir(path):
        _run("make folder", path, lambda: os.makedirs(path, exist_ok=True))


def require_no_links(root: str, folders: Iterable[str], where: str) -> None:
    """Raises TandemError if one of ``folders`` below ``root`` is a link that leads a writer to other files."""
    for folder in folders:
        if os.path.islink(os.path.join(root, folder)):
            raise TandemError(f"{where}: {folder} is a link (allowed: a folder of its own)")


def _exchange(one: str, other: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    swap = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    if hasattr(library, "renameat2"):
        here = ctypes.c_int(-100)  # AT_FDCWD, of no meaning for absolute paths
        failed = library.renameat2(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(swap))
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(os.fsencode(one), os.fsencode(other), ctypes.c_uint(swap))
    else:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), other)


def identity(file: str | int) -> tuple[int, int]:
    """What tells a file or folder (a path, or open) from another that takes its name."""
    found = os.stat(file)
    return found.st_dev, found.st_ino


def _write_all(descriptor: int, parts: Sequence[Buffer], offset: int) -> None:
    rest = [part for part in parts if len(part)]
    while rest:
        batch = rest[:_MOST_PARTS]
        written = os.pwritev(descriptor, batch, offset)
        offset += written
        while batch and written >= len(batch[0]):
            written -= len(batch.pop(0))
            rest.pop(0)
        if written:
            rest[0] = memoryview(rest[0])[written:]


def _write_half(descriptor: int, parts: Sequence[Buffer], offset: int) -> None:
    data = b"".join(parts)
    _write_all(descriptor, [data[: len(data) // 2]], offset)


# -- whole files


def write_file(path: str, parts: Iterable[Buffer], syncer: "Syncer") -> None:
    """Writes a file that no reader looks at yet; it is on the disk after the next flush of ``syncer``."""
    descriptor = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        offset = 0
        for part in parts:
            offset = write_at(descriptor, (part,), offset, path)
    except BaseException:
        os.close(descriptor)
        raise
    syncer.take(descriptor, path)


def replace_file(path: str, data: bytes, syncer: "Syncer") -> None:
    """Writes a small file beside ``path`` and renames it into place, so that no reader sees half of it."""
    write_file(path + PARTIAL, (data,), syncer)
    syncer.flush()
    replace(path + PARTIAL, path)
    syncer.note_folder(os.path.dirname(path))
    syncer.flush()


class SyncError(OSError):
    """The disk did not confirm. What was written since the last confirmation may be lost, and asking again lies."""


class Syncer:
    """Has the disk confirm what was written, all of it together: that costs little more than one file.

    Whole files are confirmed in the background from when they are handed over. With ``enabled=False`` it waits for
    nothing.
    """

    _THREADS = 8

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._taken: list[Future[None]] = []
        self._lent: dict[int, str] = {}
        self._folders: set[str] = set()
        self._pool: ThreadPoolExecutor | None = None

    def take(self, descriptor: int, path: str) -> None:
        """A written file, to be closed once it is on the disk."""
        self._lent.pop(descriptor, None)
        if self.enabled:
            self._taken = [job for job in self._taken if not job.done() or job.exception()]
            self._taken.append(self._submit(_sync_and_close, descriptor, path))
        else:
            os.close(descriptor)

    def note(self, descriptor: int, path: str) -> None:
        """A written file that its owner keeps open, until it gives it to :meth:`take` or :meth:`forget`."""
        self._lent[descriptor] = path

    def forget(self, descriptor: int) -> None:
        """Its owner closes it, and does not need it any more."""
        self._lent.pop(descriptor, None)

    def note_folder(self, path: str) -> None:
        """A folder in which names were made or renamed."""
        self._folders.add(path)

    def flush(self) -> None:
        """Returns when everything noted is on the disk; raises SyncError if the disk does not confirm."""
        taken, lent, folders = self._taken, self._lent, self._folders
        self._taken, self._lent, self._folders = [], {}, set()
        if not self.enabled:
            return
        try:
            jobs = [self._submit(sync, descriptor, path) for descriptor, path in lent.items()]
            jobs += [self._submit(sync_folder, path) for path in folders]
        except RuntimeError as no_thread:
            raise SyncError(errno.EAGAIN, str(no_thread)) from no_thread
        wait(jobs := taken + jobs)
        for job in jobs:
            if error := job.exception():
                if isinstance(error, OSError):
                    raise SyncError(error.errno, error.strerror or str(error)) from error
                raise error

    def drop(self) -> None:
        """Forgets everything; what was confirmed so far is not known."""
        wait(self._taken)
        self._taken, self._lent, self._folders = [], {}, set()

    def close(self) -> None:
        """Forgets everything and ends its threads."""
        self.drop()
        if self._pool is not None:
            self._pool.shutdown()

    def _submit(self, job: Callable[..., None], *arguments: int | str) -> "Future[None]":
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._THREADS, thread_name_prefix="tandem-sync")
        return submit(self._pool, job, *arguments)


def submit[T](pool: ThreadPoolExecutor, job: Callable[..., T], *arguments: object) -> "Future[T]":
    """``pool.submit``, but when the interpreter is ending, and pools take nothing more, it is done at once, here."""
    try:
        return pool.submit(job, *arguments)
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
    done: Future[T] = Future()
    try:
        done.set_result(job(*arguments))
    except Exception as failed:  # noqa: BLE001  it is raised where the result is asked for
        done.set_exception(failed)
    return done


def _sync_and_close(descriptor: int, path: str) -> None:
    try:
        sync(descriptor, path)
    finally:
        os.close(descriptor)


# -- reading


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
