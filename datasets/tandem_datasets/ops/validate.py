"""Finds every promise of the layout that a store does not keep, and mends what can be mended."""

import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tandem_datasets.beside import LOCK
from tandem_datasets.errors import TandemError
from tandem_datasets.locks import is_held
from tandem_datasets.ops.content import EpisodeCheck, Found, check_facts, limits_warnings
from tandem_datasets.ops.flaws import Flaw, Kind, Level
from tandem_datasets.ops.repair import Repair
from tandem_datasets.ops.structure import Skeleton, check_structure, skeleton
from tandem_datasets.ops.writing import StorePath, local_folder, opened
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store
from tandem_datasets.workers import in_order

_HINDERS = (Kind.ROOT, Kind.METADATA, Kind.SHAPE, Kind.CHUNK, Kind.SHARD, Kind.PROVENANCE)


@dataclass(frozen=True)
class Report:
    """What ``validate`` found."""

    flaws: list[Flaw]
    episodes: int  # that were looked at
    frames: int
    repaired: list[Flaw] = field(default_factory=list)  # of those that were found, what is gone now
    deleted: list[int] = field(default_factory=list)  # episodes that the repair marked

    @property
    def broken(self) -> list[Flaw]:
        """What is still not as it should be."""
        repaired = set(self.repaired)
        return [flaw for flaw in self.flaws if flaw.level is Level.BROKEN and flaw not in repaired]

    @property
    def warnings(self) -> list[Flaw]:
        return [flaw for flaw in self.flaws if flaw.level is Level.WARNING]


def validate(
    store: StorePath,
    *,
    repair: bool = False,
    decode: bool = True,
    workers: int = 1,
    progress: Progress = silent,
) -> Report:
    """Looks at every file and every frame of a store.

    Args:
        store: a folder; damaged ones are what this is for.
        repair: whether to mend what each flaw's ``remedy`` says. Afterwards everything is looked at once more.
        decode: whether to decode every image, too.
        workers: so many processes look at frames.
        progress: told after each episode.

    Raises:
        TandemError: there is no folder; with ``repair``, another writer has the store or the disk refuses.
    """
    root = str(local_folder(store, "validate"))
    if not os.path.isdir(root):
        raise TandemError(f"validate {root}: {'a file, not a folder' if os.path.exists(root) else 'there is none'}")
    report = _look(root, decode, workers, progress)
    if not repair or not any(flaw.remedy for flaw in report.flaws):
        return report
    try:
        deleted = _mend(root, report, decode, workers, progress)
    except OSError as error:
        raise TandemError(f"validate {root}: cannot be repaired: {error.strerror or error}") from error
    again = _look(root, decode, workers, progress)
    left = {(flaw.kind, flaw.where) for flaw in again.flaws if flaw.level is Level.BROKEN}
    before = {(flaw.kind, flaw.where) for flaw in report.flaws}
    new = [flaw for flaw in again.flaws if (flaw.kind, flaw.where) not in before]
    gone = [f for f in report.flaws if f.level is Level.BROKEN and (f.kind, f.where) not in left]
    return Report([*report.flaws, *new], again.episodes, again.frames, gone, deleted)


def _look(root: str, decode: bool, workers: int, progress: Progress) -> Report:
    where = f"store {root}"
    try:
        bones = skeleton(root, where)
    except TandemError as error:
        return Report([Flaw(Kind.ROOT, "store", str(error).removeprefix(f"{where}: "))], 0, 0)
    writing = is_held(Path(root, LOCK))
    flaws = check_structure(bones, writing)
    if writing:
        note = "a writer has it open; what it is writing was not looked at"
        flaws.append(Flaw(Kind.WRITER, "store", note, level=Level.WARNING))
    flaws += _content(bones, flaws, decode, workers, progress)
    return Report(flaws, len(bones.ends), int(bones.ends[-1]) if len(bones.ends) else 0)


def _content(bones: Skeleton, structure: list[Flaw], decode: bool, workers: int, progress: Progress) -> list[Flaw]:
    """Facts and frames, as far as they can be read at all."""
    try:
        store = Store(bones.root)
        facts = check_facts(store, bones)
        check, count = EpisodeCheck(store, decode), store.n_episodes
        found: list[Found] = []
        with closing(in_order(check, range(count), workers, f"validate {bones.root}")) as each:
            for done, one in enumerate(each, 1):
                found.append(one)
                progress(done, count, "episodes")
    except TandemError as error:
        if any(flaw.kind in _HINDERS for flaw in structure):
            return []  # looked at after the repair
        return [Flaw(Kind.ROOT, "store", str(error).removeprefix(f"{bones.where}: "))]
    return [*facts, *(flaw for one in found for flaw in one.flaws), *limits_warnings(found)]


def _mend(root: str, report: Report, decode: bool, workers: int, progress: Progress) -> list[int]:
    """Returns the episodes that were marked as deleted."""
    where = f"store {root}"
    bones = skeleton(root, where)
    with Repair(bones) as mending:
        mending.structure(report.flaws)
        bones = skeleton(root, where)
    hindered = any(flaw.kind in _HINDERS for flaw in report.flaws)
    flaws = _content(bones, [], decode, workers, progress) if hindered else report.flaws
    with Repair(bones) as mending:
        marked = mending.facts(flaws)
    with opened(root, "validate") as writer:  # drops what is left over, and puts shapes back
        if marked:
            writer.mark(marked, True)
    return marked
