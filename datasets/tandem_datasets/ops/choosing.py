"""Which episodes of a store are meant: plain conditions, all of which must hold."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import Source
from tandem_datasets.store import Store

Texts = str | Sequence[str] | None
Numbers = int | str | Sequence[int | str] | None

_RANGE = re.compile(r"(-?\d+)(?:-(\d+))?")
_MOST = 10_000_000  # numbers that a list of ranges may name


@dataclass(frozen=True)
class Choice:
    """Conditions; one that is None always holds. Texts may hold ``*`` and ``?``, lists mean any of them."""

    episodes: Numbers = None  # their indices: 3, "5-9", [0, 3, "5-9"]
    task: Texts = None  # the instruction at the begin
    outcome: Texts = None
    env: Texts = None
    success: bool | None = None
    source: Texts = None  # somebody who acted in at least one frame: policy, person, expert, hold
    seeds: Numbers = None
    min_frames: int | None = None
    max_frames: int | None = None

    @property
    def empty(self) -> bool:
        """Whether no condition is given."""
        return all(getattr(self, field.name) is None for field in fields(self))


def choose(store: Store, choice: Choice, deleted: bool | None = False) -> np.ndarray:
    """Indices of the episodes for which all conditions hold, int64, ascending.

    Args:
        store: whose episodes.
        choice: the conditions.
        deleted: of episodes that are not marked as deleted; True: of those that are; None: of all.

    Raises:
        TandemError: a condition cannot be read, or names an episode, a text or a source that there is not.
    """
    where = f"{store.where}: choice"
    fits = np.ones(store.n_episodes, bool)
    if deleted is not None:
        fits &= store.load_episodes("deleted") == deleted
    if choice.episodes is not None:
        fits &= _named(ranges(choice.episodes, f"{where}: episodes"), store.n_episodes, where)
    for key in ("task", "outcome", "env"):
        patterns = getattr(choice, key)
        if patterns is not None:
            fits &= _like(store.episode_texts(key), patterns, f"{where}: {key}")
    if choice.success is not None:
        fits &= store.load_episodes("success") == choice.success
    if choice.seeds is not None:
        fits &= np.isin(store.load_episodes("seed"), ranges(choice.seeds, f"{where}: seeds"))
    lengths = np.diff(store.episode_ends, prepend=0)
    if choice.min_frames is not None:
        fits &= lengths >= choice.min_frames
    if choice.max_frames is not None:
        fits &= lengths <= choice.max_frames
    if choice.source is not None and store.n_episodes:
        fits &= _acted(store, choice.source, f"{where}: source")
    return np.flatnonzero(fits).astype(np.int64)


def ranges(numbers: int | str | Sequence[int | str], where: str) -> np.ndarray:
    """The numbers that ``3``, ``"5-9"``, ``"[0,3,5-9]"`` or ``[0, 3, "5-9"]`` name, int64, ascending.

    Raises:
        TandemError: something else came.
    """
    parts: Iterable[int | str]
    parts = numbers.strip("[] ").split(",") if isinstance(numbers, str) else [numbers] if _whole(numbers) else numbers  # type: ignore[list-item, assignment]
    found: list[np.ndarray] = []
    for part in parts if isinstance(parts, list | tuple) else ["?"]:
        match = _RANGE.fullmatch(str(part).replace(" ", "")) if isinstance(part, str) or _whole(part) else None
        if match is None:
            raise TandemError(f"{where}: {numbers!r:.80} (allowed: numbers and ranges, such as '[0,3,5-9]')")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if not -(2**62) < first <= last < 2**62 or last - first > _MOST:
            raise TandemError(f"{where}: {part} (allowed: the smaller number first, at most {_MOST} numbers)")
        found.append(np.arange(first, last + 1, dtype=np.int64))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _named(numbers: np.ndarray, count: int, where: str) -> np.ndarray:
    if len(numbers) and (numbers[0] < 0 or numbers[-1] >= count):
        wrong = int(numbers[0] if numbers[0] < 0 else numbers[-1])
        allowed = f"0..{count - 1}" if count else "none, the store is empty"
        raise TandemError(f"{where}: no episode {wrong} (allowed: {allowed})")
    named = np.zeros(count, bool)
    named[numbers] = True
    return named


def _like(texts: Sequence[str], patterns: str | Sequence[str], where: str) -> np.ndarray:
    known, fits = sorted(set(texts)), set()
    for pattern in _texts(patterns, where):
        like = {text for text in known if text == pattern or fnmatchcase(text.lower(), pattern.lower())}
        if not like:
            raise unknown(where, pattern[:80], known[:20])
        fits |= like
    return np.array([text in fits for text in texts], bool)


def _acted(store: Store, sources: str | Sequence[str], where: str) -> np.ndarray:
    known = {source.name.lower(): int(source) for source in Source}
    wanted = []
    for name in _texts(sources, where):
        if name not in known:
            raise unknown(where, name[:40], known)
        wanted.append(known[name])
    begins = np.append(0, store.episode_ends[:-1])
    return np.add.reduceat(np.isin(store.load("source"), wanted).astype(np.int64), begins) > 0


def _texts(value: str | Sequence[str], where: str) -> list[str]:
    """One text or several; what reads as a number was meant as a text."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(each, str) or _whole(each) for each in several):
        raise TandemError(f"{where}: {value!r:.80} (allowed: a text, or a list of texts)")
    return [str(each) for each in several]
