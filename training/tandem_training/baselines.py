"""Policies that learn nothing, to lay beside those that do: a success means little without them.

``hold``            stays where it is
``mean:STORE``      always does the mean of a store's actions
``nearest:STORE``   does what followed on the frame of a store that looks most like now, asked the same if there is one

Wherever `tandem eval` takes a policy, in this process.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Embodiment, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Observation
from tandem_datasets.policy import History, NoiseKey, Policy
from tandem_datasets.rollout import EnvSpec
from tandem_training.baseline_names import HOLD, MEAN, NEAREST, store_of

CHUNK, PLAYED = 16, 8  # of the nearest neighbour
_THUMB = 12  # pixels of a side, to which pictures are reduced before they are compared
_LEAST_SHARE = 1e-3  # of its limits: what varies less does not tell one frame from another


def load_baseline(policy: str, env: EnvSpec) -> Policy:
    """The baseline of that name; ``env`` is what ``hold`` is for.

    Raises:
        TandemError: an unusable store.
    """
    if policy == HOLD:
        from tandem_sim import registry

        return Hold(registry.embodiment(env))
    from tandem_training.data import load_frames

    if not store_of(policy):
        raise TandemError(f"policy '{policy}': no store (allowed: {policy}STORE)")
    frames, digest = load_frames([store_of(policy)], f"policy '{policy}'")
    return Mean(frames, digest) if policy.startswith(MEAN) else Nearest(frames, digest)


class Baseline:
    """What they share; see :class:`tandem_datasets.policy.Policy`."""

    n_obs_steps, speaks = 1, False

    def __init__(self, embodiment: Embodiment, identity: str, chunk_size: int = 1, n_action_steps: int = 1) -> None:
        self.embodiment, self.identity = embodiment, identity
        self.chunk_size, self.n_action_steps = chunk_size, n_action_steps

    def infer(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> np.ndarray:
        """Chunks float32 (B, K, A), in units."""
        return np.stack([self._chunk(history[-1]) for history in histories])

    def say(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> list[str]:
        """Nothing."""
        return [""] * len(histories)

    def _chunk(self, seen: Observation) -> np.ndarray:
        raise NotImplementedError


class Hold(Baseline):
    """Displaces nothing; what is commanded absolutely stays as it is measured, or else amid its limits."""

    def __init__(self, embodiment: Embodiment) -> None:
        super().__init__(embodiment, HOLD)
        self._measured = [_measured(embodiment, scalar) for scalar in embodiment.action]
        moved = [scalar.kind is ActionKind.ABSOLUTE for scalar in embodiment.action]
        self._rest = np.where(moved, (embodiment.action_low + embodiment.action_high) / 2, 0).astype(np.float32)

    def _chunk(self, seen: Observation) -> np.ndarray:
        action = self._rest.copy()
        for place, index in enumerate(self._measured):
            if index is not None:
                action[place] = seen.state[index]
        return action[None]


class Mean(Baseline):
    """The mean of all targets."""

    def __init__(self, frames: Any, digest: str) -> None:
        super().__init__(frames.embodiment, f"{MEAN}:{digest}")
        self._action = frames.target[frames.usable].mean(0, dtype=np.float64).astype(np.float32)

    def _chunk(self, seen: Observation) -> np.ndarray:
        return self._action[None]


class Nearest(Baseline):
    """One nearest neighbour over state and thumbnails, each to unit variance."""

    def __init__(self, frames: Any, digest: str) -> None:
        super().__init__(frames.embodiment, f"{NEAREST}:{digest}", CHUNK, PLAYED)
        self._frames, self._usable = frames, frames.usable
        state = frames.state[self._usable]
        ranges = np.array([scalar.high - scalar.low for scalar in frames.embodiment.state], np.float32)
        self._scale = np.maximum(state.std(0), _LEAST_SHARE * ranges)
        thumbs = [[_thumb(image) for image in frames.images[name][self._usable]] for name in self._cameras]
        self._thumb_scale = [np.std(rows) * np.sqrt(len(rows[0])) for rows in thumbs]
        self._table = np.concatenate(
            [state / self._scale, *(np.array(t) / s for t, s in zip(thumbs, self._thumb_scale, strict=True))], axis=1
        ).astype(np.float32)
        self._squares = np.square(self._table).sum(1)
        spoken = frames.instruction[self._usable]
        self._asked = {text: np.flatnonzero(spoken == code) for code, text in enumerate(frames.instructions)}

    @property
    def _cameras(self) -> list[str]:
        return [camera.name for camera in self.embodiment.cameras]

    def _chunk(self, seen: Observation) -> np.ndarray:
        thumbs = [_thumb(seen.images[name]) / s for name, s in zip(self._cameras, self._thumb_scale, strict=True)]
        query = np.concatenate([seen.state / self._scale, *thumbs]).astype(np.float32)
        rows = self._asked.get(seen.instruction, slice(None))
        distances = self._squares[rows] - 2 * self._table[rows] @ query
        place = np.arange(len(self._table))[rows][distances.argmin()]
        return self._frames.windows(self._usable[place : place + 1], CHUNK)[0][0]


def _measured(embodiment: Embodiment, scalar: ActionScalar) -> int | None:
    """The state scalar that measures what an absolute command is about."""
    if scalar.kind is not ActionKind.ABSOLUTE:
        return None
    return next((place for place, state in enumerate(embodiment.state) if _is_of(state, scalar)), None)


def _is_of(state: StateScalar, scalar: ActionScalar) -> bool:
    if state.source is StateSource.GRIP:
        return state.unit == scalar.unit and state.name.startswith(scalar.name)
    return state.source is StateSource.JOINT_POSITION and state.name == scalar.name


def _thumb(image: np.ndarray) -> np.ndarray:
    """A small picture, flat float32."""
    return cv2.resize(image.astype(np.float32), (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).ravel()
