"""Episodes of one store: marked as deleted, given other facts, cut at their ends; and what is deleted thrown away."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tandem_datasets.codecs import codec_by_name
from tandem_datasets.errors import TandemError
from tandem_datasets.facts import text
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.ops.choosing import Choice, choose
from tandem_datasets.ops.copying import Cut, copy_episodes, whole
from tandem_datasets.ops.writing import StorePath, new_store, opened, rewritten
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store


def delete(store: StorePath, choice: Choice, *, deleted: bool = True) -> np.ndarray:
    """Marks the episodes for which ``choice`` holds as deleted, or lifts the mark; their indices.

    One byte each is changed in place, with the writer's lock held. Only :func:`compact` takes anything away.

    Raises:
        TandemError: no condition is given, nothing fits, another writer has the store, or the disk refuses.
    """
    doing = "delete" if deleted else "undelete"
    if choice.empty:
        raise TandemError(f"{doing} {store}: no condition (allowed: episodes=, task=, success=, seeds= ...)")
    with opened(store, doing) as writer:
        episodes = choose(Store(store), choice, deleted=not deleted)
        if not len(episodes):
            raise TandemError(f"{doing} {store}: no episode fits that is {'not ' * deleted}marked as deleted")
        writer.mark(episodes.tolist(), deleted)
    return episodes


def compact(store: StorePath, out: StorePath | None = None, progress: Progress = silent) -> int:
    """Writes a store anew without the episodes marked as deleted and without texts that nobody uses.

    Args:
        store: what is compacted. Readers that have it open get an error that says so.
        out: a new place; None: in its own, in one step, so that a crash leaves the old or the new store.
        progress: told after each episode.

    Returns:
        How many episodes were dropped.

    Raises:
        TandemError: it is damaged, another writer has it, or the disk refuses. It stays as it was.
    """
    if out is not None:
        source = Store(store)
        codec = codec_by_name(source.codec, source.where)
        with new_store(out, source.embodiment, codec, "compact") as writer:
            copy_episodes(whole(source, source.kept), writer, codec, progress)
        return source.n_episodes - len(source.kept)
    with rewritten(store, "compact") as (source, writer):
        codec = codec_by_name(source.codec, source.where)
        copy_episodes(whole(source, source.kept), writer, codec, progress)
    return source.n_episodes - len(source.kept)


@dataclass(frozen=True)
class Facts:
    """What :func:`relabel` changes; None: stays."""

    task: str | None = None
    outcome: str | None = None  # "success", or the kind of failure in one word
    success: bool | None = None  # follows from the outcome where that is given alone
    failure_reason: str | None = None
    env: str | None = None

    @property
    def in_place(self) -> dict[str, Any]:
        """Those that are single numbers in a store."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "task" and self._has(f.name)}

    def _has(self, key: str) -> bool:
        return getattr(self, key) is not None


def relabel(
    store: StorePath, choice: Choice, facts: Facts, *, out: StorePath | None = None, progress: Progress = silent
) -> np.ndarray:
    """Gives the episodes for which ``choice`` holds other facts; their indices.

    Outcome, success, failure reason and environment are changed in place, each value by one write. Another task is a
    part of frames, too: of all those that carry the old one. So the whole store is written anew for it, and takes its
    place in one step.

    Args:
        store: what is changed.
        choice: of episodes that are not deleted.
        facts: the new ones.
        out: a new place for the store, its deleted episodes left out; None: its own.
        progress: told after each episode that is written anew.

    Raises:
        TandemError: facts that contradict each other, nothing to change, another writer, or a disk that refuses.
    """
    where = f"relabel {store}"
    facts = _consistent(facts, where)
    if out is None and facts.task is None:
        with opened(store, "relabel") as writer:
            episodes = _chosen(Store(store), choice, where)
            writer.change(episodes.tolist(), facts.in_place)
        return episodes
    if out is None:
        with rewritten(store, "relabel") as (source, writer):
            episodes = _chosen(source, choice, where)
            codec = codec_by_name(source.codec, source.where)
            everything = [
                replace(cut, info=replace(cut.info, deleted=bool(mark)))
                for cut, mark in zip(
                    whole(source, range(source.n_episodes)), source.load_episodes("deleted"), strict=True
                )
            ]
            copy_episodes(_relabelled(everything, episodes, facts), writer, codec, progress)
        return episodes
    source = Store(store)
    episodes = _chosen(source, choice, where)
    codec = codec_by_name(source.codec, source.where)
    with new_store(out, source.embodiment, codec, "relabel") as writer:
        copy_episodes(_relabelled(whole(source, source.kept), episodes, facts), writer, codec, progress)
    return episodes


