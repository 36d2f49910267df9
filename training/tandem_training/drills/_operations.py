"""What the drill lets fail: operations on stores, each with its start, what it does and what must hold afterwards.

To add one: a function that gives an :class:`Operation`, and its line in :data:`OPERATIONS`. Everything that it changes
on the disk must go through ``tandem_datasets.files``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


OPERATIONS: dict[str, Callable[[], Operation]] = {
    "recorder": lambda: _recorder(1, 2, 1),  # the second one is long: it is written while it is open
    "recorder_new": lambda: _recorder(0, 1, 1),  # makes the store
    "recorder_group": lambda: _recorder(2, 2, 2),  # two episodes in one commit
}
