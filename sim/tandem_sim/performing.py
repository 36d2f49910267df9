"""Episodes for people who watch: somebody acts, and what there is to see and to say comes step by step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import cv2
import numpy as np

from tandem_datasets.embodiment import Embodiment, Encoding
from tandem_datasets.frames import Source
from tandem_datasets.policy import ChunkPlayer, Policy
from tandem_datasets.rollout import EnvSpec
from tandem_sim import registry
from tandem_sim.episodes import Episode

_UNSEEN = {"cameras": [], "depth": False, "segmentation": False}


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


def blind(spec: EnvSpec) -> EnvSpec:
    """The same environment without its cameras, for actors that do not look; of others than Tandem's, as it is."""
    if spec.id not in registry.known():
        return spec
    unseen = {name: value for name, value in _UNSEEN.items() if name in spec.options}
    return replace(spec, options={**spec.options, **unseen})


class Performance:
    """An environment and who acts in it, as a context.

    Args:
        spec: the environment.
        actor: a policy, which must fit; None: the environment's expert.

    Raises:
        TandemError: no such environment, or a policy that does not fit.
    """

    def __init__(self, spec: EnvSpec, actor: Policy | None) -> None:
        self._spec = spec
        self.env = registry.make(spec)
        inner: Any = self.env.unwrapped
        self._inner = inner
        self.embodiment: Embodiment = inner.embodiment
        self._actor = actor
        self._episode: Episode | None = None
        if actor is not None:
            try:
                actor.embodiment.require_fit(self.embodiment, "policy")
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
        act = self._as_expert if self._actor is None else _Playing(self._actor, seed)
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

    def _as_expert(self, episode: Episode) -> tuple[np.ndarray, str]:
        action = episode.expert_action()
        return action, self._inner.subgoal if self.embodiment.tells_subgoals else ""


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
