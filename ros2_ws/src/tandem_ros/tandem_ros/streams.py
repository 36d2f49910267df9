"""Matching messages by stamp: from streams to observations, and from observations and actions to frames.

An observation at a tick is the newest message of each stream at or before the tick. Messages of different topics
arrive in any order, so a tick waits until no stream can still bring a newer message for it: until its newest one is
younger than that stream's own period.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.frames import Frame, Observation, Source
from tandem_datasets.wire import StateLayout, StepOutcome
from tandem_ros.gate import Chunk

DEPTH = 512
"""Messages remembered per stream; older ones are let go."""

_by_stamp = itemgetter(0)


class Stream:
    """The recent messages of one topic in the order of their stamps.

    Args:
        period_ns: the stream's declared period.
        tick_ns: the control period.
    """

    def __init__(self, period_ns: int, tick_ns: int, depth: int = DEPTH) -> None:
        self._oldest_age = period_ns - min(period_ns, tick_ns) // 2  # at this age, a newer one is due
        self._depth = depth
        self._items: list[tuple[int, Any]] = []

    def put(self, stamp_ns: int, value: Any) -> None:
        """Remembers a message; one with the same stamp is replaced."""
        at = bisect_right(self._items, stamp_ns, key=_by_stamp)
        if at and self._items[at - 1][0] == stamp_ns:
            self._items[at - 1] = (stamp_ns, value)
        else:
            insort(self._items, (stamp_ns, value), key=_by_stamp)
            del self._items[: -self._depth]

    def at(self, tick_ns: int) -> tuple[int, Any] | None:
        """(stamp, message) of the newest at or before the tick, or None if one that is due has not come."""
        found = bisect_right(self._items, tick_ns, key=_by_stamp)
        if not found or tick_ns - self._items[found - 1][0] >= self._oldest_age:
            return None
        return self._items[found - 1]

    def forget_before(self, stamp_ns: int) -> int:
        """Drops all messages that are older, and says how many."""
        count = bisect_right(self._items, stamp_ns - 1, key=_by_stamp)
        del self._items[:count]
        return count


class ObservationMatcher:
    """Puts observations together. The ``state`` stream gives the ticks, and each tick's instruction."""

    def __init__(self, embodiment: Embodiment, depth: int = DEPTH) -> None:
        self._embodiment = embodiment
        self._layout = StateLayout(embodiment)
        tick = embodiment.period_ns
        self._state = Stream(tick, tick, depth)
        self._joints = Stream(tick, tick, depth)
        self._cameras = {
            camera.name: Stream(round(1e9 / (camera.rate_hz or embodiment.rate_hz)), tick, depth)
            for camera in embodiment.cameras
        }

    def put_image(self, camera: str, stamp_ns: int, pixels: np.ndarray) -> None:
        """An image (H, W, C)."""
        self._cameras[camera].put(stamp_ns, pixels)

    def put_joints(self, stamp_ns: int, columns: dict[str, np.ndarray]) -> None:
        """What :meth:`Translator.read_joint_states` gives."""
        self._joints.put(stamp_ns, columns)

    def put_state(self, stamp_ns: int, scalars: np.ndarray, instruction: str) -> None:
        """What :meth:`Translator.read_state` gives: opens the tick ``stamp_ns``."""
        self._state.put(stamp_ns, (scalars, instruction))

    def at(self, tick_ns: int) -> Observation | None:
        """The observation of a tick, or None while something of it is missing."""
        state = self._state.at(tick_ns)
        joints = self._joints.at(tick_ns) if self._layout.joints else (tick_ns, {})
        if state is None or joints is None or state[0] != tick_ns:
            return None
        stamps = {"state": min(state[0], joints[0])}
        images: dict[str, np.ndarray] = {}
        for name, stream in self._cameras.items():
            image = stream.at(tick_ns)
            if image is None:
                return None
            stamps[name], images[name] = image
        scalars, instruction = state[1]
        vector = self._layout.join(scalars, joints[1])
        return Observation(images, vector, instruction, tick_ns, stamps)

    def clear(self) -> None:
        """Forgets everything."""
        self.forget_before(1 << 63)

    def forget_before(self, stamp_ns: int) -> int:
        """Drops what no tick from ``stamp_ns`` on may use, and says how many messages that were."""
        streams = (self._state, self._joints, *self._cameras.values())
        return sum(stream.forget_before(stamp_ns) for stream in streams)


class TickQueue:
    """Ticks that wait for their observation."""

    def __init__(self, matcher: ObservationMatcher) -> None:
        self._matcher = matcher
        self._waiting: list[int] = []

    def add(self, tick_ns: int) -> None:
        """A tick has opened; opening it again (a repeated observation) asks for its observation again."""
        if tick_ns not in self._waiting:
            insort(self._waiting, tick_ns)

    def take(self) -> list[Observation]:
        """Observations that have become complete, in the order of their ticks."""
        found = []
        for tick in list(self._waiting):
            observation = self._matcher.at(tick)
            if observation is not None:
                found.append(observation)
                self._waiting.remove(tick)
        return found

    def clear(self) -> None:
        """Forgets all ticks."""
        self._waiting.clear()


