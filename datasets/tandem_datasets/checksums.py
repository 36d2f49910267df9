"""What tells whether an episode is still what was recorded: CRC-32C (Castagnoli) over its stored rows.

Each column of ``data/`` has a running checksum of its own, over its rows as they lie on the disk: encoded images one
after the other, little-endian numbers. The episode's is that of these checksums, 4 little-endian bytes each, in the
order of ``layout.frame_columns``. So it can be kept while rows arrive, whatever order the columns are written in.
"""

from collections.abc import Iterable, Mapping


class EpisodeChecksum:
    """Grows with an episode's rows.

    Args:
        columns: keys under ``data/``, in the order of ``layout.frame_columns``.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._sums: dict[str, int] = dict.fromkeys(columns, 0)

    def add(self, key: str, rows: Iterable[bytes]) -> None:
        """The next stored bytes of one column; how they are cut makes no difference."""
        from google_crc32c import extend

        value = self._sums[key]
        for row in rows:
            value = extend(value, row)
        self._sums[key] = value

    def restart(self, key: str) -> None:
        """Forgets the rows of one column, where there is one of that name."""
        if key in self._sums:
            self._sums[key] = 0

    @property
    def value(self) -> int:
        """The episode's checksum, 32 bits."""
        return crc32c(b"".join(value.to_bytes(4, "little") for value in self._sums.values()))


def checksum_of(columns: Mapping[str, Iterable[bytes]]) -> int:
    """The checksum of a whole episode from its columns, which come in the order of ``layout.frame_columns``."""
    total = EpisodeChecksum(columns)
    for key, rows in columns.items():
        total.add(key, rows)
    return total.value


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes."""
    from google_crc32c import value

    return value(data)
