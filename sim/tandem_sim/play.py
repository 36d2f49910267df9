"""A person plays an environment, step by step, in a window or a terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.rollout import EnvSpec
from tandem_sim import registry
from tandem_sim.episodes import Episode
from tandem_sim.recording import EpisodeWriter

FINE = 0.25  # of a full step, with shift
HELP = "arrows or wasd: go; with shift: a quarter; n: next; q: quit"
QUIT, NEXT = ("q", "Escape"), ("n", "N", "Return", "space")
_DIRECTIONS = {"Up": (0, -1), "Down": (0, 1), "Left": (-1, 0), "Right": (1, 0)}
_LETTERS = {"w": "Up", "s": "Down", "a": "Left", "d": "Right"}


@dataclass(frozen=True)
class Event:
    """A key by its name (``a``, ``A``, ``Left``, ``Shift-Left``, ``Escape``), or a ``click`` on the picture."""

    name: str
    at: tuple[float, float] = (0.0, 0.0)  # 0..1 from the picture's upper left


class View(Protocol):
    """Where a person sees and answers."""

    def show(self, image: np.ndarray, lines: list[str]) -> None:
        """Shows an image (H, W, 3) uint8 RGB with lines of text below."""
        ...

    def wait(self) -> Event:
        """The next thing that the person does; ``Escape`` once they are gone."""
        ...


def play(
    spec: EnvSpec,
    view: View,
    seed: int,
    episodes: int | None = None,
    record: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> list[EpisodeInfo]:
    """Lets a person play episodes with seeds ``seed``, ``seed + 1`` ...; unfinished ones are not kept.

    Args:
        episodes: how many; None: until the person quits.
        record: store to append the finished episodes to.

    Returns:
        The finished episodes.

    Raises:
        TandemError: the environment is none that a person can steer by pointing, or the store is refused.
    """
    env = registry.make(spec)
    finished: list[EpisodeInfo] = []
    try:
        if not hasattr(env.unwrapped, "steer"):
            raise TandemError(f"environment '{spec.id}': a person cannot steer it by keys (it has no 'steer')")
        facts = {"view": type(view).__name__, **(provenance or {})}
        embodiment = env.unwrapped.embodiment  # type: ignore[attr-defined]
        with EpisodeWriter(record, embodiment, facts, durable=True) as writer:
            for index in count() if episodes is None else range(episodes):
                episode = Episode(env, spec.id, seed + index)
                if not _one(env.unwrapped, episode, view, _tally(finished)):
                    break
                if not episode.done:
                    continue
                finished.append(writer.write(episode))
                if not _shown_result(episode, view, finished):
                    break
    finally:
        env.close()
    return finished


def _one(env: Any, episode: Episode, view: View, tally: str) -> bool:
    """Plays one episode to its end or until the person wants the next one; False if they quit."""
    while not episode.done:
        _show(view, episode, [f"step {len(episode.frames)}{tally}", HELP])
        event = view.wait()
        if event.name in QUIT:
            return False
        if event.name in NEXT:
            return True
        action = _action(env, event)
        if action is not None:
            episode.step(action, Source.PERSON)
    return True


def _shown_result(episode: Episode, view: View, finished: list[EpisodeInfo]) -> bool:
    steps = len(episode.frames)
    result = f"{episode.outcome.replace('_', ' ')} after {steps} step{'s' * (steps != 1)}"
    _show(view, episode, [f"{result}{_tally(finished)}", "any key: next; q: quit"])
    return view.wait().name not in QUIT


def _show(view: View, episode: Episode, lines: list[str]) -> None:
    image = next(iter(episode.observation.images.values()))
    view.show(image, [episode.observation.instruction, *lines])


def _tally(finished: list[EpisodeInfo]) -> str:
    return f"; {sum(info.success for info in finished)} of {len(finished)} found so far" if finished else ""


def _action(env: Any, event: Event) -> np.ndarray | None:
    if event.name == "click":
        return env.steer(event.at)
    for name, size in _readings(event.name):
        if name in _DIRECTIONS:
            return np.array(_DIRECTIONS[name], np.float32) * np.float32(size)
    return None


def _readings(key: str) -> Iterator[tuple[str, float]]:
    """The direction that a key may mean, and the length of its step."""
    fine = key.startswith("Shift-") or key in "WASD"
    plain = key.removeprefix("Shift-")
    yield _LETTERS.get(plain.lower(), plain), FINE if fine else 1.0
