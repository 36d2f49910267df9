"""A policy tried by hand: ask it for something, watch it act and see where it looks."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Observation, Source
from tandem_datasets.policy import ChunkPlayer, History, Policy
from tandem_datasets.rollout import EnvSpec
from tandem_sim import registry
from tandem_sim.episodes import Episode
from tandem_sim.pictures import spotlight
from tandem_sim.play import View

Look = Callable[[Sequence[History]], np.ndarray]
"""Histories to attention maps (B, rows, columns) of the first camera's image."""

HELP = "type what it should do, Enter: go; Tab: next scene; Esc: quit"
PAUSE_S = 0.25  # between two steps, for whoever watches
_LONGEST = 200  # characters of an instruction
_NAMED = {"space": " ", "comma": ",", "period": ".", "question": "?", "exclam": "!", "apostrophe": "'", "minus": "-"}
_BACK, _GO, _NEXT, _QUIT = ("BackSpace", "\x7f", "\b"), ("Return", "KP_Enter"), ("Tab", "\t"), ("Escape",)


@dataclass(frozen=True)
class Moment:
    """One control step of a trial, or what it ended with (then nothing is said)."""

    observation: Observation
    attention: np.ndarray | None  # (rows, columns) of the first camera's image, if the policy can tell
    words: str  # what the policy says it does

    @property
    def image(self) -> np.ndarray:
        """The first camera's image, (H, W, 3) uint8."""
        return next(iter(self.observation.images.values()))


class Tryout:
    """A policy on scenes of an environment, as a context; begin with :meth:`lay_out`.

    Args:
        spec: the environment.
        policy: it must fit.
        look: the policy's attention, if it has one.

    Raises:
        TandemError: the policy does not fit, or the environment has no camera.
    """

    def __init__(self, spec: EnvSpec, policy: Policy, look: Look | None = None) -> None:
        self._env = registry.make(spec)
        self._spec, self._policy, self._look = spec, policy, look
        embodiment = self._env.unwrapped.embodiment  # type: ignore[attr-defined]
        try:
            policy.embodiment.require_fit(embodiment, "policy")
            if not embodiment.cameras:
                raise TandemError(f"environment '{spec.id}': it has no camera, so that there is nothing to watch")
        except BaseException:
            self._env.close()
            raise
        self.hears = embodiment.hears_instruction
        self.seed = 0
        self.verdict = ""  # on the last trial

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()

    def lay_out(self, seed: int) -> Observation:
        """Begins the scene of a seed; trials on it all start from there."""
        self.seed = seed
        return Episode(self._env, self._spec.id, seed).observation

    @property
    def suggestions(self) -> list[str]:
        """What can be asked on this scene: the environment's own instruction first."""
        inner: Any = self._env.unwrapped
        return list(dict.fromkeys([inner.task_description, *getattr(inner, "possible_instructions", ())]))

    def ask(self, instruction: str) -> Iterator[Moment]:
        """Runs the scene from its start with an instruction; moments as they happen, the last one after the end.

        :attr:`verdict` then tells how it went. Any text may be asked; only what the environment understands is judged.
        """
        episode = Episode(self._env, self._spec.id, self.seed)
        judged = self._understood(instruction)
        player = ChunkPlayer(self._policy.n_action_steps, self._policy.n_obs_steps)
        player.reset(self.seed)
        words, attention = "", None
        while not episode.done:
            seen = replace(episode.observation, instruction=instruction) if self.hears else episode.observation
            player.observe(seen)
            if player.wants_inference:
                history, key = [player.history], [player.noise_key]
                attention = self._look(history)[0] if self._look else None
                player.accept(self._policy.infer(history, key)[0])
                words = self._policy.say(history, key)[0]
            yield Moment(seen, attention, words)
            episode.step(player.answer()[0], Source.POLICY)
        steps = len(episode.frames)
        how = episode.outcome.replace("_", " ") if judged else "the environment knows no such task here: not judged"
        self.verdict = f"{how} after {steps} step{'s' * (steps != 1)}"
        yield Moment(episode.observation, None, "")

    def _understood(self, instruction: str) -> bool:
        inner: Any = self._env.unwrapped
        if instruction == inner.task_description or not self.hears:
            return True
        return bool(hasattr(inner, "ask") and inner.ask(instruction))


def converse(tryout: Tryout, view: View, seed: int, first: Sequence[str] = (), pause_s: float = PAUSE_S) -> int:
    """Lets a person ask and watch, scene after scene, until they quit; returns how many trials were run.

    Args:
        tryout: what is tried.
        view: where the person sees and types.
        seed: of the first scene.
        first: instructions to begin with.
        pause_s: between two steps.
    """
    trials = 0
    tryout.lay_out(seed)
    said, waiting = "", deque(first)
    while True:
        text = waiting.popleft() if waiting else _typed(tryout, view, said)
        if text is None:
            return trials
        if text == _NEXT[0]:
            seed, said = seed + 1, ""
            tryout.lay_out(seed)
            continue
        trials += 1
        for moment in tryout.ask(text):
            view.show(side_by_side(moment), [text, moment.words])
            time.sleep(pause_s)
        said = f"'{text}': {tryout.verdict}"


def side_by_side(moment: Moment) -> np.ndarray:
    """The image, and beside it where the policy looks (H, 2W, 3); the image alone where it does not say."""
    if moment.attention is None:
        return np.concatenate([moment.image, moment.image], axis=1)
    return np.concatenate([moment.image, spotlight(moment.image, moment.attention)], axis=1)


def _typed(tryout: Tryout, view: View, said: str) -> str | None:
    """An instruction, ``Tab`` for the next scene, None to quit. Enter alone asks for the first suggestion."""
    moment = Moment(tryout.lay_out(tryout.seed), None, "")
    suggestions = tryout.suggestions
    text = ""
    while True:
        view.show(side_by_side(moment), [said or f"seed {tryout.seed}", f"> {text}_", _hint(suggestions), HELP])
        name = view.wait().name
        if name in _QUIT:
            return None
        if name in _NEXT:
            return _NEXT[0]
        if name in _GO:
            return text.strip() or suggestions[0]
        letter = _NAMED.get(name, name)
        if name in _BACK:
            text = text[:-1]
        elif len(letter) == 1 and letter.isprintable() and len(text) < _LONGEST:
            text += letter


def _hint(suggestions: Sequence[str]) -> str:
    return "such as: " + "; ".join(suggestions)
