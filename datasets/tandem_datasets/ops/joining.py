"""Several stores into one, one into several, and parts of one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from tandem_datasets.codecs import codec_by_name
from tandem_datasets.embodiment import ActionScalar, Embodiment, StateScalar
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.importing import require_vacant, write_beside
from tandem_datasets.ops.choosing import Choice, choose
from tandem_datasets.ops.copying import Cut, copy_episodes, whole
from tandem_datasets.ops.writing import StorePath, new_store
from tandem_datasets.progress import Progress, silent
from tandem_datasets.splits import BY_EPISODE
from tandem_datasets.splits import split as parts_of
from tandem_datasets.store import Store

DUPLICATES = ("refuse", "skip")


def merge(
    stores: Sequence[StorePath],
    out: StorePath,
    *,
    codec: str | None = None,
    duplicates: str = "refuse",
    widen: bool = False,
    progress: Progress = silent,
) -> Store:
    """A new store with all episodes that are not deleted, in the order of the stores.

    Args:
        stores: of one embodiment.
        out: a place where nothing is yet.
        codec: of the new store's images; None: the one that they all have. Images of others are encoded anew.
        duplicates: what is done about an episode that is there already, told by its uuid: "refuse" or "skip".
        widen: whether stores may differ in the limits of state and action; the new one has the widest.
        progress: told after each episode.

    Raises:
        TandemError: stores that do not fit together or are damaged, a place that is taken, or a disk that refuses.
    """
    where = f"merge to {out}"
    if not stores:
        raise TandemError(f"{where}: no store (allowed: at least one)")
    if duplicates not in DUPLICATES:
        raise unknown(f"{where}: duplicates", duplicates, DUPLICATES)
    opened = [Store(path) for path in stores]
    embodiment = _common(opened, widen, where)
    codecs = list(dict.fromkeys(store.codec for store in opened))
    if codec is None and len(codecs) > 1:
        raise TandemError(f"{where}: the stores' codecs are {', '.join(codecs)} (allowed: codec=..., one for all)")
    chosen = codec_by_name(codec or codecs[0], where)
    cuts = _without_duplicates(list(chain.from_iterable(whole(each, each.kept) for each in opened)), duplicates, where)
    with new_store(out, embodiment, chosen, "merge") as writer:
        copy_episodes(cuts, writer, chosen, progress)
    return Store(out)


def filtered(store: StorePath, out: StorePath, choice: Choice, progress: Progress = silent) -> Store:
    """A new store with the episodes for which ``choice`` holds, those left out that are marked as deleted.

    Raises:
        TandemError: none is left, the store is damaged, the place is taken, or the disk refuses.
    """
    source = Store(store)
    episodes = choose(source, choice)
    if not len(episodes):
        raise TandemError(f"filter {store}: no episode is left (of {len(source.kept)} that are not deleted)")
    return _copied(source, episodes, out, "filter", progress)


def split(
    store: StorePath,
    out: StorePath,
    fractions: Mapping[str, float],
    *,
    by: str = BY_EPISODE,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Store]:
    """A new folder with a store for each part, ``<out>/<part>.zarr``; see :func:`splits.split` for what goes where.

    Raises:
        TandemError: fractions or names that cannot be, the store is damaged, the place is taken, or the disk refuses.
    """
    source, place = Store(store), Path(out)
    where = f"split to {place}"
    for name in fractions:
        if not name.isidentifier():
            raise TandemError(f"{where}: a part is called '{name:.40}' (allowed: letters, digits and _)")
    parts = parts_of(source, fractions, by, seed)
    total = sum(map(len, parts.values()))
    require_vacant(place, where)

    def fill(beside: Path) -> None:
        before = 0
        for name, episodes in parts.items():

            def advance(done: int, _: int, unit: str, before: int = before) -> None:
                progress(before + done, total, unit)

            _copied(source, episodes, beside / f"{name}.zarr", "split", advance)
            before += len(episodes)

    write_beside(place, fill, where)
    return {name: Store(place / f"{name}.zarr") for name in parts}


def _copied(source: Store, episodes: np.ndarray, out: StorePath, doing: str, progress: Progress) -> Store:
    codec = codec_by_name(source.codec, source.where)
    with new_store(out, source.embodiment, codec, doing) as writer:
        copy_episodes(whole(source, episodes), writer, codec, progress)
    return Store(out)


def _common(stores: Sequence[Store], widen: bool, where: str) -> Embodiment:
    common = stores[0].embodiment
    for store in stores[1:]:
        other = store.embodiment
        if widen:
            common, other = _widened(common, other), _widened(other, common)
        if other != common:
            differs = "; ".join(other.misfits(common)) or "another name, or other camera frames and rates"
            hint = "" if widen else "; widen=true overlooks limits"
            raise TandemError(f"{where}: {store.name} does not fit {stores[0].name}: {differs}{hint}")
    return common


def _widened(one: Embodiment, other: Embodiment) -> Embodiment:
    """``one`` with limits that hold for both, where their scalars are the same."""
    if len(one.state) != len(other.state) or len(one.action) != len(other.action):
        return one
    return replace(
        one,
        state=tuple(_wider(a, b) for a, b in zip(one.state, other.state, strict=True)),
        action=tuple(_wider(a, b) for a, b in zip(one.action, other.action, strict=True)),
    )


def _wider[S: (StateScalar, ActionScalar)](one: S, other: S) -> S:
    return replace(one, low=min(one.low, other.low), high=max(one.high, other.high))


def _without_duplicates(cuts: Sequence[Cut], duplicates: str, where: str) -> list[Cut]:
    first: dict[str, Cut] = {}
    for cut in cuts:
        before = first.setdefault(cut.info.uuid, cut)
        if before is not cut and duplicates == "refuse":
            raise TandemError(
                f"{where}: episode {cut.episode} of {os.fspath(cut.store.name)} is episode {before.episode} of "
                f"{before.store.name} (allowed: each once, or duplicates=skip)"
            )
    return list(first.values())
