"""Episodes from a recording of the contract's topics: one that :mod:`.mcap` wrote, or one of a live graph.

Frames are put together as the recorder does it: the ``state`` message of a tick opens it, of every other stream the
newest message at or before the tick belongs to it, and action and step carry the tick's very stamp.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.bag_facts import (
    OFFSET,
    RUNNING,
    UNFINISHED,
    contract_prefix,
    info_from_facts,
    listed_topics,
    recorded_embodiment,
    whole_number,
)
from tandem_datasets.formats.bag_index import Stream, decoded, read_index
from tandem_datasets.formats.bags import Bag
from tandem_datasets.formats.foreign import episode_uuid
from tandem_datasets.formats.ros_messages import Messages, definition, image_topic, read_facts, read_step, topic_types
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source

_PAUSE_NS = 1_000_000_000  # without an `episode` topic, a longer pause between ticks begins a new episode


@dataclass(frozen=True)
class _Episode:
    """What is known of an episode before its messages are read."""

    info: EpisodeInfo
    ticks: np.ndarray  # int64 (T,): stamps of complete frames
    begin_ns: int  # older messages are not its own
    end_ns: int
    offset_ns: int | None  # log time less stamp, where all messages of a frame were logged together


class ContractSource:
    """See ``formats.Source``. Raises TandemError: the topics are not the contract's, or a message is broken."""

    def __init__(self, path: str, namespace: str = "", embodiment: Embodiment | None = None, unfinished: bool = True):
        self._path = path
        self._bag: Bag | None = None
        bag = self._opened()
        self._prefix = contract_prefix(bag, namespace)
        self.embodiment = embodiment or recorded_embodiment(bag)
        types = topic_types(self.embodiment).items()
        topics = {self._prefix + topic: kind for topic, kind in types if not topic.endswith("camera_info")}
        topics = {topic: kind for topic, kind in topics.items() if topic in bag.topics}
        for topic, kind in topics.items():
            bag.require_type(topic, definition(kind))
        self._streams = read_index(bag, topics)
        for topic in ("state", "step", "action"):
            if self._prefix + topic not in self._streams:
                raise TandemError(f"{bag.where}: topic {self._prefix}{topic} is missing (it has: {listed_topics(bag)})")
        told = self._told_episodes(bag, unfinished)
        self._episodes = [episode for episode in map(self._with_ticks, told) if len(episode.ticks)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bag": None}  # its files are opened again

    @property
    def n_episodes(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterator[Frame]]:
        """One episode; frames are read as they are asked for."""
        if not 0 <= index < len(self._episodes):
            raise TandemError(f"bag {self._path}: no episode {index} (it has: {len(self._episodes)})")
        found = self._episodes[index]
        return found.info, self._frames(found)

    def _opened(self) -> Bag:
        if self._bag is None:
            self._bag = Bag(self._path)
        return self._bag

    # -- which episodes there are

    def _told_episodes(self, bag: Bag, unfinished: bool) -> list[_Episode]:
        """Those that the ``episode`` topic tells of, in order; the last word on each counts. Else all ticks."""
        topic = self._prefix + "episode"
        found: dict[str, tuple[str, dict[str, str]]] = {}
        if topic in self._streams:
            for message in decoded(bag, topic, self._streams[topic]):
                word, facts = read_facts(message)
                if "uuid" in facts:
                    found[facts["uuid"]] = (word, {**found.get(facts["uuid"], ("", {}))[1], **facts})
        if not found:
            return self._untold_episodes(bag)
        where, episodes = f"{bag.where}: topic {topic}", []
        begins = [info_from_facts(facts, where).begin_ns for _, facts in found.values()]
        for word, facts in found.values():
            ended = word != RUNNING and "end_ns" in facts
            if ended or unfinished:
                episodes.append(self._told(facts, ended, begins, where))
        return episodes

    def _told(self, facts: Mapping[str, str], ended: bool, begins: list[int], where: str) -> _Episode:
        info = info_from_facts(facts, where)
        try:
            offset = whole_number(facts[OFFSET]) if OFFSET in facts else None
        except ValueError:
            raise TandemError(f"{where}: {OFFSET} is '{facts[OFFSET]:.40}' (allowed: a whole number)") from None
        if offset is None:
            provenance = {**info.provenance, "imported": {"format": "mcap", "file": Path(self._path).name}}
            info = replace(info, provenance=provenance)
        if not ended:
            stream = self._streams[self._prefix + "state"]
            if offset is None:  # up to the next episode
                later = min((begin for begin in begins if begin > info.begin_ns), default=1 << 62)
                ticks = stream.stamp[stream.stamp < later]
            else:
                ticks = stream.stamp[stream.stamp == stream.log - offset]
            end = int(ticks.max(initial=info.begin_ns))
            info = replace(info, outcome=UNFINISHED, success=False, end_ns=end)
        return _Episode(info, np.zeros(0), info.begin_ns, info.end_ns, offset)

    def _untold_episodes(self, bag: Bag) -> list[_Episode]:
        """Stretches of ticks without a pause, where no ``episode`` topic was recorded."""
        ticks = np.unique(self._streams[self._prefix + "state"].stamp)
        pause = max(_PAUSE_NS, 4 * self.embodiment.period_ns)
        parts = np.split(ticks, np.flatnonzero(np.diff(ticks) > pause) + 1) if len(ticks) else []
        episodes = []
        for index, part in enumerate(parts):
            begin, end = int(part[0]), int(part[-1])
            identity = f"mcap/{self.embodiment.digest}/{begin}"
            provenance = {"imported": {"format": "mcap", "file": Path(self._path).name}}
            info = EpisodeInfo(0, "", begin_ns=begin, end_ns=end, uuid=episode_uuid(identity, index),
                               provenance=provenance)  # fmt: skip
            older = int(parts[index - 1][-1]) + 1 if index else -(1 << 62)
            episodes.append(_Episode(info, part, max(older, begin - pause), end, None))
        return episodes

    def _with_ticks(self, episode: _Episode) -> _Episode:
        """The episode with the stamps of its complete frames; missing ones are counted in its provenance."""
        own = {topic: self._own(topic, episode) for topic in self._streams}
        opened = np.unique(own[self._prefix + "state"].stamp)
        opened = opened[(opened >= episode.info.begin_ns) & (opened <= episode.end_ns)]
        complete = np.isin(opened, own[self._prefix + "step"].stamp)
        complete &= np.isin(opened, own[self._prefix + "action"].stamp)
        for topic in self._newest_of():
            stream = own.get(topic)
            first = self._keys(stream, episode).min(initial=1 << 62) if stream is not None else 1 << 62
            complete &= opened >= first
        ticks, info = opened[complete], episode.info
        if len(ticks) < len(opened):
            info = replace(info, provenance={**info.provenance, "missing_frames": len(opened) - len(ticks)})
        return replace(episode, info=info, ticks=ticks)

    # -- frames

    def _frames(self, episode: _Episode) -> Iterator[Frame]:
        bag, read = self._opened(), Messages(self.embodiment)
        own = {topic: self._own(topic, episode) for topic in self._streams}
        for topic, stream in own.items():
            own[topic] = stream.take(np.argsort(self._keys(stream, episode), kind="stable"))
        keys = {topic: self._keys(stream, episode) for topic, stream in own.items()}
        for tick in episode.ticks.tolist():
            newest = {topic: int(np.searchsorted(keys[topic], tick, "right")) - 1 for topic in self._newest_of()}
            state, stamps, instruction = self._state(bag, read, own, newest, tick, episode)
            images = {}
            for camera in self.embodiment.cameras:
                topic = self._prefix + image_topic(camera.name)
                stamps[camera.name] = int(own[topic].stamp[newest[topic]])
                message = self._message(bag, topic, own[topic], newest[topic])
                images[camera.name] = read.read_image(camera, message, f"{bag.where}: topic {topic}")
            seen = Observation(images, state, instruction, tick, stamps)
            yield self._frame(bag, read, own, seen)

    def _state(
        self, bag: Bag, read: Messages, own: Mapping[str, Stream], newest: Mapping[str, int], tick: int, of: _Episode
    ) -> tuple[np.ndarray, dict[str, int], str]:
        """(state, its own stamp by stream, instruction)."""
        topic = self._prefix + "state"
        at = int(np.searchsorted(own[topic].stamp, tick, "right")) - 1
        message = self._message(bag, topic, own[topic], at)
        scalars = read.read_state(message, f"{bag.where}: topic {topic}")
        stamp = tick if of.offset_ns is None else min(tick, int(own[topic].publish[at]) - of.offset_ns)
        columns = {}
        if read.layout.joints:
            topic = self._prefix + "joint_states"
            columns = read.read_joints(
                self._message(bag, topic, own[topic], newest[topic]), f"{bag.where}: topic {topic}"
            )
            stamp = min(stamp, int(own[topic].stamp[newest[topic]]))
        stamps = {"state": stamp} if self.embodiment.state else {}
        return read.layout.join(scalars, columns), stamps, message["header"]["frame_id"]

    def _frame(self, bag: Bag, read: Messages, own: Mapping[str, Stream], seen: Observation) -> Frame:
        asked = {}
        for topic in ("action", "action/requested", "action/label"):
            message = self._at(bag, self._prefix + topic, own, seen.stamp_ns)
            where = f"{bag.where}: topic {self._prefix}{topic}"
            asked[topic] = (None, Source.HOLD) if message is None else read.read_action(message, where)
        step = self._at(bag, self._prefix + "step", own, seen.stamp_ns)
        action, source = asked["action"]
        assert action is not None
        assert step is not None
        outcome = read_step(step, f"{bag.where}: topic {self._prefix}step")
        return Frame(
            observation=seen,
            action=action,
            source=source,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            success=outcome.success,
            requested=asked["action/requested"][0],
            label=asked["action/label"][0],
        )

    def _at(self, bag: Bag, topic: str, own: Mapping[str, Stream], tick: int) -> dict[str, Any] | None:
        """The message with the tick's very stamp; its stream is in the order of stamps."""
        if topic not in own:
            return None
        at = int(np.searchsorted(own[topic].stamp, tick, "right")) - 1
        if at < 0 or own[topic].stamp[at] != tick:
            return None
        return self._message(bag, topic, own[topic], at)

    def _message(self, bag: Bag, topic: str, stream: Stream, at: int) -> dict[str, Any]:
        return bag.definition(topic).decode(bag.read(stream.ref(at)), f"{bag.where}: topic {topic}")

    def _own(self, topic: str, episode: _Episode) -> Stream:
        """The topic's messages that belong to the episode."""
        stream = self._streams[topic]
        low, high = episode.begin_ns, episode.end_ns
        if episode.offset_ns is None:
            return stream.take(np.flatnonzero((stream.stamp >= low) & (stream.stamp <= high)))
        log = stream.log - episode.offset_ns
        return stream.take(np.flatnonzero((log >= low) & (log <= high)))

    def _keys(self, stream: Stream, episode: _Episode) -> np.ndarray:
        """By what "newest" goes: stamps; log times where all of a frame was logged together."""
        return stream.stamp if episode.offset_ns is None else stream.log - episode.offset_ns

    def _newest_of(self) -> list[str]:
        """Topics of which the newest message at or before a tick belongs to it."""
        joints = ["joint_states"] if any(scalar.source.is_joint for scalar in self.embodiment.state) else []
        return [self._prefix + topic for topic in (*joints, *(image_topic(c.name) for c in self.embodiment.cameras))]
