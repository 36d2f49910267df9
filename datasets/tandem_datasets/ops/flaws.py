"""What is wrong with a store, and what can be done about it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    BROKEN = "broken"  # something that the layout promises does not hold
    WARNING = "warning"  # worth a look; the store is as it should be


class Kind(StrEnum):
    """What it is, for machines."""

    ROOT = "root"  # no store that this code reads
    GROUP = "group"  # the zarr.json of data or meta
    METADATA = "metadata"  # an array's zarr.json
    SHAPE = "shape"  # rows in zarr.json are not those that are committed
    CHUNK = "chunk"  # a file of numbers is missing or of the wrong size
    SHARD = "shard"  # a file of images or texts is missing, truncated or damaged
    LEFTOVER = "leftover"  # of something that was interrupted
    EXTRA = "extra"  # not ours
    PROVENANCE = "provenance"
    CODE = "code"  # a number that stands for no text or no source
    UUID = "uuid"
    TIME = "time"  # stamps that go backwards, lie after their tick or outside of the episode
    CHECKSUM = "checksum"
    IMAGE = "image"  # cannot be decoded
    NUMBER = "number"  # NaN, infinite, or neither true nor false
    LIMITS = "limits"
    OUTCOME = "outcome"
    DELETED = "deleted"  # damage in an episode that is marked as deleted
    WRITER = "writer"  # somebody is writing


@dataclass(frozen=True)
class Flaw:
    """One line of what ``validate`` finds."""

    kind: Kind
    where: str  # "data/top/c.3.0.0.0", "meta/uuid", "episode 7"
    found: str
    remedy: str = ""  # what repair does; "": nothing
    level: Level = Level.BROKEN
    episode: int = -1  # that it is about, where it is about one
    column: str = ""  # key of the array that it is about
    number: int = -1  # of the file in it

    def __str__(self) -> str:
        return f"{self.where}: {self.found}"
