"""Episodes for people who watch: somebody acts, and what there is to see and to say comes step by step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import cv2
import numpy as np

from tandem_datasets.embodiment import ActionKind, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Source
from tandem_datasets.policy import ChunkPlayer, Policy
from tandem_datasets.rollout import EXPERT, EnvSpec
from tandem_sim import registry
from tandem_sim.episodes import Episode

HOLD = "hold"
"""The actor that does nothing: it stays where it is."""

_UNSEEN = {"cameras": [], "depth": False, "segmentation": False}
_Act = Callable[[Episode], tuple[np.ndarray, str]]


@dataclass(frozen=True)
class Instant:
    """After ``step`` control steps of an episode; ``outcome`` only after the last one."""

    step: int
    instruction: str
    words: str  # what the actor is about: the expert's subgoal, or what the policy says
    outcome: str
    success: bool

    @property
    def last(self) -> bool:
        return bool(self.outcome)


class Performance:
    """An environment and who acts in it, as a context.

    Args:
        spec: the environment. Its own cameras are drawn only where a policy looks through them.
        actor: ``EXPERT``, ``HOLD``, or a policy, which must fit.

    Raises:
        TandemError: no such environment, a policy that does not fit, or an actor that the environment lacks.
    """

    def __init__(self, spec: EnvSpec, actor: Policy | str) -> None:
        assert not isinstance(actor, str) or actor in (EXPERT, HOLD)
        if isinstance(actor, str) and spec.id in registry.known():
            blind = {name: value for name, value in _UNSEEN.items() if name in spec.options}
            spec = replace(spec, options={**spec.options, **blind})
        self._spec = spec
        self.env = registry.make(spec)
        inner: Any = self.env.unwrapped
        self._inner = inner
        self.embodiment: Embodiment = inner.embodiment
        self._episode: Episode | None = None
        try:
            self._begin = self._acting(actor)
        except BaseException:
            self.env.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.env.close()

    @property
    def views(self) -> tuple[str, ...]:
        """The cameras that :meth:`look` takes, whether they are observed or not."""
        seen = [camera.name for camera in self.embodiment.cameras if camera.encoding is Encoding.RGB8]
        return tuple(getattr(self._inner, "views", seen))

    def play(self, seed: int) -> Iterator[Instant]:
        """The episode of a seed: its start, and what is there after each step."""
        episode = self._episode = Episode(self.env, self._spec.id, seed)
        act = self._begin(seed)
        instruction = episode.observation.instruction
        yield Instant(0, instruction, "", "", False)
        while not episode.done:
            action, words = act(episode)
            frame = episode.step(action, Source.POLICY)
            yield Instant(len(episode.frames), instruction, words, episode.outcome, frame.success)

    def look(self, camera: str, height: int, width: int) -> np.ndarray:
        """What one of :attr:`views` shows now, uint8 RGB (height, width, 3).

        Environments that have ``look`` draw it as large as that; what others observe is enlarged.
        """
        if hasattr(self._inner, "look"):
            return self._inner.look(camera, height, width)
        assert self._episode is not None
        image = self._episode.observation.images[camera]
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)

    def _acting(self, actor: Policy | str) -> Callable[[int], _Act]:
        """What makes the actor's function for an episode's seed."""
        if isinstance(actor, str):
            act = self._as_expert if actor == EXPERT else self._holding()
            return lambda seed: act
        actor.embodiment.require_fit(self.embodiment, "policy")
        return lambda seed: _Playing(actor, seed)

    def _as_expert(self, episode: Episode) -> tuple[np.ndarray, str]:
        action = episode.expert_action()
        return action, self._inner.subgoal if self.embodiment.tells_subgoals else ""

    def _holding(self) -> _Act:
        if hasattr(self._inner, "hold_action"):
            return lambda episode: (self._inner.hold_action(), "")
        if any(scalar.kind is not ActionKind.DELTA_STEP for scalar in self.embodiment.action):
            raise TandemError(f"environment '{self._spec.id}': it does not tell how to hold (allowed: another policy)")
        still = np.zeros(self.embodiment.action_dim, np.float32)
        return lambda episode: (still, "")


class _Playing:
    """A policy within one episode."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self._policy = policy
        self._player = ChunkPlayer(policy.n_action_steps, policy.n_obs_steps)
        self._player.reset(seed)
        self._words = ""

    def __call__(self, episode: Episode) -> tuple[np.ndarray, str]:
        player, policy = self._player, self._policy
        player.observe(episode.observation)
        if player.wants_inference:
            history, key = [player.history], [player.noise_key]
            player.accept(policy.infer(history, key)[0])
            self._words = policy.say(history, key)[0]
        return player.answer()[0], self._words