@dataclass
class _Parts:
    """What has come of one frame besides its observation."""

    action: Chunk | None = None
    requested: Chunk | None = None
    label: Chunk | None = None
    step: StepOutcome | None = None


class FrameMatcher:
    """Puts the frames of one episode together, each from the messages with its tick's stamp.

    Args:
        embodiment: what is recorded.
        begin_ns: what is stamped before it is dropped and counted in ``dropped``; the first tick may be later.
        wants_label: whether a frame is complete only with its expert label.
    """

    def __init__(self, embodiment: Embodiment, begin_ns: int, wants_label: bool) -> None:
        self._matcher = ObservationMatcher(embodiment)
        self._period = embodiment.period_ns
        self._begin = begin_ns
        self._wants_label = wants_label
        self._parts: dict[int, _Parts] = {}
        self._first: int | None = None  # the first tick taken
        self._next = 0  # the tick that follows the last one taken
        slowest = min([embodiment.rate_hz, *(camera.rate_hz or embodiment.rate_hz for camera in embodiment.cameras)])
        self._memory = round(1e9 / slowest)  # how old a message may be that a tick still uses
        self.dropped = 0

    def put_image(self, camera: str, stamp_ns: int, pixels: np.ndarray) -> None:
        """An image (H, W, C)."""
        if self._is_new(stamp_ns):
            self._matcher.put_image(camera, stamp_ns, pixels)

    def put_joints(self, stamp_ns: int, columns: dict[str, np.ndarray]) -> None:
        """What :meth:`Translator.read_joint_states` gives."""
        if self._is_new(stamp_ns):
            self._matcher.put_joints(stamp_ns, columns)

    def put_state(self, stamp_ns: int, scalars: np.ndarray, instruction: str) -> None:
        """What :meth:`Translator.read_state` gives."""
        if self._is_new(stamp_ns):
            self._matcher.put_state(stamp_ns, scalars, instruction)

    def put_action(self, chunk: Chunk) -> None:
        """The executed action."""
        if self._is_new(chunk.stamp_ns):
            self._of(chunk.stamp_ns).action = chunk

    def put_requested(self, chunk: Chunk) -> None:
        """What was asked for before the gate."""
        if self._is_new(chunk.stamp_ns):
            self._of(chunk.stamp_ns).requested = chunk

    def put_label(self, chunk: Chunk) -> None:
        """What an expert would have done."""
        if self._is_new(chunk.stamp_ns):
            self._of(chunk.stamp_ns).label = chunk

    def put_step(self, stamp_ns: int, outcome: StepOutcome) -> None:
        """What the step led to."""
        if self._is_new(stamp_ns):
            self._of(stamp_ns).step = outcome

    def take(self) -> list[Frame]:
        """Frames that have become complete, in order; a gap before one holds it back until :meth:`take_rest`."""
        found = []
        for tick in sorted(self._parts):
            follows = self._first is None or tick == self._next
            frame = self._frame(tick) if follows else None
            if frame is None:
                break
            found.append(frame)
            self._done(tick)
        return found

    def is_complete(self, end_ns: int) -> bool:
        """Whether every frame up to the one at ``end_ns`` has been taken."""
        return self._first is not None and self._next > end_ns

    def take_rest(self, first_ns: int, end_ns: int) -> tuple[list[Frame], list[int]]:
        """(frames that are complete, ticks that are not) of what is left from tick ``first_ns`` to tick ``end_ns``."""
        frames, missing = self.take(), []
        began = self._next if self._first is None else self._first
        for tick in range(first_ns, end_ns + 1, self._period):
            if began <= tick < self._next:
                continue
            frame = self._frame(tick)
            if frame is None:
                missing.append(tick)
            else:
                frames.append(frame)
        return frames, missing

    def _done(self, tick: int) -> None:
        self._parts.pop(tick, None)
        self._first = tick if self._first is None else self._first
        self._next = tick + self._period
        self._matcher.forget_before(self._next - self._memory)

    def _of(self, tick: int) -> _Parts:
        return self._parts.setdefault(tick, _Parts())

    def _is_new(self, stamp_ns: int) -> bool:
        fine = stamp_ns >= self._begin
        self.dropped += not fine
        return fine

    def _frame(self, tick: int) -> Frame | None:
        parts = self._parts.get(tick)
        if parts is None or parts.action is None or parts.step is None:
            return None
        source = parts.action.source
        lacks_request = parts.requested is None and source is not Source.HOLD
        if lacks_request or (self._wants_label and parts.label is None):
            return None
        observation = self._matcher.at(tick)
        if observation is None:
            return None
        return Frame(
            observation=observation,
            action=parts.action.points[0],
            source=source,
            reward=parts.step.reward,
            terminated=parts.step.terminated,
            truncated=parts.step.truncated,
            success=parts.step.success,
            requested=_first(parts.requested),
            label=_first(parts.label),
        )


def _first(chunk: Chunk | None) -> np.ndarray | None:
    return None if chunk is None else chunk.points[0]
