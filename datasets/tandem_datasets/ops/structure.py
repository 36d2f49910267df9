"""Whether a store's files are those that its layout asks for: the part of ``validate`` that decodes nothing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tandem_datasets.beside import LOCK, beside_of
from tandem_datasets.codecs import Codec
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.files import PARTIAL, open_data
from tandem_datasets.layout import (
    EPISODE_COLUMNS,
    EPISODE_ENDS,
    INSTRUCTIONS,
    NAMES,
    PROVENANCE,
    PROVENANCE_ENDS,
    Column,
    frame_columns,
)
from tandem_datasets.ops.flaws import Flaw, Kind, Level
from tandem_datasets.places import LocalFile, LocalPlace
from tandem_datasets.reading import (
    ROOT_FILE,
    read_declared,
    read_ends,
    read_growing,
    read_index,
    read_json,
    read_root,
)
from tandem_datasets.shards import check_rows

TABLES = (INSTRUCTIONS, NAMES)
PLACEHOLDER = {True: "puts black images where rows are lost", False: "puts zeros where numbers are lost"}
MARKS = "marks the episodes as deleted that do not fit their checksum"


@dataclass(frozen=True)
class Skeleton:
    """What is known of a store without looking at its rows."""

    root: str
    where: str
    embodiment: Embodiment
    codec: Codec
    ends: np.ndarray  # int64 (N,)
    provenance_bytes: int | None  # committed; None: not known, for ``meta/provenance_ends`` is damaged

    @property
    def columns(self) -> list[Column]:
        """All arrays but ``meta/episode_ends``."""
        frames = frame_columns(self.embodiment, self.codec).values()
        return [*frames, *EPISODE_COLUMNS, PROVENANCE_ENDS, PROVENANCE, *TABLES]

    def committed(self, column: Column) -> int | None:
        """Rows of it that are committed; None: of tables, which only their own ``zarr.json`` tells, or unknown."""
        if column in TABLES:
            return None
        if column is PROVENANCE:
            return self.provenance_bytes
        if column.key.startswith("data/"):
            return int(self.ends[-1]) if len(self.ends) else 0
        return len(self.ends)


def skeleton(root: str, where: str) -> Skeleton:
    """Raises TandemError where nothing can be said without guessing: no embodiment, or no episode ends."""
    embodiment, codec = read_root(root, where)
    ends = read_ends(root, where)
    bones = Skeleton(root, where, embodiment, codec, ends, None)
    try:
        text_ends = read_growing(root, PROVENANCE_ENDS, len(ends), where)  # whatever its zarr.json says
    except TandemError:
        return bones
    return replace(bones, provenance_bytes=int(text_ends[-1]) if len(ends) else 0)


def check_structure(bones: Skeleton, writing: bool) -> list[Flaw]:
    """Every flaw of files and their metadata.

    Args:
        bones: of the store.
        writing: somebody has it open, so that rows past the committed ones are no leftovers.
    """
    flaws = [*_groups(bones), *strangers(bones), *(() if writing else _beside(bones))]
    if bones.provenance_bytes is None:
        remedy = "finds the texts' bounds anew, or empties all of them"
        flaws.append(
            Flaw(Kind.PROVENANCE, PROVENANCE_ENDS.key, "no growing counts", remedy, column=PROVENANCE_ENDS.key)
        )
    for column in (EPISODE_ENDS, *bones.columns):
        flaws += _array(bones, column, writing)
    return flaws


def _array(bones: Skeleton, column: Column, writing: bool) -> Iterator[Flaw]:
    rows = bones.committed(column)
    try:
        declared = read_declared(bones.root, column, bones.where)
    except TandemError as error:
        yield _metadata(bones, column, error)
    else:
        if rows is not None and (declared < rows or (declared > rows and not writing)):
            found = f"zarr.json says {declared} rows, {rows} are committed"
            yield Flaw(Kind.SHAPE, column.key, found, "puts the count back", column=column.key)
        rows = declared if column in TABLES else rows
    if rows is not None:
        yield from _files(bones, column, rows, writing)


def _metadata(bones: Skeleton, column: Column, error: TandemError) -> Flaw:
    """Another kind of array may hold something that is worth more than a repair; anything else can be made anew."""
    try:
        foreign = isinstance(read_json(LocalPlace(bones.root), f"{column.key}/{ROOT_FILE}", ""), dict)
    except TandemError:
        foreign = False
    remedy = "" if foreign or column is EPISODE_ENDS else "writes it anew"
    found = str(error).removeprefix(f"{bones.where}: ")
    return Flaw(Kind.METADATA, f"{column.key}/{ROOT_FILE}", found, remedy, column=column.key)


def _files(bones: Skeleton, column: Column, rows: int, writing: bool) -> Iterator[Flaw]:
    folder = os.path.join(bones.root, column.key)
    names = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    wanted = {column.file_name(number): number for number in range(column.files(rows))}
    for name, number in wanted.items():
        found = _sharded(bones, column, number, rows) if column.sharded else _chunk(bones, column, number)
        if found:
            remedy = _remedy(column, number, rows)
            kind = Kind.SHARD if column.sharded else Kind.CHUNK
            yield Flaw(kind, f"{column.key}/{name}", found, remedy, column=column.key, number=number)
    for name in sorted(names - set(wanted) - {ROOT_FILE, os.path.basename(LOCK)}):
        ours = name.endswith(PARTIAL) or name == column.file_name(_number(name, column))
        if ours and not writing:
            found = "left over from something that was interrupted"
            yield Flaw(Kind.LEFTOVER, f"{column.key}/{name}", found, "removes it", column=column.key)
        elif not ours:
            yield _extra(f"{column.key}/{name}")


def _remedy(column: Column, number: int, rows: int) -> str:
    if column is EPISODE_ENDS:
        return ""
    if column in TABLES:
        return "puts empty texts where they are lost, also for episodes that had them"
    if column.key.startswith("data/"):
        return f"{PLACEHOLDER[column.sharded]}, {MARKS}"
    return "puts in what frames tell, or nothing"


def _chunk(bones: Skeleton, column: Column, number: int) -> str:
    """What is wrong with a file of numbers; "" if nothing."""
    path = os.path.join(bones.root, column.key, column.file_name(number))
    wanted = column.rows_per_file * column.row_bytes
    try:
        with open_data(path, "") as file:
            size = os.fstat(file.fileno()).st_size
    except TandemError as error:
        return _reason(error)
    return "" if size == wanted else f"{size} bytes instead of {wanted}"


def _sharded(bones: Skeleton, column: Column, number: int, rows: int) -> str:
    """What is wrong with a file of images or texts, but for their content; "" if nothing."""
    name = column.file_name(number)
    used = min(rows - number * column.rows_per_file, column.rows_per_file)
    try:
        with open_data(os.path.join(bones.root, column.key, name), "") as file:
            index, size = read_index(LocalFile(file.fileno(), name, ""), column, "")
            check_rows(index[:used], size, column, "")
    except TandemError as error:
        return _reason(error)
    return ""


def _groups(bones: Skeleton) -> Iterator[Flaw]:
    for group in ("data", "meta"):
        where = f"{group}/{ROOT_FILE}"
        try:
            found = read_json(LocalPlace(bones.root), where, "")
            fine = isinstance(found, dict) and (found.get("zarr_format"), found.get("node_type")) == (3, "group")
            reason = "" if fine else "no group of Zarr 3"
        except TandemError as error:
            reason = _reason(error)
        if reason:
            yield Flaw(Kind.GROUP, where, reason, "writes it anew", column=group)


def strangers(bones: Skeleton) -> Iterator[Flaw]:
    """Folders that are no array's, and files beside them."""
    known = {column.key for column in (EPISODE_ENDS, *bones.columns)}
    for folder, allowed in (("", {"data", "meta"}), ("data", known), ("meta", known)):
        path = os.path.join(bones.root, folder)
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else []:
            key = os.path.join(folder, name)
            if name == ROOT_FILE + PARTIAL:
                yield Flaw(Kind.LEFTOVER, key, "left over from something that was interrupted", "removes it")
            elif key not in allowed and name != ROOT_FILE:
                yield _extra(key)


def _beside(bones: Skeleton) -> Iterator[Flaw]:
    beside = beside_of(os.path.abspath(bones.root))
    if os.path.lexists(beside):
        yield Flaw(Kind.LEFTOVER, beside, "left over from a rewriting that was interrupted", "removes it")


def _extra(where: str) -> Flaw:
    return Flaw(Kind.EXTRA, where, "no part of a store", "", Level.WARNING)


def _number(name: str, column: Column) -> int:
    digits = name.removeprefix("c.").removesuffix(".0" * len(column.row))
    return int(digits) if digits.isdecimal() and len(digits) < 18 else -1


def _reason(error: TandemError) -> str:
    """A message without its place, which the flaw tells."""
    return str(error).removeprefix(": ")
