"""The small protocol through which rollouts and ROS nodes meet a policy, and how its chunks play."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.frames import Observation

NoiseKey = tuple[int, int]
"""(episode seed, inference index): all randomness of one inference derives from it."""

History = Sequence[Observation]
"""The newest ``n_obs_steps`` observations of one episode, oldest first; its first one stands for those before it."""


class Policy(Protocol):
    """A callable from observations to chunks, without memory of its own between calls."""

    embodiment: Embodiment  # what it was trained for
    n_obs_steps: int  # observations that one inference sees
    chunk_size: int  # K, consecutive actions from one inference
    n_action_steps: int  # how many of them are executed before the next inference, 1..K
    identity: str  # content hash of the weights, for provenance
    speaks: bool  # whether it has words for what it does

    def infer(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> np.ndarray:
        """Chunks of shape (B, K, A), float32, in the embodiment's units."""
        ...

    def say(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> list[str]:
        """What it says to each, beside :meth:`infer`; empty texts from a policy that does not speak."""
        ...


class ChunkPlayer:
    """One episode's playback of a policy's chunks: every observation is answered exactly once.

    :meth:`observe` it; ask :attr:`wants_inference`; if so :meth:`accept` a fresh chunk for :attr:`history`; then
    :meth:`answer`.
    """

    def __init__(self, n_action_steps: int, n_obs_steps: int = 1) -> None:
        self._steps = n_action_steps
        self._history: deque[Observation] = deque(maxlen=n_obs_steps)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begins an episode: forgets queue, history and inference count."""
        self._seed = seed
        self._inferences = 0
        self._queue: deque[np.ndarray] = deque()
        self._history.clear()

    def observe(self, observation: Observation) -> None:
        """Takes the observation that is answered next."""
        missing = (self._history.maxlen or 1) - len(self._history)
        self._history.extend([observation] * (1 if self._history else missing))

    @property
    def history(self) -> list[Observation]:
        """What the next inference sees."""
        return list(self._history)

    @property
    def wants_inference(self) -> bool:
        return not self._queue

    @property
    def noise_key(self) -> NoiseKey:
        """The key of the next inference."""
        return (self._seed, self._inferences)

    def accept(self, chunk: np.ndarray) -> None:
        """Takes a chunk of shape (K, A), of which the first ``n_action_steps`` are kept."""
        self._queue = deque(chunk[: self._steps])
        self._inferences += 1

    def answer(self) -> np.ndarray:
        """What is left to play, shape (k, A); row 0 answers the current observation and is consumed."""
        rest = np.stack(self._queue)
        self._queue.popleft()
        return rest
