"""Which arrays a store has, and what their ``zarr.json`` says: all of it follows from embodiment and codec.

``data/*`` has a row per frame, ``meta/*`` a row per episode; ``meta/instructions`` and ``meta/names`` are tables of
texts that others refer to by row, and ``meta/provenance`` is JSON texts end to end. The
convention (concatenated episodes, cumulative ``episode_ends``) is Diffusion Policy's.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tandem_datasets.codecs import TEXT_CHAIN, Codec, bytes_codec, codec_by_name
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError

SCHEMA = 1
SHARD_ROWS = 256  # images and texts: one row per inner chunk, this many in a file
CHUNK_ROWS = 4096  # vectors and numbers: rows in a file
TEXT_BYTES = 1 << 20  # of one text, at most
TEXT_ROWS = 1 << 20  # of meta/provenance, whose rows are single bytes
STATE_STREAM = "state"
CHECKSUM = "crc32c"

_COUNT_DIGITS = 19  # the row count in a zarr.json is padded to this width, so that it can be changed in place
_COUNT_START = b'{"shape": ['

_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_COMPARED = ("zarr_format", "node_type", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")


@dataclass(frozen=True)
class Column:
    """One array. Images (``codec``) and wordings (no ``dtype``) are sharded, the rest is plain chunks."""

    key: str  # path in the store: "data/state"
    dtype: np.dtype | None  # None: text
    row: tuple[int, ...] = ()  # shape of one row
    codec: Codec | None = None  # of images
    chunk_rows: int = CHUNK_ROWS

    @property
    def sharded(self) -> bool:
        return self.codec is not None or self.dtype is None

    @property
    def rows_per_file(self) -> int:
        return SHARD_ROWS if self.sharded else self.chunk_rows

    @cached_property
    def row_bytes(self) -> int:
        """Size of one decoded row; texts have none."""
        assert self.dtype is not None
        return math.prod(self.row) * self.dtype.itemsize

    @cached_property
    def most_bytes(self) -> int:
        """More than an encoded row of a sharded column ever has; an index that says more is not believed."""
        return TEXT_BYTES + 64 if self.dtype is None else 2 * self.row_bytes + (64 << 10)

    def file_name(self, index: int) -> str:
        """The shard or chunk that holds rows from ``index * rows_per_file``."""
        return f"c.{index}" + ".0" * len(self.row)

    def files(self, rows: int) -> int:
        """How many shards or chunks ``rows`` rows take; none if rows are empty."""
        empty = not self.sharded and not self.row_bytes
        return 0 if empty else -(-rows // self.rows_per_file)

    def metadata(self, rows: int) -> dict[str, Any]:
        """``zarr.json`` of the array with ``rows`` rows, as zarr-python would write it."""
        inner = [max(1, side) for side in self.row]  # Zarr has no chunks of size 0
        return {
            "shape": [rows, *self.row],
            "data_type": "string" if self.dtype is None else self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.rows_per_file, *inner]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "" if self.dtype is None else self.dtype.type(0).item(),
            "codecs": self._codecs(inner),
            "attributes": {},
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }

    def metadata_bytes(self, rows: int) -> bytes:
        """:meth:`metadata` as file content, with :meth:`count_bytes` at :attr:`count_offset`."""
        return self._template[: self.count_offset] + self.count_bytes(rows) + self._template[self.count_offset + 1 :]

    count_offset = len(_COUNT_START)

    @staticmethod
    def count_bytes(rows: int) -> bytes:
        """The row count as it stands in :meth:`metadata_bytes`, always of the same length."""
        return b"%*d" % (_COUNT_DIGITS, rows)

    def check_metadata(self, found: Any, where: str) -> int:
        """Rows that ``found`` (a parsed ``zarr.json``) declares; raises TandemError if it is another array."""
        if not isinstance(found, Mapping):
            raise TandemError(f"{where}: zarr.json of '{self.key}' is no mapping")
        wanted = self.metadata(0)
        for key in _COMPARED:
            if found.get(key) != wanted[key]:
                raise TandemError(f"{where}: '{self.key}' has {key} {found.get(key)!r:.80} (allowed: {wanted[key]})")
        shape = found.get("shape")
        if not isinstance(shape, list) or len(shape) != 1 + len(self.row) or tuple(shape[1:]) != self.row:
            raise TandemError(f"{where}: '{self.key}' has shape {shape!r:.80} (allowed: {['N', *self.row]})")
        rows = shape[0]
        if type(rows) is not int or not 0 <= rows < 2**62:
            raise TandemError(f"{where}: '{self.key}' has {rows!r:.40} rows (allowed: a count)")
        return rows

    @cached_property
    def _template(self) -> bytes:
        template = json.dumps(self.metadata(0)).encode()
        assert template.startswith(_COUNT_START + b"0")
        return template

    def _codecs(self, inner: list[int]) -> list[dict[str, Any]]:
        if not self.sharded:
            assert self.dtype is not None
            return [bytes_codec(self.dtype)]
        chain = TEXT_CHAIN if self.codec is None or self.dtype is None else self.codec.chain(self.dtype)
        sharding = {
            "chunk_shape": [1, *inner],
            "codecs": chain,
            "index_codecs": _INDEX_CODECS,
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": sharding}]


def _number(key: str, dtype: type, row: tuple[int, ...] = ()) -> Column:
    return Column(key, np.dtype(dtype), row)


EPISODE_ENDS = _number("meta/episode_ends", np.int64)
INSTRUCTIONS = Column("meta/instructions", None)
NAMES = Column("meta/names", None)
DELETED = _number("meta/deleted", np.bool_)  # the only one that is changed afterwards, in place
EPISODE_COLUMNS = (
    _number("meta/uuid", np.uint8, (16,)),
    _number("meta/seed", np.int64),
    _number("meta/task", np.int32),  # row of INSTRUCTIONS; these and the three below need no text per episode
    _number("meta/success", np.bool_),
    _number("meta/outcome", np.int32),  # row of NAMES
    _number("meta/failure_reason", np.int32),  # row of NAMES
    _number("meta/env", np.int32),  # row of NAMES
    DELETED,
    _number("meta/begin_ns", np.int64),
    _number("meta/end_ns", np.int64),
    _number("meta/checksum", np.uint32),  # see ``checksums``
)
# JSON texts of all episodes end to end, and where each ends. They grow in place, whereas an array of strings would be
# rewritten at each commit.
PROVENANCE = Column("meta/provenance", np.dtype(np.uint8), chunk_rows=TEXT_ROWS)
PROVENANCE_ENDS = _number("meta/provenance_ends", np.int64)


def streams(embodiment: Embodiment) -> tuple[str, ...]:
    """The streams that carry their own stamps: cameras, and the state where there is one."""
    names = tuple(camera.name for camera in embodiment.cameras)
    return (*names, STATE_STREAM) if embodiment.state else names


def frame_columns(embodiment: Embodiment, codec: Codec) -> dict[str, Column]:
    """The arrays under ``data/`` by their short key; raises TandemError if a camera takes another's name."""
    images = [Column(f"data/{camera.name}", camera.dtype, camera.shape, codec) for camera in embodiment.cameras]
    actions = [
        _number(f"data/{key}", np.float32, (embodiment.action_dim,))
        for key in ("action", "action_requested", "action_label")
    ]
    flags = [
        _number(f"data/{key}", np.bool_) for key in ("has_requested", "has_label", "terminated", "truncated", "success")
    ]
    columns = [
        *images,
        _number("data/state", np.float32, (embodiment.state_dim,)),
        *actions,
        *flags,
        _number("data/source", np.uint8),
        _number("data/reward", np.float64),
        _number("data/instruction", np.int32),
        *([_number("data/subgoal", np.int32)] if embodiment.tells_subgoals else []),  # row of NAMES
        _number("data/stamp", np.int64),
        *(_number(f"data/stamp_{stream}", np.int64) for stream in streams(embodiment)),
    ]
    by_key = {column.key.removeprefix("data/"): column for column in columns}
    if len(by_key) != len(columns):
        keys = [column.key.removeprefix("data/") for column in columns]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise TandemError(f"embodiment '{embodiment.name}': camera names collide with store arrays {twice}")
    return by_key


