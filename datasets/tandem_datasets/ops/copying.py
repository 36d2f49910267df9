"""Episodes out of stores into a new one: their stored bytes are copied, and compared with their checksums on the way.

Images are decoded and encoded only where the two stores have different codecs.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from tandem_datasets.checksums import EpisodeChecksum
from tandem_datasets.codecs import Codec, codec_by_name
from tandem_datasets.errors import TandemError
from tandem_datasets.facts import texts_by_code
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.layout import CHUNK_ROWS, SHARD_ROWS, Column, frame_columns
from tandem_datasets.parts import EpisodeRows, Part
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store
from tandem_datasets.writer import StoreWriter

_WRITTEN_AT = 8 << 20  # bytes of images that wait in memory
_COMMIT_BYTES, _COMMIT_EPISODES = 256 << 20, 4096  # that are confirmed by the disk together
_THREADS = 2  # that encode anew


@dataclass(frozen=True)
class Cut:
    """An episode, or a part of it, as it goes into another store."""

    store: Store
    episode: int
    info: EpisodeInfo  # as it will be there
    first: int = 0  # frames of the episode that go there: from this one
    last: int | None = None  # to the one before this; None: to the end
    texts: Mapping[str, str] = field(default_factory=dict)  # instructions of frames that become others
    truncate: bool = False  # whether the last frame says that the episode was cut off there


def whole(store: Store, episodes: Sequence[int] | np.ndarray) -> list[Cut]:
    """Episodes as they are, but for the mark of deletion."""
    infos = store.infos()
    return [Cut(store, int(episode), replace(infos[int(episode)], deleted=False)) for episode in episodes]


def copy_episodes(cuts: Sequence[Cut], writer: StoreWriter, codec: Codec, progress: Progress = silent) -> None:
    """Appends all ``cuts`` to the store that ``writer`` holds; nobody else looks at it before that is done.

    Raises:
        TandemError: an episode is damaged.
        OSError: the disk refuses.
    """
    infos = [cut.info for cut in cuts]
    names = [name for info in infos for name in (info.outcome, info.failure_reason, info.env)]
    writer.prepare_texts(_instructions(cuts), names)
    finished: list[tuple[EpisodeRows, EpisodeInfo]] = []
    waiting = unconfirmed = 0
    readers: dict[int, _Reader] = {}
    with ThreadPoolExecutor(_THREADS, "tandem-encode") as pool:
        for done, cut in enumerate(cuts, 1):
            reader = readers.get(id(cut.store))
            if reader is None:
                reader = readers[id(cut.store)] = _Reader(cut.store, codec, pool)
            rows = EpisodeRows(reader.target)
            for part in reader.parts(cut):
                rows.add(part)
                waiting += part.image_bytes
                unconfirmed += part.image_bytes
                writer.take(rows)
                rows.release()  # should the disk refuse, nothing of the new store is kept
                if waiting > _WRITTEN_AT:
                    writer.write()
                    waiting = 0
            finished.append((rows, cut.info))
            if unconfirmed > _COMMIT_BYTES or len(finished) >= _COMMIT_EPISODES:
                writer.commit(finished)
                finished, waiting, unconfirmed = [], 0, 0
            progress(done, len(cuts), "episodes")
        if finished:
            writer.commit(finished)


def _instructions(cuts: Sequence[Cut]) -> list[str]:
    """All texts that the cuts use, those of the tasks first."""
    found = dict.fromkeys(cut.info.instruction for cut in cuts)
    codes: dict[int, np.ndarray] = {}
    for cut in cuts:
        if id(cut.store) not in codes:
            codes[id(cut.store)] = cut.store.load("instruction")
        rows = cut.store.episode_slice(cut.episode)
        kept = codes[id(cut.store)][rows][cut.first : cut.last]
        texts = texts_by_code(np.unique(kept), cut.store.instructions, f"{cut.store.where}: data/instruction")
        found |= dict.fromkeys(cut.texts.get(text, text) for text in texts)
    return list(found)


class _Reader:
    """Stored rows of one store as parts for another."""

    def __init__(self, store: Store, codec: Codec, pool: ThreadPoolExecutor) -> None:
        mine = frame_columns(store.embodiment, codec_by_name(store.codec, store.where))
        self.target = frame_columns(store.embodiment, codec)
        self._store, self._pool = store, pool
        self._checksums = store.load_episodes("checksum")
        self._keys = list(mine)
        self._images = [key for key, column in mine.items() if column.codec is not None]
        self._changed = {key for key in self._images if _chain(mine[key]) != _chain(self.target[key])}
        self._block: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def parts(self, cut: Cut) -> Iterator[Part]:
        """The cut's rows; raises TandemError after the last one if the episode does not fit its checksum."""
        rows = self._store.episode_slice(cut.episode)
        first = rows.start + cut.first
        last = rows.stop if cut.last is None else rows.start + cut.last
        assert rows.start <= first < last <= rows.stop
        checksum = EpisodeChecksum(self._keys)
        start = rows.start
        while start < rows.stop:
            stop = min(rows.stop, start - start % SHARD_ROWS + SHARD_ROWS)
            images, numbers = self._read(start, stop, checksum)
            keep = slice(max(first - start, 0), max(min(last, stop) - start, 0))
            if keep.start < keep.stop:
                yield self._part(cut, images, numbers, keep, start + keep.stop == last)
            start = stop
        wanted = int(self._checksums[cut.episode])
        if checksum.value != wanted:
            raise TandemError(
                f"{self._store.where}: episode {cut.episode} is damaged: its checksum is {checksum.value:08x}, not "
                f"{wanted:08x} (validate with repair=true marks it as deleted, compact leaves it out)"
            )

    def _read(
        self, start: int, stop: int, checksum: EpisodeChecksum
    ) -> tuple[dict[str, list[bytes]], dict[str, np.ndarray]]:
        """Rows that lie in one shard, and in one chunk."""
        block = start // CHUNK_ROWS
        if self._block[0] != block:
            bounds = block * CHUNK_ROWS, min((block + 1) * CHUNK_ROWS, self._store.n_frames)
            keys = [key for key in self._keys if key not in self._images]
            self._block = block, {key: self._store.load(key, *bounds) for key in keys}
        at = slice(start - block * CHUNK_ROWS, stop - block * CHUNK_ROWS)
        numbers = {key: values[at] for key, values in self._block[1].items()}
        images = {key: self._store.stored(key, start, stop) for key in self._images}
        for key, encoded in images.items():
            checksum.add(key, encoded)
        for key, values in numbers.items():
            checksum.add(key, (values.tobytes(),))
        for key in self._changed:
            images[key] = self._encoded(key, start, stop)
        return images, numbers

    def _encoded(self, key: str, start: int, stop: int) -> list[bytes]:
        codec = self.target[key].codec
        assert codec is not None
        return list(self._pool.map(codec.encode, self._store.load(key, start, stop)))

    def _part(
        self, cut: Cut, images: dict[str, list[bytes]], numbers: dict[str, np.ndarray], keep: slice, ends: bool
    ) -> Part:
        kept = {key: values[keep] for key, values in numbers.items()}
        where = f"{self._store.where}: episode {cut.episode}: instruction"
        texts = texts_by_code(kept.pop("instruction"), self._store.instructions, where)
        subgoals = texts_by_code(kept.pop("subgoal"), self._store.names, where) if "subgoal" in kept else []
        if ends and cut.truncate:
            kept["truncated"] = kept["truncated"].copy()
            kept["truncated"][-1] = not kept["terminated"][-1]
        return Part(
            images={key: encoded[keep] for key, encoded in images.items()},
            numbers=kept,
            instructions=[cut.texts.get(text, text) for text in texts],
            subgoals=subgoals,
        )


def _chain(column: Column) -> object:
    assert column.codec is not None
    assert column.dtype is not None
    return column.codec.chain(column.dtype)
