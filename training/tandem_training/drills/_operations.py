"""What the drill lets fail: operations on stores, each with its start, what it does and what must hold afterwards.

To add one: a function that gives an :class:`Operation`, and its line in :data:`OPERATIONS`. Everything that it changes
on the disk must go through ``tandem_datasets.files``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tandem_datasets.errors import TandemError
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store
from tandem_training.drills import _recording
from tandem_training.drills._recording import Tell

Findings = tuple[dict[str, int], str]  # counts as ``_recording.check`` gives them, and the first error


@dataclass(frozen=True)
class Operation:
    """All three get the same folder, in which they may do as they like."""

    prepare: Callable[[Path], None]  # what is there before; done once, and copied
    act: Callable[[Path, Tell], None]  # runs with a fault; tells how many episodes are committed
    check: Callable[[Path, int], Findings]  # after it, given the last number that was told
    at_least: int = 0  # episodes that are there in the end, unless the process was killed


def _recorder(start: int, more: int, group: int) -> Operation:
    def prepare(folder: Path) -> None:
        if start:
            _recording.record(folder / "store", start, lambda _: None, group=1, sync=False)

    def act(folder: Path, tell: Tell) -> None:
        _recording.record(folder / "store", start + more, tell, group=group, sync=True)

    def check(folder: Path, committed: int) -> Findings:
        return _recording.check(folder / "store", max(committed, start))

    return Operation(prepare, act, check, at_least=start + more)


def _compact() -> Operation:
    """Five episodes, of which two are marked as deleted: the old store or the new one, and nothing between."""
    kept = (1, 2, 3)

    def prepare(folder: Path) -> None:
        _recording.record(folder / "store", 5, lambda _: None, group=1, sync=False)  # marks every fourth

    def act(folder: Path, tell: Tell) -> None:
        from tandem_datasets.ops.changing import compact

        _recording.again(lambda: compact(folder / "store"))
        tell(len(kept))

    def check(folder: Path, told: int) -> Findings:
        path = folder / "store"
        try:
            old = not told and Store(path).n_episodes == 5
        except TandemError:
            old = True
        numbers = range(5) if old else kept
        return _recording.check(path, len(numbers), numbers=numbers)

    return Operation(prepare, act, check, at_least=len(kept))


def _merge() -> Operation:
    """Two stores into a third: that is complete or not there, and the others stay as they are."""
    numbers = (0, 1, 0)

    def prepare(folder: Path) -> None:
        for name, count in (("one", 2), ("other", 1)):
            with Recorder(folder / name, _recording.RIG, codec=_recording.CODEC, fsync=False) as recorder:
                for episode in range(count):
                    recorder.write_episode(_recording.info_of(episode), _recording.frames_of(episode))

    def act(folder: Path, tell: Tell) -> None:
        from tandem_datasets.ops.joining import merge

        def attempt() -> None:
            if not (folder / "both").exists():
                merge([folder / "one", folder / "other"], folder / "both")

        _recording.again(attempt)
        tell(len(numbers))

    def check(folder: Path, told: int) -> Findings:
        if not told and not (folder / "both").exists():
            act(folder, lambda _: None)  # the next attempt succeeds
        found, first = _recording.check(folder / "both", len(numbers), numbers=numbers)
        for name, count in (("one", 2), ("other", 1)):
            more, problem = _recording.check(folder / name, count, append=False)
            found, first = {key: value + more[key] for key, value in found.items()}, first or problem
        return found, first

    return Operation(prepare, act, check, at_least=len(numbers))


OPERATIONS: dict[str, Callable[[], Operation]] = {
    "recorder": lambda: _recorder(1, 2, 1),  # the second one is long: it is written while it is open
    "recorder_new": lambda: _recorder(0, 1, 1),  # makes the store
    "recorder_group": lambda: _recorder(2, 2, 2),  # two episodes in one commit
    "compact": _compact,
    "merge": _merge,
}