def root_metadata(embodiment: Embodiment, codec: Codec) -> dict[str, Any]:
    """The store's top ``zarr.json``."""
    attributes = {
        "tandem_schema": SCHEMA,
        "codec": codec.name,
        "checksum": CHECKSUM,
        "embodiment": embodiment.to_dict(),
    }
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


GROUP_METADATA = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


def parse_root(found: Any, where: str) -> tuple[Embodiment, Codec]:
    """Embodiment and codec from an untrusted top ``zarr.json``; raises TandemError if it is not ours."""
    attributes = found.get("attributes") if isinstance(found, Mapping) else None
    if not isinstance(attributes, Mapping) or "tandem_schema" not in attributes:
        raise TandemError(f"{where}: not a Tandem store (zarr.json has no attribute tandem_schema)")
    schema = attributes["tandem_schema"]
    if type(schema) is not int or schema < 1:
        raise TandemError(f"{where}: tandem_schema is {schema!r:.40} (allowed: 1..{SCHEMA})")
    if schema > SCHEMA:
        raise TandemError(f"{where}: written by a newer Tandem (schema {schema}; this one reads up to {SCHEMA})")
    if "checksum" not in attributes:
        raise TandemError(f"{where}: its layout is of a time before the first release (record or make it again)")
    if attributes["checksum"] != CHECKSUM:
        raise TandemError(f"{where}: checksum is {attributes['checksum']!r:.40} (allowed: '{CHECKSUM}')")
    codec = codec_by_name(attributes.get("codec", ""), where)
    return Embodiment.from_dict(attributes.get("embodiment"), f"{where}: embodiment"), codec  # type: ignore[arg-type]