@dataclass(frozen=True)
class Ends:
    """What :func:`trim` cuts off."""

    first: int = 0  # frames at the begin
    last: int = 0  # frames at the end
    first_s: float = 0.0  # seconds at the begin, of the ticks' own time
    last_s: float = 0.0
    still: float | None = (
        None  # and then all at both ends in which no action and no state moves by more than this share
    )
    # of its limits' range
    margin: int = 5  # still frames that stay at each end
    min_frames: int = 1  # episodes that become shorter are left out


def trim(
    store: StorePath, out: StorePath, ends: Ends, choice: Choice | None = None, progress: Progress = silent
) -> tuple[Store, int, int]:
    """A new store whose episodes are cut at their ends; those for which ``choice`` does not hold go along as they are.

    A cut episode gets a uuid of its own, always the same for the same cut, and its origin under ``trimmed`` in its
    provenance. Its begin is its first frame; cut at the end, it ends where the first frame lay that was dropped, and
    its last frame is marked as truncated. Outcome and success stay.

    Returns:
        The new store, how many frames were cut off, and how many episodes were left out for being too short.

    Raises:
        TandemError: nothing is cut or nothing is left, the store is damaged, the place is taken, or the disk refuses.
    """
    source, where = Store(store), f"trim {store}"
    _check_ends(ends, where)
    chosen = set(choose(source, choice or Choice()).tolist())
    cuts, dropped, frames = [], 0, 0
    for cut in whole(source, source.kept):
        rows = source.episode_slice(cut.episode)
        first, last = (0, rows.stop - rows.start)
        if cut.episode in chosen:
            first, last = _kept_frames(source, rows, ends)
        if last - first < max(ends.min_frames, 1) and cut.episode in chosen:
            dropped += 1
            continue
        frames += rows.stop - rows.start - (last - first)
        cuts.append(_cut(cut, rows, first, last))
    if not cuts:
        raise TandemError(f"{where}: no episode is left (of {len(source.kept)} that are not deleted)")
    if not frames and not dropped:
        raise TandemError(f"{where}: nothing to cut off (allowed: first=, last=, first_s=, last_s=, still=)")
    codec = codec_by_name(source.codec, source.where)
    with new_store(out, source.embodiment, codec, "trim") as writer:
        copy_episodes(cuts, writer, codec, progress)
    return Store(out), frames, dropped


def _chosen(store: Store, choice: Choice, where: str) -> np.ndarray:
    if choice.empty:
        raise TandemError(f"{where}: no condition (allowed: episodes=, task=, success=, seeds= ...)")
    episodes = choose(store, choice)
    if not len(episodes):
        raise TandemError(f"{where}: no episode fits (of {len(store.kept)} that are not deleted)")
    return episodes


