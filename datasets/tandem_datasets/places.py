"""Where a store lies: a local folder, or a URL that fsspec knows, read by byte ranges behind one small protocol.

File names come from the layout, never from a file. Whatever goes wrong ends in a TandemError that names the file.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, cast

from tandem_datasets.errors import TandemError
from tandem_datasets.files import open_data

Span = tuple[int, int]  # first byte, one past the last

_URL = re.compile(r"[a-z][a-z0-9+.:-]*://")
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")  # obstore reads these, if it is there
_GAP = 32 << 10  # bytes that are rather read along than asked past
_CONNECT_S, _READ_S = 10.0, 60.0


class PlacedFile(Protocol):
    """One file of a store, open for reading."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def spans(self, spans: Sequence[Span]) -> list[memoryview]:
        """The bytes of each span, which must lie within the file."""
        ...


class Place(Protocol):
    """Files by their names below one folder. Can be pickled."""

    local: str | None  # the folder, where files can be mapped into memory
    lanes: int  # how many files are best read at the same time

    def file(self, name: str, where: str) -> AbstractContextManager[PlacedFile]:
        """Opens a file; inside, every failure to read becomes a TandemError that begins with ``where``."""
        ...

    def require_store(self, root_file: str, where: str) -> None:
        """Raises TandemError, saying what is there instead, if ``root_file`` is missing."""
        ...

    def require_same(self, where: str) -> None:
        """Raises TandemError if something else lies there than when :meth:`require_store` looked."""
        ...

    def has_files(self, folder: str, last: str, count: int, where: str) -> bool:
        """Whether ``folder`` holds ``last`` and, where that can be told, at least ``count`` files."""
        ...


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is meant for fsspec; ``file://`` is, too, but :func:`place_of` reads it directly."""
    return isinstance(path, str) and _URL.match(path) is not None


def place_of(path: str | os.PathLike[str]) -> Place:
    """The place that a path or URL names; nothing is looked up yet."""
    if not is_url(path):
        return LocalPlace(os.path.abspath(path))
    url = str(path)
    return LocalPlace(os.path.abspath(url.removeprefix("file://"))) if url.startswith("file://") else RemotePlace(url)


class LocalPlace:
    """A folder of this machine."""

    lanes = 1

    def __init__(self, root: str) -> None:
        self.local: str | None = root
        self._root = root
        self._found: _Identity | None = None  # of the store, once there was one

    def __str__(self) -> str:
        return self._root

    @contextlib.contextmanager
    def file(self, name: str, where: str) -> Iterator[PlacedFile]:
        try:
            with open_data(os.path.join(self._root, name), where) as file:
                self.require_same(where)
                yield LocalFile(file.fileno(), os.path.basename(name), where)
        except TandemError:
            self.require_same(where)  # a better reason than that a file is not there
            raise

    def require_same(self, where: str) -> None:
        if self._found and _identity(self._found.path) not in (self._found, None):
            raise TandemError(f"{where}: it was replaced by another while it was open (open it again)")

    def require_store(self, root_file: str, where: str) -> None:
        root = self._root
        self._found = _identity(os.path.join(root, root_file))
        if not os.path.isdir(root):
            raise TandemError(f"{where}: {'a file, not a folder' if os.path.exists(root) else 'there is none'}")
        if not os.path.lexists(os.path.join(root, root_file)) and os.access(root, os.X_OK):
            raise TandemError(f"{where}: no store (the folder has no {root_file})")

    def has_files(self, folder: str, last: str, count: int, where: str) -> bool:
        self.require_same(where)
        path = os.path.join(self._root, folder)
        try:
            return os.path.exists(os.path.join(path, last)) and (count <= 1 or len(os.listdir(path)) >= count)
        except OSError as error:
            raise TandemError(f"{where}: cannot read {folder}: {error.strerror}") from error


class _Identity(NamedTuple):
    """What tells a store from another in its place: a file that is written once, and when. Inodes are used again."""

    path: str
    device: int
    inode: int
    written_ns: int


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _Identity(path, found.st_dev, found.st_ino, found.st_mtime_ns)


class LocalFile:
    """A file by its open descriptor, which stays its owner's."""

    def __init__(self, descriptor: int, name: str, where: str) -> None:
        self._descriptor, self._name, self._where = descriptor, name, where
        self.size = os.fstat(descriptor).st_size

    def spans(self, spans: Sequence[Span]) -> list[memoryview]:
        merged, places = _merged(spans)
        found = []
        for start, stop in merged:
            whole = rest = memoryview(bytearray(stop - start))
            while rest:  # a call takes at most 2 GB
                count = os.preadv(self._descriptor, [rest], stop - len(rest))
                if not count:
                    raise TandemError(f"{self._where}: {self._name} is truncated")
                rest = rest[count:]
            found.append(whole)
        return _cut(spans, merged, places, found)


