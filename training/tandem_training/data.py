"""Stores to training windows: which frames teach what, chunks with padding, splits and order.

Numbers are held in memory, and so are the images as they are stored (uint8) if they fit: BlockFind's 5000 frames are
60 MB. Images that do not fit are read and decoded when a batch asks for them; the batches are the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.order import Mixed, Shuffled
from tandem_datasets.targets import Origin, episode_rows, require_finite, runs, targets
from tandem_training.images import AUTO, Images, images_of


@dataclass(frozen=True)
class Frames:
    """All frames of one or several stores, N in total, in the order of the stores."""

    embodiment: Embodiment
    images: Mapping[str, Images]  # per camera (N, H, W, C), the camera's dtype
    state: np.ndarray  # (N, S) float32, units
    target: np.ndarray  # (N, A) float32, units; undefined where origin is NONE
    origin: np.ndarray  # (N,) Origin
    episode: np.ndarray  # (N,) int64, counted over all stores
    store: np.ndarray  # (N,) int64, which of the stores
    instruction: np.ndarray  # (N,) int64, an index into instructions
    instructions: tuple[str, ...]
    run_end: np.ndarray  # (N,) int64, one past the last frame of the run; see :func:`runs`

    @property
    def usable(self) -> np.ndarray:
        """Indices of the frames that have a target."""
        return np.flatnonzero(self.origin != Origin.NONE)

    def history(self, indices: np.ndarray, steps: int) -> np.ndarray:
        """The frames (B, T) up to ``indices``, oldest first; an episode's first frame stands for those before it."""
        first = np.searchsorted(self.episode, self.episode[indices])  # episodes are counted in order
        back = np.arange(steps - 1, -1, -1)
        return np.maximum(indices[:, None] - back, first[:, None])

    def windows(self, indices: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """Chunks (B, K, A) float32 that begin at ``indices``, and which of their actions are padding, bool (B, K).

        A chunk never leaves its run; padding repeats the run's last action.
        """
        ahead = indices[:, None] + np.arange(chunk)
        ends = self.run_end[indices][:, None]
        return self.target[np.minimum(ahead, ends - 1)], ahead >= ends

    def past(self, indices: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The actions (B, P, A) float32 before ``indices``, oldest first, and which of them are padding, bool (B, P).

        They never leave the run; padding repeats its first action.
        """
        behind = indices[:, None] - np.arange(count, 0, -1)
        first = np.searchsorted(self.run_end, self.run_end[indices])[:, None]  # runs end one after the other
        return self.target[np.maximum(behind, first)], behind < first


@dataclass(frozen=True)
class Split:
    """Indices of usable frames to learn from and to validate on."""

    train: np.ndarray
    validation: np.ndarray
    train_episodes: int
    validation_episodes: int
    shared: bool  # there is only one episode: it is both


def load_frames(paths: Sequence[str | Path], where: str = "data", images: str = AUTO) -> tuple[Frames, str]:
    """All committed frames of the stores, but those of episodes marked as deleted, and a digest of their content.

    Args:
        paths: folders or URLs.
        where: begins the errors.
        images: whether they are held in memory, see :func:`images.images_of`. If so all episodes are compared with
            their checksums, too.

    Raises:
        TandemError: a store is missing, damaged or empty, embodiments differ, stores share episodes, nothing in them
            has a target, or they do not fit into memory.
    """
    from tandem_datasets.store import Store

    if not paths:
        raise TandemError(f"{where}: no store (allowed: data=<store>, or data='[a,b]')")
    stores = [Store(path) for path in paths]
    embodiment = stores[0].embodiment
    embodiment.require_action(f"{where}: {paths[0]}")
    for path, store in zip(paths, stores, strict=True):
        if not len(store.kept):
            raise TandemError(f"{where}: {path} is empty (allowed: at least one episode)")
        if store.embodiment != embodiment:
            difference = first_difference(embodiment.to_dict(), store.embodiment.to_dict())
            raise TandemError(f"{where}: {path} is of another embodiment than {paths[0]}: {difference}")
    _check_apart(paths, stores, where)
    rows = [episode_rows(store.episode_ends, store.kept) for store in stores]
    whole = {key: _joined(stores, rows, key) for key in ("state", "action", "action_label", "has_label", "source")}
    lengths = [np.diff(store.episode_ends, prepend=0)[store.kept] for store in stores]
    episode = np.repeat(np.arange(sum(map(len, lengths))), np.concatenate(lengths))
    instructions = sorted({text for store in stores for text in store.instructions})
    places = {text: place for place, text in enumerate(instructions)}
    instruction = np.concatenate(
        [_instructions(store, store.load("instruction")[own], places) for store, own in zip(stores, rows, strict=True)]
    )
    target, origin = targets(whole["action"], whole["action_label"], whole["has_label"], whole["source"])
    if not (origin != Origin.NONE).any():
        raise TandemError(
            f"{where}: none of {len(origin)} frames has a target (wanted: expert or person acting, or labels)"
        )
    pictures = images_of(stores, rows, where, images)
    if all(isinstance(held, np.ndarray) for held in pictures.values()):  # else that alone would be an epoch's reading
        for store in stores:
            store.verify(*store.kept.tolist())
    frames = Frames(
        embodiment=embodiment,
        images=pictures,
        state=whole["state"],
        target=target,
        origin=origin,
        episode=episode,
        store=np.repeat(np.arange(len(stores)), [len(own) for own in rows]),
        instruction=instruction,
        instructions=tuple(instructions),
        run_end=runs(origin, episode, instruction),
    )
    return frames, "+".join(store.digest for store in stores)


def split_episodes(frames: Frames, fraction: float, seed: int) -> Split:
    """Whole episodes to either side: about ``fraction`` of them, at least one, to validate on."""
    usable = frames.usable
    owners = frames.episode[usable]
    episodes = np.unique(owners)
    if len(episodes) == 1:
        return Split(usable, usable, 1, 1, shared=True)
    count = min(max(1, round(fraction * len(episodes))), len(episodes) - 1)
    held = np.random.default_rng([seed, 1]).permutation(episodes)[:count]
    outside = np.isin(owners, held)
    return Split(usable[~outside], usable[outside], len(episodes) - count, count, shared=False)


def split_stores(frames: Frames, learn: int) -> Split:
    """The first ``learn`` stores to learn from, the others to validate on."""
    usable = frames.usable
    sides = [usable[frames.store[usable] < learn], usable[frames.store[usable] >= learn]]
    assert all(map(len, sides)), "a side without a target"
    counts = [len(np.unique(frames.episode[side])) for side in sides]
    return Split(sides[0], sides[1], counts[0], counts[1], shared=False)


def thinned(indices: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` (from 1) of the indices, evenly spread."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]


def statistics(
    frames: Frames, indices: np.ndarray, weights: Sequence[float] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Mean, std, min and max of state and target over some frames, float32, in units.

    With ``weights``, one for each store, mean and std are those of batches that are drawn by these weights.
    """
    columns = {"state": frames.state[indices], "action": frames.target[indices]}
    spread = _spread if weights is None else _weighted(frames.store[indices], weights)
    return {key: {**spread(values), "min": values.min(0), "max": values.max(0)} for key, values in columns.items()}


def _spread(values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and std (D,) of values (N, D)."""
    mean, std = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    return {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}


def _weighted(store: np.ndarray, weights: Sequence[float]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """:func:`_spread` where store k, told for each value by ``store`` (N,), has ``weights[k]`` of the whole."""
    each = (np.array(weights) / np.bincount(store, minlength=len(weights)).clip(1))[store]

    def spread(values: np.ndarray) -> dict[str, np.ndarray]:
        mean = np.average(values.astype(np.float64), axis=0, weights=each)
        std = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=each))
        return {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}

    return spread


class Order:
    """An endless shuffled order of samples; which ones batch ``index`` holds depends on the seed and the index only.

    Every epoch is a permutation of its own, and batches run across their borders.
    """

    def __init__(self, samples: np.ndarray, batch_size: int, seed: int) -> None:
        self._samples, self._size = samples, batch_size
        self._order: Shuffled | Mixed = Shuffled(samples, seed)

    def __call__(self, index: int) -> np.ndarray:
        """The samples of batch ``index``, shape (batch_size,)."""
        return self._order.take(index * self._size, (index + 1) * self._size)


class WeightedOrder(Order):
    """As :class:`Order`, of groups that are drawn by weight; each has shuffled epochs of its own.

    Raises:
        TandemError: a group without samples, or weights that do not fit.
    """

    def __init__(
        self, groups: Mapping[str, np.ndarray], weights: Sequence[float], batch_size: int, seed: int, where: str
    ) -> None:
        for name, group in groups.items():
            if not len(group):
                raise TandemError(f"{where}: nothing to learn from in {name} (allowed: stores with targets)")
        super().__init__(np.concatenate(list(groups.values())), batch_size, seed)
        self._order = Mixed(list(groups.values()), weights, seed, where)


def first_difference(one: Any, other: Any, path: str = "") -> str:
    """Where two plain JSON values first differ, as ``action[0].high is 1.0, not 2.0``."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(f"{path}.{key}" if path else key, one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{path}[{place}]", *both) for place, both in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, list) and isinstance(other, list):
        return f"{path} has {len(other)} entries, not {len(one)}"
    else:
        return f"{path} is {other!r:.80}, not {one!r:.80}"
    return next((first_difference(left, right, at) for at, left, right in pairs if left != right), "")


def _joined(stores: Sequence[Any], rows: Sequence[np.ndarray], key: str) -> np.ndarray:
    """One column of all stores, (N, ...)."""
    parts = []
    for store, own in zip(stores, rows, strict=True):
        values = store.load(key)
        parts.append(values if len(own) == store.n_frames else values[own])
        if values.ndim == 2:
            require_finite(parts[-1], own, key, store.where)
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _instructions(store: Any, codes: np.ndarray, places: Mapping[str, int]) -> np.ndarray:
    """One store's instruction per frame as a place in the common list, int64 (N,)."""
    texts = store.instructions
    if codes.min() < 0 or codes.max() >= len(texts):
        raise TandemError(
            f"data: {store.name}: instruction codes {codes.min()}..{codes.max()} (allowed: 0..{len(texts) - 1})"
        )
    return np.array([places[text] for text in texts], np.int64)[codes]


def _check_apart(paths: Sequence[str | Path], stores: Sequence[Any], where: str) -> None:
    """Raises TandemError if an episode is in two stores: it could then be learned from and validated on."""
    if len(stores) == 1:
        return
    owners: dict[bytes, str | Path] = {}
    for path, store in zip(paths, stores, strict=True):
        uuids = {uuid.tobytes() for uuid in store.load_episodes("uuid")[store.kept]}
        twice = sorted(uuids & owners.keys())
        if twice:
            raise TandemError(
                f"{where}: {path} holds {len(twice)} episodes of {owners[twice[0]]} (allowed: each episode once)"
            )
        owners |= dict.fromkeys(uuids, path)
