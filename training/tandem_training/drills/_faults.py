"""A failure at one chosen file operation of this process, put in at the seam of ``tandem_datasets.files``."""

import errno
import os
import signal
import threading
from collections.abc import Callable

BEFORE, IN, AFTER = "before", "in", "after"
PHASES = (BEFORE, IN, AFTER)
ERROR, KILL = "error", "kill"
KINDS = (ERROR, KILL)

_NO_ROOM = ("open", "write", "resize", "make folder")  # the disk is full; other operations fail as a broken disk does


class Fault:
    """Strikes once, at operation ``at`` (from 0); -1: never, it only counts.

    Args:
        at: which operation, in the order in which they begin.
        phase: before it, after it, or in it: half of what was to be written is. The order of what threads do varies a
            little: should the operation write nothing after all, it fails before.
        kind: an OSError, or the end of the process.
    """

    def __init__(self, at: int, phase: str, kind: str) -> None:
        self._at, self._phase, self._kind = at, phase, kind
        self._lock = threading.Lock()
        self.writes: list[bool] = []  # operations so far, and whether they write, so that half of it can be done
        self.struck = ""  # the operation and the file that it was for

    def run[T](self, operation: str, path: str, whole: Callable[[], T], half: Callable[[], object] | None) -> T:
        """See ``tandem_datasets.files.Faults``."""
        with self._lock:
            mine = len(self.writes) == self._at
            self.writes.append(half is not None)
        if not mine:
            return whole()
        self.struck = f"{operation} {path}"
        if self._phase == AFTER:
            whole()
        elif self._phase == IN and half is not None:
            half()
        if self._kind == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if operation in _NO_ROOM else errno.EIO
        raise OSError(number, os.strerror(number))