def _consistent(facts: Facts, where: str) -> Facts:
    if all(getattr(facts, field.name) is None for field in fields(facts)):
        raise TandemError(f"{where}: nothing to change (allowed: {', '.join(field.name for field in fields(facts))})")
    for key in ("task", "outcome", "failure_reason", "env"):
        if getattr(facts, key) is not None:
            text(getattr(facts, key), f"{where}: {key}")
    outcome, success = facts.outcome, facts.success
    if outcome is not None and (not outcome or len(outcome.split()) != 1):
        raise TandemError(
            f"{where}: outcome is {outcome!r:.80} (allowed: 'success' or the kind of failure in one word)"
        )
    if outcome is None and success is not None:
        if not success:
            raise TandemError(f"{where}: success=false without an outcome (allowed: outcome=, the kind of failure)")
        return replace(facts, outcome="success")
    if outcome is not None and success is None:
        return replace(facts, success=outcome == "success")
    if outcome is not None and success != (outcome == "success"):
        raise TandemError(
            f"{where}: outcome '{outcome}' with success={str(success).lower()} (they contradict each other)"
        )
    return facts


def _relabelled(cuts: Sequence[Cut], episodes: np.ndarray, facts: Facts) -> list[Cut]:
    chosen = set(episodes.tolist())
    return [_with_facts(cut, facts) if cut.episode in chosen else cut for cut in cuts]


def _with_facts(cut: Cut, facts: Facts) -> Cut:
    info = replace(cut.info, **facts.in_place)
    if facts.task is None:
        return replace(cut, info=info)
    return replace(cut, info=replace(info, instruction=facts.task), texts={cut.info.instruction: facts.task})


def _check_ends(ends: Ends, where: str) -> None:
    for key in ("first", "last", "first_s", "last_s", "margin", "still"):
        value = getattr(ends, key)
        if value is not None and not 0 <= value < 2**31:
            raise TandemError(f"{where}: {key} is {value} (allowed: at least 0)")


def _kept_frames(store: Store, rows: slice, ends: Ends) -> tuple[int, int]:
    """The first frame that stays, and one past the last."""
    stamps = store.load("stamp", rows.start, rows.stop)
    half = store.embodiment.period_ns // 2  # ticks are rounded
    first = max(ends.first, int(np.searchsorted(stamps, stamps[0] + round(ends.first_s * 1e9) - half)))
    last = min(len(stamps) - ends.last, int(np.searchsorted(stamps, stamps[-1] - round(ends.last_s * 1e9) + half)))
    if ends.still is not None and first < last:
        moves = np.flatnonzero(_moves(store, rows, ends.still)[first:last])
        if not len(moves):
            return first, first
        first, last = first + max(int(moves[0]) - ends.margin, 0), min(last, first + int(moves[-1]) + 1 + ends.margin)
    return first, last


def _moves(store: Store, rows: slice, share: float) -> np.ndarray:
    """Whether state or action differ from those of the frame before by more than a share of their range, bool (T,)."""
    found = np.zeros(rows.stop - rows.start, bool)
    robot = store.embodiment
    for key, low, high in (
        ("state", robot.state_low, robot.state_high),
        ("action", robot.action_low, robot.action_high),
    ):
        if len(low):
            values = store.load(key, rows.start, rows.stop)
            found[1:] |= (np.abs(np.diff(values, axis=0)) > share * (high - low)).any(1)
    return found


def _cut(cut: Cut, rows: slice, first: int, last: int) -> Cut:
    count = rows.stop - rows.start
    if (first, last) == (0, count):
        return cut
    stamps = cut.store.load("stamp", rows.start, rows.stop).tolist()
    changes: dict[str, Any] = {"uuid": _trimmed_uuid(cut.info, first, last)}
    if first:
        changes["begin_ns"] = stamps[first]
    if last < count:
        changes["end_ns"] = stamps[last]
    origin = {"uuid": cut.info.uuid, "first": first, "last": last - 1, "frames": count}
    changes["provenance"] = {**cut.info.provenance, "trimmed": origin}
    return replace(cut, info=replace(cut.info, **changes), first=first, last=last, truncate=last < count)


def _trimmed_uuid(info: EpisodeInfo, first: int, last: int) -> str:
    return str(uuid.uuid5(uuid.UUID(info.uuid), f"frames {first} to {last - 1}"))
