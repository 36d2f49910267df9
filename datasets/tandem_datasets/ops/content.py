"""Whether what the files of a store hold is right: the facts of episodes, and frame by frame what was recorded."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tandem_datasets.checksums import EpisodeChecksum
from tandem_datasets.codecs import codec_by_name
from tandem_datasets.embodiment import ActionScalar, StateScalar
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.layout import PROVENANCE, PROVENANCE_ENDS, SHARD_ROWS, frame_columns, streams
from tandem_datasets.ops.flaws import Flaw, Kind, Level
from tandem_datasets.ops.structure import Skeleton
from tandem_datasets.reading import read_array
from tandem_datasets.store import Store

DELETES = "marks it as deleted"
_FLAGS = ("has_requested", "has_label", "terminated", "truncated", "success")
_CODED = {"task": "instructions", "outcome": "names", "failure_reason": "names", "env": "names"}


@dataclass(frozen=True)
class Found:
    """Of one episode."""

    flaws: list[Flaw] = field(default_factory=list)
    beyond: dict[str, tuple[int, float]] = field(
        default_factory=dict
    )  # scalar -> frames outside limits, farthest value


class EpisodeCheck:
    """Looks at all frames of an episode. It can be pickled, so that processes share the work.

    Args:
        store: that is checked.
        decode: whether images are decoded, too; their bytes are compared with the checksum in any case.
    """

    def __init__(self, store: Store, decode: bool = True) -> None:
        self._store, self._decode = store, decode
        self._facts = {key: store.load_episodes(key) for key in ("checksum", "begin_ns", "end_ns")}
        self._deleted = store.load_episodes("deleted").view(np.uint8) != 0
        self._columns = frame_columns(store.embodiment, codec_by_name(store.codec, store.where))

    def __call__(self, episode: int) -> Found:
        """What is wrong with it; damage of one that is marked as deleted is only a warning."""
        try:
            found = Found(*self._look(episode))
        except TandemError as error:
            reason = str(error).removeprefix(f"{self._store.where}: ")
            found = Found([_flaw(Kind.CHECKSUM, episode, f"cannot be read: {reason}")])
        if found.flaws and self._deleted[episode]:
            words = "; ".join(flaw.found for flaw in found.flaws)
            gone = Flaw(Kind.DELETED, f"episode {episode}", f"damaged and marked as deleted ({words})", "")
            return Found([replace(gone, level=Level.WARNING, episode=episode)])
        return found

    def _look(self, episode: int) -> tuple[list[Flaw], dict[str, tuple[int, float]]]:
        store, rows = self._store, self._store.episode_slice(episode)
        keys = [key for key, column in self._columns.items() if column.codec is None]
        numbers = {key: store.load(key, rows.start, rows.stop) for key in keys}
        flaws: list[Flaw] = []
        checksum = EpisodeChecksum(self._columns)
        for key in self._columns:
            if key in numbers:
                checksum.add(key, (numbers[key].tobytes(),))
            else:
                flaws += self._images(episode, key, rows, checksum)
        wanted = int(self._facts["checksum"][episode])
        if checksum.value != wanted:
            found = f"its checksum is {checksum.value:08x}, recorded was {wanted:08x}"
            flaws.append(_flaw(Kind.CHECKSUM, episode, found))
        flaws += [_flaw(kind, episode, words) for kind, words in self._numbers(numbers)]
        flaws += self._times(episode, numbers)
        return flaws, self._beyond(numbers)

    def _images(self, episode: int, key: str, rows: slice, checksum: EpisodeChecksum) -> list[Flaw]:
        column, store = self._columns[key], self._store
        assert column.codec is not None
        assert column.dtype is not None
        scratch, broken, reason = np.empty(column.row, column.dtype), [], ""
        for start in range(rows.start, rows.stop, SHARD_ROWS):
            encoded = store.stored(key, start, min(start + SHARD_ROWS, rows.stop))
            checksum.add(key, encoded)
            for t, data in enumerate(encoded if self._decode else (), start - rows.start):
                try:
                    column.codec.decode(memoryview(data), scratch)
                except (ValueError, RuntimeError) as error:
                    broken.append(t)
                    reason = reason or " ".join(str(error).split())[:100]
        return [_flaw(Kind.IMAGE, episode, f"{_frames(broken)} of {key} cannot be decoded: {reason}")] if broken else []

    def _numbers(self, numbers: dict[str, np.ndarray]) -> Iterator[tuple[Kind, str]]:
        for key in ("state", "action", "action_requested", "action_label", "reward"):
            bad = ~np.isfinite(numbers[key])
            if bad.any():
                yield Kind.NUMBER, f"{key} is not finite in {_frames(np.flatnonzero(bad.reshape(len(bad), -1).any(1)))}"
        for key in _FLAGS:
            odd = numbers[key].view(np.uint8) > 1
            if odd.any():
                yield Kind.NUMBER, f"{key} is neither true nor false in {_frames(np.flatnonzero(odd))}"
        unknown = numbers["source"] > max(Source)
        if unknown.any():
            yield Kind.CODE, f"source is unknown in {_frames(np.flatnonzero(unknown))}"
        codes = numbers["instruction"]
        unknown = (codes < 0) | (codes >= len(self._store.instructions))
        if unknown.any():
            yield Kind.CODE, f"instruction is no row of the table in {_frames(np.flatnonzero(unknown))}"
        codes = numbers.get("subgoal", np.zeros(0, np.int32))
        unknown = (codes < 0) | (codes >= len(self._store.names))
        if unknown.any():
            yield Kind.CODE, f"subgoal is no row of the table in {_frames(np.flatnonzero(unknown))}"
        stamps = numbers["stamp"]
        back = np.flatnonzero(stamps[1:] <= stamps[:-1]) + 1
        if len(back):
            yield Kind.TIME, f"time does not run forward at {_frames(back)}"
        for stream in streams(self._store.embodiment):
            late = np.flatnonzero(numbers[f"stamp_{stream}"] > stamps)
            if len(late):
                yield Kind.TIME, f"'{stream}' is stamped after its tick in {_frames(late)}"

    def _times(self, episode: int, numbers: dict[str, np.ndarray]) -> list[Flaw]:
        first, last = int(numbers["stamp"][0]), int(numbers["stamp"][-1])
        begin, end = (int(self._facts[key][episode]) for key in ("begin_ns", "end_ns"))
        if begin <= first and last <= end:
            return []
        found = f"its frames are from {first} to {last} ns, the episode is from {begin} to {end} ns"
        return [
            replace(_flaw(Kind.TIME, episode, found), remedy="puts begin and end to its frames", column="meta/end_ns")
        ]

    def _beyond(self, numbers: dict[str, np.ndarray]) -> dict[str, tuple[int, float]]:
        robot = self._store.embodiment
        return _outside("state", numbers["state"], robot.state) | _outside("action", numbers["action"], robot.action)


def _outside(key: str, rows: np.ndarray, scalars: Sequence[StateScalar | ActionScalar]) -> dict[str, tuple[int, float]]:
    """In how many of the rows (T, D) each scalar leaves its limits, and how far; only those that do."""
    found = {}
    for k, scalar in enumerate(scalars):
        values = rows[:, k]
        slack = 1e-6 * (scalar.high - scalar.low)
        outside = (values < np.float32(scalar.low - slack)) | (values > np.float32(scalar.high + slack))
        if outside.any():
            off = values[outside]
            farthest = off[np.argmax(np.abs(off - (scalar.low + scalar.high) / 2))]
            name = f"{key} '{scalar.name}' leaves {scalar.low:g}..{scalar.high:g} {scalar.unit}"
            found[name] = int(outside.sum()), float(farthest)
    return found


def limits_warnings(found: Sequence[Found]) -> list[Flaw]:
    """One line for each scalar that leaves its limits, of all episodes."""
    frames: Counter[str] = Counter()
    episodes: Counter[str] = Counter()
    farthest: dict[str, float] = {}
    for each in found:
        for name, (count, value) in each.beyond.items():
            frames[name] += count
            episodes[name] += 1
            farthest[name] = max(farthest.get(name, value), value, key=abs)
    return [
        Flaw(
            Kind.LIMITS,
            "limits",
            f"{name} in {count} frames of {episodes[name]} episodes, as far as {farthest[name]:g}",
            level=Level.WARNING,
        )
        for name, count in frames.items()
    ]


def check_facts(store: Store, bones: Skeleton) -> list[Flaw]:
    """What the columns under ``meta/`` say of the episodes, as far as that needs no frames."""
    flaws: list[Flaw] = []
    for key, table in _CODED.items():
        codes, count = store.load_episodes(key), len(getattr(store, table))
        for episode in np.flatnonzero((codes < 0) | (codes >= count)).tolist():
            found = f"code {int(codes[episode])} of episode {episode} is no row of meta/{table}"
            remedy = "takes it from the first frame" if key == "task" else "leaves it empty"
            flaws.append(Flaw(Kind.CODE, f"meta/{key}", found, remedy, episode=episode, column=f"meta/{key}"))
    for key in ("success", "deleted"):
        for episode in np.flatnonzero(store.load_episodes(key).view(np.uint8) > 1).tolist():
            found = f"episode {episode} is neither true nor false"
            flaws.append(
                Flaw(Kind.NUMBER, f"meta/{key}", found, "sets it to false", episode=episode, column=f"meta/{key}")
            )
    return [*flaws, *_provenance(bones), *_duplicates(store), *_outcomes(store, flaws)]


def _provenance(bones: Skeleton) -> Iterator[Flaw]:
    if bones.provenance_bytes is None or not len(bones.ends):
        return
    ends = read_array(bones.root, PROVENANCE_ENDS, 0, len(bones.ends), bones.where)
    try:
        text = read_array(bones.root, PROVENANCE, 0, bones.provenance_bytes, bones.where).tobytes()
    except TandemError:
        return  # its file is told of already
    begin = 0
    for episode, end in enumerate(ends.tolist()):
        try:
            fine = isinstance(json.loads(text[begin:end]), dict)
        except (ValueError, RecursionError):
            fine = False
        if not fine:
            remedy = "empties it" if end - begin > 1 else ""
            where = f"episode {episode}"
            yield Flaw(
                Kind.PROVENANCE,
                where,
                "its provenance is no JSON object",
                remedy,
                episode=episode,
                column=PROVENANCE.key,
            )
        begin = end


def _duplicates(store: Store) -> Iterator[Flaw]:
    """Of episodes that are not deleted: a mark is a way to be rid of one of them."""
    uuids, sums = store.load_episodes("uuid"), store.load_episodes("checksum")
    first: dict[bytes, int] = {}
    for episode in np.flatnonzero(store.load_episodes("deleted").view(np.uint8) == 0).tolist():
        before = first.setdefault(uuids[episode].tobytes(), episode)
        if before != episode:
            same = bool(sums[before] == sums[episode])
            remedy = DELETES if same else "gives it another uuid"
            found = f"has the uuid of episode {before}{' and its very rows' * same}"
            yield Flaw(Kind.UUID, f"episode {episode}", found, remedy, episode=episode, column="meta/uuid")


def _outcomes(store: Store, flaws: Sequence[Flaw]) -> Iterator[Flaw]:
    if any(flaw.column == "meta/outcome" for flaw in flaws):
        return
    success = store.load_episodes("success").view(np.uint8) != 0
    for episode, outcome in enumerate(store.episode_texts("outcome")):
        if outcome not in ("", "unknown") and (outcome == "success") != success[episode]:
            found = f"outcome '{outcome}', but success is {str(bool(success[episode])).lower()}"
            yield Flaw(Kind.OUTCOME, f"episode {episode}", found, level=Level.WARNING, episode=episode)


def _flaw(kind: Kind, episode: int, found: str) -> Flaw:
    return Flaw(kind, f"episode {episode}", found, DELETES, episode=episode)


def _frames(frames: Sequence[int] | np.ndarray) -> str:
    """``frame 3`` or ``5 frames (first 3)``."""
    return f"frame {frames[0]}" if len(frames) == 1 else f"{len(frames)} frames (first {frames[0]})"
