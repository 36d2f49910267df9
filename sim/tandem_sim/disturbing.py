"""What makes demonstrations less perfect on purpose: noise, and disturbances from which the expert has to recover.

Both change what is executed and never the label, so that a policy learns what to do where it has gone astray (after
DART, Laskey et al., 2017).
"""

import numpy as np

from tandem_datasets.embodiment import ActionKind, Embodiment

LASTS_S = (0.1, 0.4)  # how long a disturbance is, drawn evenly
PUSH = 0.5  # of its limit that a displacement is pushed by, at most
TURN = 0.01  # rad a step that a joint's target is turned by, at most: who plans from the last target adds it up
AT_REST = 0.01  # of the limits: actions that move nothing faster


class Disturber:
    """Disturbs the actions of one episode, step by step.

    Where an action lets everything rest, as at an episode's end, there is no noise: success often asks for stillness. A
    disturbance is a push (a constant offset on all displacements or joint targets) or, where there are grips as
    often, a grip that opens.

    Args:
        embodiment: whose actions they are.
        rng: of the episode.
        noise: standard deviation of Gaussian noise on each value, in its unit.
        recovery: disturbances a second, on average.
    """

    def __init__(self, embodiment: Embodiment, rng: np.random.Generator, noise: float, recovery: float) -> None:
        self._rng, self._noise = rng, noise
        self._chance, self._rate_hz = recovery / embodiment.rate_hz, embodiment.rate_hz
        self._left = 0  # steps of the disturbance under way
        scalars = embodiment.action
        self._grips = [k for k, scalar in enumerate(scalars) if scalar.name.endswith("grip")]
        self._open = embodiment.action_high
        most = [PUSH * scalar.high if scalar.kind is not ActionKind.ABSOLUTE else TURN for scalar in scalars]
        self._most = np.array([0.0 if k in self._grips else value for k, value in enumerate(most)], np.float32)
        self._delta = np.array([scalar.kind is not ActionKind.ABSOLUTE for scalar in scalars])
        steps = [(scalar.rate_limit or np.inf) / embodiment.rate_hz for scalar in scalars]
        self._slow = AT_REST * np.where(self._delta, embodiment.action_high, steps)
        self._last: np.ndarray | None = None
        self._grip: int | None = None
        self._push: np.ndarray = np.zeros(len(scalars), np.float32)

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """What is asked for instead of ``action`` (A,) float32."""
        if self._noise and not self._rests(action):
            action = action + self._noise * self._rng.standard_normal(action.shape, np.float32)
        if not self._chance:
            return action
        if self._left == 0 and self._rng.random() < self._chance:
            self._begin()
        if self._left == 0:
            return action
        self._left -= 1
        action = action + self._push
        if self._grip is not None:
            action[self._grip] = self._open[self._grip]
        return action

    def _rests(self, action: np.ndarray) -> bool:
        """Whether ``action`` moves nothing but, maybe, grips."""
        last, self._last = self._last, action
        move = action if last is None else np.where(self._delta, action, action - last)
        return bool((np.abs(move) <= self._slow).all())

    def _begin(self) -> None:
        self._left = max(1, round(self._rng.uniform(*LASTS_S) * self._rate_hz))
        self._grip, self._push = None, np.zeros_like(self._most)
        if self._grips and self._rng.random() < 0.5:
            self._grip = self._grips[int(self._rng.integers(len(self._grips)))]
        else:
            self._push = (self._most * self._rng.uniform(-1, 1, len(self._most))).astype(np.float32)
