"""Rows of an open episode on their way to the disk: raw in blocks, then encoded in parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tandem_datasets.checksums import EpisodeChecksum
from tandem_datasets.codecs import Codec
from tandem_datasets.frames import Frame
from tandem_datasets.layout import Column

_BLOCK_BYTES = 3 << 20  # of images in a block, unless a single frame has more
_BLOCK_ROWS = 32  # at most
TEXTS = ("instruction", "subgoal")  # columns that hold codes of texts


@dataclass(frozen=True)
class Part:
    """Consecutive encoded rows."""

    images: Mapping[str, list[bytes]]
    numbers: Mapping[str, np.ndarray]  # every other column under data/ but "instruction" and "subgoal"
    instructions: list[str]
    subgoals: list[str] = field(default_factory=list)  # none where the columns have no "subgoal"

    @property
    def image_bytes(self) -> int:
        return sum(len(row) for rows in self.images.values() for row in rows)


class Block:
    """Raw frames: memory that is filled, encoded and filled again."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        images = {key: column for key, column in columns.items() if column.codec is not None}
        row_bytes = sum(column.row_bytes for column in images.values())
        self.capacity = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(row_bytes, 1)))
        self.bytes = self.capacity * row_bytes
        self.count = 0
        self._instructions = [""] * self.capacity
        self._subgoals = [""] * (self.capacity if "subgoal" in columns else 0)
        self.images = {key: np.empty((self.capacity, *c.row), c.dtype) for key, c in images.items()}
        self._numbers = {
            key: np.zeros((self.capacity, *c.row), c.dtype)
            for key, c in columns.items()
            if key not in images and key not in TEXTS
        }
        self._codecs = {key: column.codec for key, column in images.items()}

    def put(self, frame: Frame, numbers: Mapping[str, object]) -> None:
        """Copies a frame that was found right, with its ``numbers`` as ``episode.FrameCheck`` gives them."""
        row, columns = self.count, self._numbers
        for key, image in frame.observation.images.items():
            self.images[key][row] = image
        columns["state"][row] = frame.observation.state
        columns["action"][row] = frame.action
        columns["action_requested"][row] = 0 if frame.requested is None else frame.requested
        columns["action_label"][row] = 0 if frame.label is None else frame.label
        for key, number in numbers.items():
            columns[key][row] = number
        self._instructions[row] = frame.observation.instruction
        if self._subgoals:
            self._subgoals[row] = frame.subgoal
        self.count += 1  # last: what was put in halfway is put over

    def encoded(self) -> Part:
        """What it holds, in memory of its own."""
        images = {key: _encoded(self._codecs[key], rows[: self.count]) for key, rows in self.images.items()}
        numbers = {key: rows[: self.count].copy() for key, rows in self._numbers.items()}
        return Part(images, numbers, self._instructions[: self.count], self._subgoals[: self.count])

    def clear(self) -> None:
        """Makes room for other frames."""
        self.count = 0


def _encoded(codec: Codec | None, rows: np.ndarray) -> list[bytes]:
    assert codec is not None
    return [codec.encode(row) for row in rows]


class EpisodeRows:
    """The encoded rows of one episode, as far as they are in memory.

    They are taken to the disk in order. As long as none of them was released all can be taken once more.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.count = 0  # rows of the whole episode, so far
        self.promised = 0  # as many as there must be in the end
        self.released = False  # whether some are only on the disk
        self.dropped = False  # nobody wants it any more
        self.checksum = EpisodeChecksum(columns)
        self.waiting_rows = self.waiting_bytes = 0  # not taken
        self._parts: list[Part] = []
        self._taken = 0  # of the parts

    def add(self, part: Part) -> None:
        """The next rows."""
        self._parts.append(part)
        self.count += len(part.instructions)
        self.waiting_rows += len(part.instructions)
        self.waiting_bytes += part.image_bytes
        for key, rows in part.images.items():
            self.checksum.add(key, rows)
        for key, values in part.numbers.items():
            self.checksum.add(key, (values.tobytes(),))

    @property
    def waiting(self) -> list[Part]:
        """Parts that were not taken."""
        return self._parts[self._taken :]

    @property
    def taken(self) -> bool:
        """Whether the writer has some of those that are in memory."""
        return self._taken > 0

    @property
    def wordings(self) -> list[str]:
        """Texts of rows that were not taken."""
        return [text for part in self.waiting for text in part.instructions]

    @property
    def subgoals(self) -> list[str]:
        """Subgoals of rows that were not taken."""
        return [text for part in self.waiting for text in part.subgoals]

    def take(self, codes: Mapping[str, np.ndarray]) -> None:
        """All waiting parts are taken, their texts with these codes by column."""
        for key, values in codes.items():
            self.checksum.add(key, (values.tobytes(),))
        self._taken = len(self._parts)
        self.waiting_rows = self.waiting_bytes = 0

    def release(self) -> None:
        """What was taken is on the disk, and its memory is given back."""
        del self._parts[: self._taken]
        self._taken, self.released = 0, True

    def take_back(self) -> None:
        """All rows wait again."""
        assert not self.released
        self._taken = 0
        for key in TEXTS:
            self.checksum.restart(key)
        self.waiting_rows = self.count
        self.waiting_bytes = sum(part.image_bytes for part in self._parts)
