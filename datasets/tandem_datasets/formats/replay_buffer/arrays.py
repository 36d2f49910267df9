"""Arrays of Zarr stores of others, in a folder or a zip file: what they declare is checked before anything is decoded.

Object arrays would be unpickled by zarr, so that only plain numbers and known compressors pass.
"""

import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError

ENDS = "meta/episode_ends"
_JSON_LIMIT = 16 << 20
_CHUNK_LIMIT = 1 << 30  # bytes of one decoded chunk, and of one file in a zip
_READ_LIMIT = 4 << 30  # bytes at once: the numbers of an episode
_DTYPE = re.compile(r"[<>|][fiub][1248]")
_V3_TYPES = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_V2_CODECS = {None, "blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma", "imagecodecs_jpegxl", "imagecodecs_jpeg",
              "imagecodecs_jpeg2k", "imagecodecs_png", "imagecodecs_webp"}  # fmt: skip
_V3_CODECS = {"bytes", "blosc", "zstd", "gzip", "crc32c", "transpose", "sharding_indexed", "imagecodecs_jpegxl",
              "imagecodecs_jpeg"}  # fmt: skip
_NAME = re.compile(r"[^/\\\0]{1,200}")


class Buffer:
    """A Zarr hierarchy with ``data`` and ``meta``. Pickled, it is opened anew."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self._where = path, where
        self._zipped = path.is_file()
        self._arrays: dict[str, Any] = {}
        self._names = self._list()
        self.version = 3 if f"{ENDS}/zarr.json" in self._names else 2
        if f"{ENDS}/{self._file}" not in self._names:
            raise TandemError(f"{where}: no {ENDS} (allowed: a replay buffer of Zarr v2 or v3)")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @property
    def _file(self) -> str:
        return "zarr.json" if self.version == 3 else ".zarray"

    def keys(self, group: str) -> list[str]:
        """The arrays directly in ``group``, sorted."""
        ending = f"/{self._file}"
        found = [name.removeprefix(f"{group}/").removesuffix(ending) for name in self._names
                 if name.startswith(f"{group}/") and name.endswith(ending)]  # fmt: skip
        return sorted(name for name in found if _NAME.fullmatch(name) and name not in (group, ".", "..", self._file))

    def attributes(self) -> Mapping[str, Any]:
        """Of the root group."""
        if self.version == 3:
            found = self._json("zarr.json") if "zarr.json" in self._names else {}
            found = found.get("attributes", {}) if isinstance(found, Mapping) else {}
        else:
            found = self._json(".zattrs") if ".zattrs" in self._names else {}
        return found if isinstance(found, Mapping) else {}

    def array(self, key: str) -> Any:
        """The zarr array at ``key``, once what it declares was found harmless."""
        if key not in self._arrays:
            self._check(key)
            import zarr

            _register()
            try:
                self._arrays[key] = zarr.open_array(self._store(), path=key, mode="r")
            except Exception as error:  # zarr raises many kinds
                raise self._damaged(key, error) from error
        return self._arrays[key]

    def read(self, key: str, start: int, stop: int) -> np.ndarray:
        """Rows of an array."""
        array = self.array(key)
        if not 0 <= start <= stop <= array.shape[0]:
            raise TandemError(f"{self._where}: {key} has {array.shape[0]} rows (wanted: {start}..{stop})")
        if (stop - start) * math.prod(array.shape[1:]) * array.dtype.itemsize > _READ_LIMIT:
            raise TandemError(f"{self._where}: {key}: {stop - start} rows at once (allowed: {_READ_LIMIT} bytes)")
        try:
            return np.asarray(array[start:stop])
        except Exception as error:  # each codec raises its own
            raise self._damaged(key, error) from error

    def blocks(self, key: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The same, a chunk at a time."""
        step = self.array(key).chunks[0]
        while start < stop:
            until = min(stop, (start // step + 1) * step)
            yield self.read(key, start, until)
            start = until

    def _check(self, key: str) -> None:
        found = self._json(f"{key}/{self._file}")
        where = f"{self._where}: {key}"
        if not isinstance(found, Mapping):
            raise TandemError(f"{where}: {self._file} is no mapping")
        shape, chunks, itemsize = (_v3 if self.version == 3 else _v2)(found, where)
        sizes = [*shape, *chunks]
        fine = all(type(side) is int and side >= 0 for side in sizes) and len(shape) == len(chunks) and 0 not in chunks
        if not fine or not shape or math.prod(chunks) * itemsize > _CHUNK_LIMIT:
            raise TandemError(
                f"{where}: shape {shape!s:.80}, chunks {chunks!s:.80} (allowed: up to {_CHUNK_LIMIT} bytes)"
            )
        if math.prod(shape[1:]) * itemsize > _CHUNK_LIMIT or shape[0] >= 2**40:
            raise TandemError(f"{where}: shape {shape!s:.80} (allowed: rows of up to {_CHUNK_LIMIT} bytes)")

    def _json(self, name: str) -> Any:
        try:
            if self._zipped:
                with zipfile.ZipFile(self.path) as file:
                    data = file.read(name) if file.getinfo(name).file_size <= _JSON_LIMIT else b""
            else:
                path = self.path / name
                data = path.read_bytes() if path.stat().st_size <= _JSON_LIMIT else b""
            return json.loads(data)
        except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError) as error:
            raise TandemError(f"{self._where}: {name}: {str(error)[:100]}") from error

    def _list(self) -> set[str]:
        """Metadata files by their names in the hierarchy."""
        if not self._zipped:
            files = ("*/*/.zarray", "*/*/zarr.json", ".zattrs", "zarr.json")
            return {path.relative_to(self.path).as_posix() for each in files for path in self.path.glob(each)}
        try:
            with zipfile.ZipFile(self.path) as file:
                found = file.infolist()
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise TandemError(f"{self._where}: no zip file, or cut short: {str(error)[:100]}") from error
        large = [each.filename for each in found if each.file_size > _CHUNK_LIMIT]
        if large:
            raise TandemError(f"{self._where}: {large[0]!r:.100} is larger than {_CHUNK_LIMIT} bytes")
        return {each.filename for each in found if each.filename.endswith((".zarray", "zarr.json", ".zattrs"))}

    def _store(self) -> Any:
        from zarr.storage import LocalStore, ZipStore

        return ZipStore(self.path, mode="r") if self._zipped else LocalStore(self.path, read_only=True)

    def _damaged(self, key: str, error: Exception) -> TandemError:
        return TandemError(
            f"{self._where}: {key}: damaged: {str(error).splitlines()[0] if str(error) else error!r:.120}"
        )


def looks_like_buffer(path: Path) -> bool:
    """Told from names and one small file."""
    if path.is_file():
        if path.name.endswith(".zarr.zip"):
            return True  # even cut short: whoever reads it says so
        if path.suffix != ".zip" or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as file:
            return any(f"{ENDS}/{name}" in file.NameToInfo for name in (".zarray", "zarr.json"))
    if (path / ENDS / ".zarray").is_file():
        return True
    root = path / "zarr.json"
    if not (path / ENDS / "zarr.json").is_file() or not root.is_file() or root.stat().st_size > _JSON_LIMIT:
        return False
    return b'"tandem_schema"' not in root.read_bytes()


def _v2(found: Mapping[str, Any], where: str) -> tuple[list[Any], list[Any], int]:
    dtype, compressor = found.get("dtype"), found.get("compressor")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise TandemError(f"{where}: dtype is {dtype!r:.60} (allowed: plain numbers)")
    name = compressor.get("id") if isinstance(compressor, Mapping) else compressor
    if (name is not None and not isinstance(name, str)) or name not in _V2_CODECS or found.get("filters"):
        known = ", ".join(sorted(str(each) for each in _V2_CODECS))
        raise TandemError(
            f"{where}: compressor {name!r:.60}, filters {found.get('filters')!r:.60} (allowed: {known}; none)"
        )
    return _sizes(found.get("shape")), _sizes(found.get("chunks")), np.dtype(dtype).itemsize


def _v3(found: Mapping[str, Any], where: str) -> tuple[list[Any], list[Any], int]:
    dtype, grid = found.get("data_type"), found.get("chunk_grid")
    if not isinstance(dtype, str) or not _V3_TYPES.fullmatch(dtype):
        raise TandemError(f"{where}: data_type is {dtype!r:.60} (allowed: plain numbers)")
    odd = sorted(set(_codec_names(found.get("codecs"))) - _V3_CODECS)
    if odd or not isinstance(grid, Mapping) or not isinstance(grid.get("configuration"), Mapping):
        raise TandemError(f"{where}: codecs {odd!s:.80} (allowed: {', '.join(sorted(_V3_CODECS))})")
    return _sizes(found.get("shape")), _sizes(grid["configuration"].get("chunk_shape")), np.dtype(dtype).itemsize


def _codec_names(codecs: Any) -> Iterator[str]:
    """Of a chain and of all chains inside it."""
    for codec in codecs if isinstance(codecs, list) else ["no list"]:
        if not isinstance(codec, Mapping):
            yield str(codec)
            continue
        yield str(codec.get("name"))
        inner = codec.get("configuration")
        for key in ("codecs", "index_codecs"):
            if isinstance(inner, Mapping) and key in inner:
                yield from _codec_names(inner[key])


def _sizes(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) and len(value) <= 8 else []


def _register() -> None:
    """Makes the codecs known that UMI's stores name; they only decode pictures."""
    import imagecodecs.numcodecs as codecs
    import imagecodecs.zarr
    from numcodecs.registry import codec_registry, register_codec

    for codec in (codecs.Jpegxl, codecs.Jpeg, codecs.Jpeg2k, codecs.Png, codecs.Webp):
        if codec.codec_id not in codec_registry:
            register_codec(codec)
    imagecodecs.zarr.register_codecs()


def folder_bytes(path: Path) -> Iterator[tuple[Path, str]]:
    """All files below ``path`` with their names in a zip, sorted."""
    for base, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(base, name)
            yield file, file.relative_to(path).as_posix()
