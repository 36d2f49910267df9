"""The control gate, the one owner of what moves: takes chunks, arbitrates, queues, checks, gives one action a tick.

Nothing here knows ROS or a clock: stamps are those of observations, a chunk's point ``k`` answers the tick
``k`` control periods after the observation that the chunk is stamped with. Two ways to run it:

* lock-step: :meth:`ControlGate.answered` says when the current observation's own answer is there; only
  ``points[0]`` of that answer is ever executed;
* real time: :meth:`ControlGate.decide` is called at every tick with the observation of the tick before, and plays
  the point that belongs to it from the newest chunk; where there is none, the gate holds.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tandem_datasets.embodiment import ActionKind, Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source


class Count(StrEnum):
    """What the gate counts in an episode."""

    ACCEPTED = "accepted"  # chunks taken
    DUPLICATED = "duplicated"  # a second chunk for the same observation, dropped
    OUT_OF_ORDER = "out_of_order"  # older than one already taken, dropped
    STALE = "stale"  # nothing left of it to play, or from before the episode, dropped
    FUTURE = "future"  # answers an observation that does not exist yet, dropped
    MALFORMED = "malformed"  # wrong size, type or names, refused
    NOT_FINITE = "not_finite"  # NaN or infinity somewhere, the whole chunk refused
    CLIPPED = "clipped"  # executed actions that a limit changed
    STARVED = "starved"  # ticks without an answer: held


@dataclass(frozen=True)
class Chunk:
    """Consecutive actions: ``points[k]`` answers the tick k periods after ``stamp_ns``."""

    stamp_ns: int  # the observation that it answers
    points: np.ndarray  # (k, A) float32, in the embodiment's units
    source: Source  # who asks


@dataclass(frozen=True)
class Decision:
    """What the gate lets through on one tick."""

    action: np.ndarray  # (A,) float32, finite and within limits
    requested: np.ndarray | None  # (A,) float32, asked for before the checks; None: nothing was
    source: Source  # who acts


class ControlGate:
    """Arbitrates between a person's and a policy's chunks and holds when there is nothing fit to execute.

    Args:
        embodiment: gives sizes, limits, rate limits and kinds.
        lockstep: only an answer to the very observation is executed, never a later point of an older chunk.
        takeover_ns: how long after a person's last playable point the policy stays locked out (real time).
    """

    def __init__(self, embodiment: Embodiment, lockstep: bool = False, takeover_ns: int = 250_000_000) -> None:
        self._embodiment = embodiment
        self._period = embodiment.period_ns
        self._takeover = takeover_ns
        self._low, self._high = embodiment.action_low, embodiment.action_high
        self._is_absolute = np.array([scalar.kind is ActionKind.ABSOLUTE for scalar in embodiment.action])
        # the base of an observation-relative action moves on with the next observation
        moves_on = any(scalar.kind is ActionKind.DELTA_OBSERVATION for scalar in embodiment.action)
        self._first_only = lockstep or moves_on
        limits = [np.inf if scalar.rate_limit is None else scalar.rate_limit for scalar in embodiment.action]
        self._most = np.array(limits, np.float64) / embodiment.rate_hz  # largest change in one period
        state_names = [scalar.name for scalar in embodiment.state]
        self._measured_at = [_index(state_names, scalar.name) for scalar in embodiment.action]
        self.begin(0)

    def begin(self, stamp_ns: int) -> None:
        """Begins an episode at ``stamp_ns``: forgets chunks, the last action and all counts."""
        self._begin = stamp_ns
        self._now = stamp_ns
        self._state: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._newest: dict[Source, Chunk] = {}
        self._refused: int | None = None  # stamp of the observation whose answer was refused
        self.counts: Counter[str] = Counter()
        self.complaint = ""  # the last refusal, in words

    def observe(self, stamp_ns: int, state: np.ndarray) -> None:
        """The current observation; chunks stamped later than it are refused."""
        self._now = stamp_ns
        self._state = state

    def malformed(self, why: str) -> None:
        """Counts a chunk that could not even be read."""
        self.counts[Count.MALFORMED] += 1
        self.complaint = why

    def offer(self, chunk: Chunk) -> bool:
        """Takes a chunk, or drops and counts it; True if it was taken."""
        verdict = self._verdict(chunk)
        self.counts[verdict] += 1
        if verdict is Count.ACCEPTED:
            self._newest[chunk.source] = chunk
        elif verdict in (Count.NOT_FINITE, Count.MALFORMED):
            self.complaint = f"{chunk.source.name.lower()} chunk at {chunk.stamp_ns} ns refused: {verdict}"
            self._refused = chunk.stamp_ns
        return verdict is Count.ACCEPTED

    def answered(self, stamp_ns: int) -> bool:
        """Lock-step: whether the observation at ``stamp_ns`` has its answer, be it a refused one."""
        return self._refused == stamp_ns or any(chunk.stamp_ns == stamp_ns for chunk in self._newest.values())

    def decide(self, stamp_ns: int) -> Decision:
        """The action to execute on the observation at ``stamp_ns``. Held ticks count as starved.

        Raises:
            TandemError: there is nothing to hold: an absolute action that was neither executed nor is measured.
        """
        found = self._playable(stamp_ns)
        if found is None:
            self.counts[Count.STARVED] += 1
            return Decision(self._remember(self._hold()), None, Source.HOLD)
        requested, source = found
        action = self._limited(requested)
        if not np.array_equal(action, requested):
            self.counts[Count.CLIPPED] += 1
        return Decision(self._remember(action), requested, source)

    def executed(self, action: np.ndarray) -> None:
        """Tells what was really applied, where that differs from the decision."""
        self._last = action

    def _verdict(self, chunk: Chunk) -> Count:
        points = chunk.points
        if points.ndim != 2 or not len(points) or points.shape[1] != len(self._low) or points.dtype != np.float32:
            return Count.MALFORMED
        newest = self._newest.get(chunk.source)
        if chunk.stamp_ns < self._begin:
            return Count.STALE
        if chunk.stamp_ns > self._now:
            return Count.FUTURE
        if newest is not None and chunk.stamp_ns <= newest.stamp_ns:
            return Count.DUPLICATED if chunk.stamp_ns == newest.stamp_ns else Count.OUT_OF_ORDER
        if self._offset(chunk, self._now) is None:
            return Count.STALE
        return Count.ACCEPTED if np.isfinite(points).all() else Count.NOT_FINITE

    def _offset(self, chunk: Chunk, stamp_ns: int) -> int | None:
        """Which point of the chunk belongs to the tick at ``stamp_ns``."""
        offset = round((stamp_ns - chunk.stamp_ns) / self._period)
        if offset and self._first_only:
            return None
        return offset if 0 <= offset < len(chunk.points) else None

    def _playable(self, stamp_ns: int) -> tuple[np.ndarray, Source] | None:
        person = self._newest.get(Source.PERSON)
        if person is not None:
            offset = self._offset(person, stamp_ns)
            if offset is not None:
                return person.points[offset], Source.PERSON
            lapsed = stamp_ns - person.stamp_ns - (len(person.points) - 1) * self._period
            if lapsed <= self._takeover:  # the person has not let go yet: nobody acts
                return None
        if self._refused == stamp_ns:  # who answers with nonsense now is not trusted with what it said before
            return None
        for source in (Source.POLICY, Source.EXPERT):
            chunk = self._newest.get(source)
            offset = None if chunk is None else self._offset(chunk, stamp_ns)
            if chunk is not None and offset is not None:
                return chunk.points[offset], source
        return None

    def _limited(self, requested: np.ndarray) -> np.ndarray:
        low, high = self._low, self._high
        if np.isfinite(self._most).any():  # absolute targets may move, deltas may be, so much in a period
            base = np.where(self._is_absolute, self._start(), 0.0)
            low = np.clip(np.maximum(low, base - self._most), self._low, self._high).astype(np.float32)
            high = np.clip(np.minimum(high, base + self._most), self._low, self._high).astype(np.float32)
        return np.clip(requested, low, high).astype(np.float32)

    def _hold(self) -> np.ndarray:
        if not self._is_absolute.any():
            return np.clip(np.zeros_like(self._low), self._low, self._high)
        held = np.where(self._is_absolute, self._start(), 0.0).astype(np.float32)
        return np.clip(held, self._low, self._high)

    def _start(self) -> np.ndarray:
        """Where absolute actions stand: as last executed, else as measured."""
        if self._last is not None:
            return self._last
        start = np.zeros_like(self._low)
        for index, (scalar, at) in enumerate(zip(self._embodiment.action, self._measured_at, strict=True)):
            if not self._is_absolute[index]:
                continue
            if at is None or self._state is None:
                raise TandemError(f"gate: nothing to hold for '{scalar.name}': neither executed nor measured yet")
            start[index] = self._state[at]
        return start

    def _remember(self, action: np.ndarray) -> np.ndarray:
        self._last = action
        return action


def _index(names: list[str], name: str) -> int | None:
    return names.index(name) if name in names else None
