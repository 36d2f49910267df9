"""Episodes from a recording of any topics: what a map says of them, put together tick by tick."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.bag_facts import RUNNING, info_from_facts, listed_topics
from tandem_datasets.formats.bag_index import Stream, decoded, read_index
from tandem_datasets.formats.bag_map import BagMap, CameraEntry
from tandem_datasets.formats.bag_values import Vectors, action_of, read_vectors, state_of
from tandem_datasets.formats.bags import SUFFIXES, Bag, bag_files, natural
from tandem_datasets.formats.foreign import episode_uuid, plain_name
from tandem_datasets.formats.pictures import compressed_picture, fitted, raw_picture
from tandem_datasets.formats.ros_messages import COMPRESSED, DIAGNOSTICS, IMAGE, STRING, read_facts
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source

_MAX_TICKS = 10_000_000  # of an episode, before memory is taken for them
_TOO_OLD = 2.5  # periods of a stream after which its newest message counts as a gap


@dataclass(frozen=True)
class _Recording:
    """One bag: where its messages lie, in the order of their stamps, and the vectors in them."""

    path: str
    streams: Mapping[str, Stream]
    state: tuple[Vectors, ...]
    action: tuple[Vectors, ...]


@dataclass(frozen=True)
class _Episode:
    recording: int
    ticks: np.ndarray  # int64 ns (T,)
    info: EpisodeInfo


class MappedSource:
    """See ``formats.Source``. Raises TandemError: a topic is missing, or a message does not fit the map.

    Args:
        path: a recording, or a folder of recordings.
        plan: which topics mean what.
    """

    def __init__(self, path: str, plan: BagMap) -> None:
        self._plan = plan
        self._bags: dict[str, Bag] = {}
        names: dict[int, tuple[str, ...]] = {}
        self._recordings = [self._read(place, names) for place in recordings(Path(path))]
        self.embodiment = self._embodiment(path)
        self._digest = self.embodiment.digest
        self._episodes = [
            episode for number in range(len(self._recordings)) for episode in self._cut(number) if len(episode.ticks)
        ]
        if not self._episodes:
            raise TandemError(f"bag {path}: at no time are there messages of all topics of the map")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bags": {}}  # their files are opened again

    @property
    def n_episodes(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterator[Frame]]:
        """One episode; pictures are read as they are asked for."""
        if not 0 <= index < len(self._episodes):
            raise TandemError(f"no episode {index} (there are {len(self._episodes)})")
        found = self._episodes[index]
        return found.info, self._frames(found)

    # -- reading

    def _bag(self, path: str) -> Bag:
        if path not in self._bags:
            self._bags[path] = Bag(path)
        return self._bags[path]

    def _read(self, path: Path, names: dict[int, tuple[str, ...]]) -> _Recording:
        bag, plan = self._bag(str(path)), self._plan
        missing = [topic for topic in plan.topics if topic not in bag.topics]
        if missing:
            raise TandemError(f"{bag.where}: no topics {missing} (it has: {listed_topics(bag)})")
        for camera in plan.cameras:
            if bag.topics[camera.topic].type not in (IMAGE, COMPRESSED):
                raise TandemError(
                    f"{bag.where}: camera {camera.name}: {camera.topic} is {bag.topics[camera.topic].type} "
                    f"(allowed: {IMAGE}, {COMPRESSED})"
                )
        streams = {topic: _sorted(stream, plan.by_header) for topic, stream in read_index(bag, plan.topics).items()}
        parts = []
        for k, entry in enumerate((*plan.state, *plan.action)):
            vectors = read_vectors(bag, streams[entry.topic], entry, names.get(k, ()))
            names[k] = vectors.names
            parts.append(vectors)
        count = len(plan.state)
        return _Recording(str(path), streams, tuple(parts[:count]), tuple(parts[count:]))

    def _embodiment(self, path: str) -> Embodiment:
        def together(kind: str, k: int) -> Vectors:
            parts = [getattr(recording, kind)[k] for recording in self._recordings]
            values = np.concatenate([part.values for part in parts])
            if not len(values):
                raise TandemError(f"bag {path}: topic {parts[0].entry.topic} has no messages")
            return replace(parts[-1], values=values)

        plan = self._plan
        return Embodiment(
            name=plain_name(plan.name or Path(path).stem) or "recording",
            rate_hz=plan.rate_hz,
            hears_instruction=bool(plan.instruction or plan.instruction_topic),
            cameras=tuple(self._camera(path, entry) for entry in plan.cameras),
            state=state_of([together("state", k) for k in range(len(plan.state))]),
            action=action_of([together("action", k) for k in range(len(plan.action))]),
        )

    def _camera(self, path: str, entry: CameraEntry) -> Camera:
        for recording in self._recordings:
            stream = recording.streams[entry.topic]
            if len(stream):
                pixels = self._picture(recording, entry.topic, 0)
                height, width = entry.size or pixels.shape[:2]
                encoding = Encoding.RGB8 if pixels.dtype == np.uint8 else Encoding.DEPTH
                return Camera(entry.name, height, width, encoding)
        raise TandemError(f"bag {path}: camera {entry.name}: {entry.topic} has no messages")

    def _picture(self, recording: _Recording, topic: str, at: int) -> np.ndarray:
        bag = self._bag(recording.path)
        where = f"{bag.where}: topic {topic}: message {at}"
        message = bag.definition(topic).decode(bag.read(recording.streams[topic].ref(at)), where)
        if bag.topics[topic].type == IMAGE:
            return raw_picture(message, where)
        return compressed_picture(message["data"], where, message["format"])

    # -- cutting

    def _cut(self, number: int) -> Iterator[_Episode]:
        recording, plan = self._recordings[number], self._plan
        seen = [recording.streams[topic] for topic in plan.seen]
        begin = max(int(stream.stamp[0]) if len(stream) else 1 << 62 for stream in seen)
        end = min(int(stream.stamp[-1]) if len(stream) else -(1 << 62) for stream in seen)
        lead = round(plan.action_lead_s * 1e9)
        for entry in plan.action:
            stream = recording.streams[entry.topic]
            begin = max(begin, int(stream.stamp[0]) - lead if len(stream) else 1 << 62)
        for index, (low, high, facts) in enumerate(self._spans(number)):
            first, last, period = max(low, begin), min(high, end), round(1e9 / plan.rate_hz)
            if last - first > _MAX_TICKS * period:
                seconds = (last - first) / 1e9
                raise TandemError(f"bag {recording.path}: an episode of {seconds:.4g} s (are its stamps broken?)")
            ticks = np.arange(first, last + 1, period, dtype=np.int64)
            if len(ticks):
                yield _Episode(number, ticks, self._info(number, index, ticks, facts))

    def _spans(self, number: int) -> list[tuple[int, int, Mapping[str, str]]]:
        """(begin, end, facts) of what the map calls an episode, ns."""
        recording, plan = self._recordings[number], self._plan
        whole = (-(1 << 62), 1 << 62)
        if plan.cut == "topic":
            return self._told_spans(recording)
        if plan.cut == "bag":
            return [(*whole, {})]
        seen = [recording.streams[topic].stamp for topic in plan.seen]
        stamps = np.unique(np.concatenate(seen))
        at = np.flatnonzero(np.diff(stamps) > plan.gap_s * 1e9)
        begins = [whole[0], *stamps[at + 1].tolist()]
        stretches = zip(begins, [*stamps[at].tolist(), whole[1]], strict=True)
        return [(*_all_there(seen, low, high), {}) for low, high in stretches]

    def _told_spans(self, recording: _Recording) -> list[tuple[int, int, Mapping[str, str]]]:
        """By a topic: the contract's ``episode``, a Bool (true while recording), or any message as a begin."""
        bag, topic = self._bag(recording.path), self._plan.episode_topic
        stream, kind = recording.streams[topic], bag.topics[topic].type
        if kind == DIAGNOSTICS:
            found = {}
            for message in decoded(bag, topic, stream):
                word, facts = read_facts(message)
                if word != RUNNING and {"uuid", "begin_ns", "end_ns"} <= set(facts):
                    info = info_from_facts(facts, f"{bag.where}: topic {topic}")
                    found[info.uuid] = (info.begin_ns, info.end_ns, facts)
            return list(found.values())
        spans: list[tuple[int, int, Mapping[str, str]]] = []
        begin: int | None = None
        for stamp, message in zip(stream.stamp.tolist(), decoded(bag, topic, stream), strict=True):
            if begin is not None:
                spans.append((begin, stamp - 1, {}))
            begin = None if message.get("data") is False else stamp
        return spans if begin is None else [*spans, (begin, 1 << 62, {})]

    def _info(self, number: int, index: int, ticks: np.ndarray, facts: Mapping[str, str]) -> EpisodeInfo:
        recording = self._recordings[number]
        read = dict.fromkeys([*self._plan.seen, *(entry.topic for entry in self._plan.action)])
        gaps = {topic: _gaps(recording.streams[topic], ticks) for topic in read}
        names = {part.entry.topic: list(part.names) for part in (*recording.state, *recording.action)}
        imported = {
            "format": "mcap",
            "file": Path(recording.path).name,
            "names": names,
            "gaps": {topic: count for topic, count in gaps.items() if count},
        }
        begin, end = int(ticks[0]), int(ticks[-1])
        told = info_from_facts(facts, f"bag {recording.path}") if facts else None
        info = told or EpisodeInfo(
            seed=0, instruction="", uuid=episode_uuid(f"mcap/{self._digest}/{Path(recording.path).name}/{begin}", index)
        )
        instruction = self._instruction(recording, begin) or info.instruction
        provenance = {**info.provenance, "imported": imported}
        return replace(info, instruction=instruction, begin_ns=begin, end_ns=end, provenance=provenance)

    def _instruction(self, recording: _Recording, tick: int) -> str:
        topic = self._plan.instruction_topic
        if not topic:
            return self._plan.instruction
        bag, stream = self._bag(recording.path), recording.streams[topic]
        at = _newest(stream, tick)
        if at < 0:
            return ""
        message = bag.definition(topic).decode(bag.read(stream.ref(at)), f"{bag.where}: topic {topic}")
        if not isinstance(message.get("data"), str):
            raise TandemError(f"{bag.where}: instruction: {topic} is {bag.topics[topic].type} (allowed: {STRING})")
        return message["data"]

    # -- frames

    def _frames(self, episode: _Episode) -> Iterator[Frame]:
        recording, plan = self._recordings[episode.recording], self._plan
        lead = round(plan.action_lead_s * 1e9)
        last: dict[str, tuple[int, np.ndarray]] = {}
        for k, tick in enumerate(episode.ticks.tolist()):
            stamps, images = {}, {}
            for camera, entry in zip(self.embodiment.cameras, plan.cameras, strict=True):
                at = _newest(recording.streams[entry.topic], tick)
                if camera.name not in last or last[camera.name][0] != at:
                    last[camera.name] = (at, self._fitted(recording, camera, entry, at))
                stamps[camera.name] = int(recording.streams[entry.topic].stamp[at])
                images[camera.name] = last[camera.name][1]
            state, at_ns = _vector(recording, recording.state, tick)
            if recording.state:
                stamps["state"] = at_ns
            action, _ = _vector(recording, recording.action, tick + lead)
            instruction = self._instruction(recording, tick) if plan.instruction_topic else episode.info.instruction
            ended = k == len(episode.ticks) - 1
            seen = Observation(images, state, instruction, tick, stamps)
            yield Frame(seen, action, Source.PERSON, truncated=ended)

    def _fitted(self, recording: _Recording, camera: Camera, entry: CameraEntry, at: int) -> np.ndarray:
        pixels = self._picture(recording, entry.topic, at)
        if pixels.dtype != camera.dtype or (entry.size is None and pixels.shape != camera.shape):
            raise TandemError(
                f"bag {recording.path}: camera {camera.name}: message {at} is {pixels.dtype} {pixels.shape} "
                f"(allowed: {camera.dtype} {camera.shape}, as the first; give it a size)"
            )
        return fitted(pixels, camera.height, camera.width)


