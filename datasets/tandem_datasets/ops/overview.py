"""What a store holds, in numbers: for `tandem data info`, pages and cards."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.store import Store

_ORIGINS = ("policy", "operator", "weights_sha256", "tandem", "code")  # of provenance, where they are texts


@dataclass(frozen=True)
class Overview:
    """Of the episodes that are not deleted, unless it says otherwise. Counters map a text to a number of episodes."""

    episodes: int
    deleted: int  # marked so, beside those
    frames: int
    seconds: float  # frames at the embodiment's rate
    shortest: int  # frames
    median: float
    longest: int
    successes: int
    labelled: int  # frames with an expert's label
    bytes: int | None  # on the disk, everything; None: remote
    tasks: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    failure_reasons: dict[str, int] = field(default_factory=dict)
    envs: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)  # who acted, in frames
    origins: dict[str, dict[str, int]] = field(default_factory=dict)  # from provenance: policy, operator ...


def overview(store: Store) -> Overview:
    """Raises TandemError where the store is damaged. Reads no images."""
    kept = store.kept.tolist()
    ends = store.episode_ends
    lengths = np.diff(ends, prepend=0)[kept]
    rows = np.zeros(store.n_frames, bool)
    for episode in kept:
        rows[store.episode_slice(episode)] = True
    acted = np.bincount(store.load("source")[rows], minlength=len(Source))
    infos = [info for info in store.infos() if not info.deleted]
    return Overview(
        episodes=len(kept),
        deleted=store.n_episodes - len(kept),
        frames=int(lengths.sum()),
        seconds=float(lengths.sum() / store.embodiment.rate_hz),
        shortest=int(lengths.min()) if kept else 0,
        median=float(np.median(lengths)) if kept else 0.0,
        longest=int(lengths.max()) if kept else 0,
        successes=sum(info.success for info in infos),
        labelled=int(store.load("has_label")[rows].sum()),
        bytes=None if store.remote else folder_bytes(str(store.path)),
        tasks=counted(info.instruction for info in infos),
        outcomes=counted(info.outcome for info in infos),
        failure_reasons=counted(info.failure_reason for info in infos if info.failure_reason),
        envs=counted(info.env for info in infos),
        sources={source.name.lower(): int(acted[source]) for source in Source if acted[source]},
        origins=_origins(infos),
    )


def folder_bytes(path: str) -> int:
    """What files below a folder take on the disk; sparse ones take less than they are long."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def counted(texts: Iterable[str]) -> dict[str, int]:
    """How often each text comes, the most frequent first."""
    return dict(sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0])))


def _origins(infos: Iterable[EpisodeInfo]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for info in infos:
        for key in _ORIGINS:
            if isinstance(value := info.provenance.get(key), str):
                found.setdefault(key, Counter())[value] += 1
        imported = info.provenance.get("imported")
        if isinstance(imported, dict) and isinstance(name := imported.get("format"), str):
            found.setdefault("imported from", Counter())[name] += 1
    return {key: counted(values.elements()) for key, values in found.items()}
