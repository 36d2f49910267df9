"""A policy answers observations: exactly once each in lock-step, the newest first in real time. Knows no ROS."""

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Observation
from tandem_datasets.policy import ChunkPlayer, History, NoiseKey, Policy

Answer = Callable[[int, np.ndarray], None]
"""Takes the stamp of the observation that is answered, and the points (k, A) left to play."""
Say = Callable[[str], None]
"""Takes what the policy says."""


class AnswerBook:
    """One episode's answers: a repeated observation gets the same one again, without a second inference."""

    def __init__(self, policy: Policy, depth: int = 64) -> None:
        self._policy = policy
        self._depth = depth
        self._period = policy.embodiment.period_ns
        self._player = ChunkPlayer(policy.n_action_steps, policy.n_obs_steps)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begins an episode: forgets queue, history and answers."""
        self._player.reset(seed)
        self._answers: dict[int, np.ndarray] = {}
        self._newest = -1
        self._unsaid: tuple[History, NoiseKey] | None = None

    def answer(self, observation: Observation) -> np.ndarray | None:
        """The points (k, A) that answer it; None if it is older than one already answered and forgotten."""
        known = self._answers.get(observation.stamp_ns)
        if known is not None:
            return known
        if observation.stamp_ns <= self._newest:
            return None
        self._skip(observation.stamp_ns)
        self._player.observe(observation)
        if self._player.wants_inference:
            self._player.accept(self._infer())
        points = self._player.answer()
        self._answers[observation.stamp_ns] = points
        if len(self._answers) > self._depth:
            del self._answers[next(iter(self._answers))]
        return points

    def words(self) -> str:
        """What the policy says with its newest inference, once; empty if it has nothing new to say."""
        if self._unsaid is None or not self._policy.speaks:
            return ""
        (history, key), self._unsaid = self._unsaid, None
        return self._policy.say([history], [key])[0]

    def _infer(self) -> np.ndarray:
        self._unsaid = (self._player.history, self._player.noise_key)
        chunks = self._policy.infer([self._player.history], [self._player.noise_key])
        allowed = (1, self._policy.chunk_size, self._policy.embodiment.action_dim)
        if chunks.shape != allowed or chunks.dtype != np.float32:
            raise TandemError(f"policy: chunks are {chunks.dtype} {chunks.shape} (allowed: float32 {allowed})")
        return chunks[0]

    def _skip(self, stamp_ns: int) -> None:
        """Lets go the actions of ticks that were never asked for (real time: overtaken, but played by the gate)."""
        ticks = round((stamp_ns - self._newest) / self._period) if self._newest >= 0 else 1
        self._newest = stamp_ns
        for _ in range(ticks - 1):
            if self._player.wants_inference:
                return
            self._player.answer()


class PolicyServer:
    """Runs inference in its own thread, so that messages come in meanwhile.

    Args:
        policy: answers the observations.
        answer: called from the thread with each answer.
        newest_only: real time: an observation that a newer one has overtaken goes unanswered.
        failed: called from the thread, once, with what broke.
        say: called from the thread after an answer with what the policy says; in real time not while the next
            observation waits.
    """

    def __init__(
        self, policy: Policy, answer: Answer, newest_only: bool, failed: Callable[[BaseException], None], say: Say
    ) -> None:
        self._book = AnswerBook(policy)
        self._answer = answer
        self._say = say
        self._newest_only = newest_only
        self._failed = failed
        self._inbox: deque[Observation] = deque()
        self._wake = threading.Condition()
        self._working = threading.Lock()  # held during inference; a reset waits for it
        self._stopped = False
        self.overtaken = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def put(self, observation: Observation) -> None:
        """Queues an observation."""
        with self._wake:
            if self._newest_only:
                self.overtaken += len(self._inbox)
                self._inbox.clear()
            self._inbox.append(observation)
            self._wake.notify()

    def reset(self, seed: int) -> None:
        """Begins an episode; returns once no answer to an earlier one can come any more."""
        with self._wake:
            self._inbox.clear()
        with self._working:
            self._book.reset(seed)

    def close(self) -> None:
        """Ends the thread."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  (handed to the main thread)
            self._failed(error)

    def _step(self) -> bool:
        with self._wake:
            while not self._inbox and not self._stopped:
                self._wake.wait()
            if self._stopped:
                return False
            self._working.acquire()  # before the inbox is let go, so that a reset cannot slip in between
            observation = self._inbox.popleft()
        try:
            points = self._book.answer(observation)
            if points is not None:
                self._answer(observation.stamp_ns, points)
            if not (self._newest_only and self._inbox) and (words := self._book.words()):
                self._say(words)
        finally:
            self._working.release()
        return True