def recordings(path: Path) -> list[Path]:
    """The recording at ``path``, or those in it; raises TandemError if there are none."""
    try:
        bag_files(path)
    except TandemError:
        inner = sorted(path.iterdir(), key=lambda each: natural(each.name)) if path.is_dir() else []
        found = [each for each in inner if each.is_dir() and any(file.suffix in SUFFIXES for file in each.iterdir())]
        if not found:
            raise
        return found
    return [path]


def _sorted(stream: Stream, by_header: bool) -> Stream:
    """In the order of stamps; where two are equal, the later one counts."""
    stamped = stream if by_header else replace(stream, stamp=stream.log)
    return stamped.take(np.argsort(stamped.stamp, kind="stable"))


def _newest(stream: Stream, tick: int) -> int:
    return int(np.searchsorted(stream.stamp, tick, "right")) - 1


def _all_there(streams: list[np.ndarray], low: int, high: int) -> tuple[int, int]:
    """From when to when all streams bring messages within a stretch of time; upside down if one brings none."""
    inside = [stamps[(stamps >= low) & (stamps <= high)] for stamps in streams]
    begin = max(int(stamps[0]) if len(stamps) else 1 << 62 for stamps in inside)
    return begin, min(int(stamps[-1]) if len(stamps) else -(1 << 62) for stamps in inside)


def _vector(recording: _Recording, parts: tuple[Vectors, ...], tick: int) -> tuple[np.ndarray, int]:
    """The newest values of all parts, float32 (D,), and the oldest of their stamps."""
    ats = [_newest(recording.streams[part.entry.topic], tick) for part in parts]
    values = [part.values[at] for part, at in zip(parts, ats, strict=True)]
    oldest = [int(recording.streams[part.entry.topic].stamp[at]) for part, at in zip(parts, ats, strict=True)]
    return np.concatenate([np.zeros(0, np.float32), *values]).astype(np.float32), min(oldest, default=tick)


def _gaps(stream: Stream, ticks: np.ndarray) -> int:
    """Ticks at which the newest message is older than the stream's pace explains."""
    if len(stream) < 2:
        return 0
    pace = float(np.median(np.diff(stream.stamp)))
    step = float(ticks[1] - ticks[0]) if len(ticks) > 1 else pace
    newest = stream.stamp[np.maximum(np.searchsorted(stream.stamp, ticks, "right") - 1, 0)]
    return int((ticks - newest > _TOO_OLD * max(pace, step)).sum())