class RemotePlace:
    """A URL, read-only: ``memory://``, ``http(s)://`` (the server must answer byte ranges), ``s3://`` and so on.

    Credentials and endpoints come from the environment, as the protocol's own tools read them.
    """

    local: str | None = None
    lanes = 16

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None  # process, file system, path in it

    def __str__(self) -> str:
        return self._url

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # connections stay where they are

    @contextlib.contextmanager
    def file(self, name: str, where: str) -> Iterator[PlacedFile]:
        try:
            system, root = self._system(where)
            yield _RemoteFile(system, f"{root}/{name}")
        except TandemError:
            raise
        except Exception as error:  # every fsspec implementation raises a family of its own
            raise TandemError(f"{where}: cannot read {name}: {_reason(error)}") from error

    def require_store(self, root_file: str, where: str) -> None:
        with self.file(root_file, where) as file:
            try:
                assert file.size >= 0
            except FileNotFoundError as error:
                raise TandemError(f"{where}: no store ({root_file}: {_reason(error)})") from error

    def require_same(self, where: str) -> None:
        pass  # what is read from elsewhere has no other name than its address

    def has_files(self, folder: str, last: str, count: int, where: str) -> bool:
        with self.file(f"{folder}/{last}", where) as file:  # not every place can list its files
            try:
                return file.size >= 0
            except FileNotFoundError:
                return False

    def _system(self, where: str) -> tuple[Any, str]:
        """The file system, made anew in each process: connections and their threads do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *_connect(self._url, where))
        return self._opened[1], self._opened[2]


class _RemoteFile:
    def __init__(self, system: Any, path: str) -> None:
        self._system, self._path = system, path
        self._size: int | None = None

    @property
    def size(self) -> int:
        if self._size is None:
            self._system.invalidate_cache()  # of folders listed earlier: a recorder may go on meanwhile
            size = self._system.info(self._path).get("size")
            if not isinstance(size, int):
                raise OSError("the server does not tell its size")
            self._size = size
        return self._size

    def spans(self, spans: Sequence[Span]) -> list[memoryview]:
        merged, places = _merged(spans)
        starts, stops = [start for start, _ in merged], [stop for _, stop in merged]
        if starts == stops:  # an empty file: a request for nothing would be refused
            return [memoryview(b"")] * len(spans)
        found = self._system.cat_ranges([self._path] * len(merged), starts, stops, on_error="return")
        for (start, stop), data in zip(merged, found, strict=True):
            if isinstance(data, BaseException):
                raise data
            if len(data) > stop - start:
                raise OSError("the server does not answer byte ranges")
            if len(data) < stop - start:
                raise OSError("truncated")
        return _cut(spans, merged, places, [memoryview(data) for data in found])


def _merged(spans: Sequence[Span]) -> tuple[list[Span], list[int]]:
    """Spans that lie close together as one, and which of these holds each of ``spans``."""
    merged: list[Span] = []
    places = [0] * len(spans)
    for k in sorted(range(len(spans)), key=lambda k: spans[k]):
        start, stop = spans[k]
        if merged and start - merged[-1][1] <= _GAP:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
        places[k] = len(merged) - 1
    return merged, places


def _cut(
    spans: Sequence[Span], merged: Sequence[Span], places: Sequence[int], found: Sequence[memoryview]
) -> list[memoryview]:
    """Each of ``spans`` out of what was read for those that they were merged into."""
    firsts = [merged[k][0] for k in places]
    return [
        found[k][start - first : stop - first] for k, first, (start, stop) in zip(places, firsts, spans, strict=True)
    ]


def _connect(url: str, where: str) -> tuple[Any, str]:
    """An fsspec file system and the path in it; raises TandemError naming what has to be installed."""
    protocol = url.partition("://")[0]
    try:
        import fsspec

        if protocol in _BUCKETS and (system := _bucket_system(protocol)) is not None:
            return system, url
        if protocol in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
            session = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}, "trust_env": True}
            return fsspec.filesystem(protocol, client_kwargs=session, skip_instance_cache=True), url
        system, path = fsspec.core.url_to_fs(url)
        return system, path.rstrip("/")
    except ImportError as error:
        raise TandemError(f"{where}: {protocol}:// is not installed: {error} (wanted: the extra 'data')") from error
    except ValueError as error:
        raise TandemError(f"{where}: {str(error)[:200]} (allowed: a folder, memory://, http://, s3:// ...)") from error


def _bucket_system(protocol: str) -> Any:
    """obstore's file system of a cloud's buckets; None if obstore is not there."""
    try:
        from obstore.fsspec import FsspecStore
    except ImportError:
        return None
    options: dict[str, Any] = {
        "client_options": {
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "timeout": timedelta(seconds=_READ_S),
            "allow_http": True,  # to an endpoint that the environment names so; the clouds' own are https
        },
        "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=_CONNECT_S)},
        "skip_instance_cache": True,
    }
    return cast(Any, FsspecStore)(protocol, **options)  # its overloads want literal names


def _reason(error: BaseException) -> str:
    """One line about an error of any family, with the one behind it where fsspec hides that."""
    inner = error.__cause__
    text = str(inner if inner is not None and isinstance(error, FileNotFoundError) else error) or type(error).__name__
    return " ".join(text.partition("Debug source")[0].split())[:300]  # obstore's are pages long
