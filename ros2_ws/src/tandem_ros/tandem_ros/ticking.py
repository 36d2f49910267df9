"""A precise beat: calls something once per control period, from its own thread, on the steady clock."""

import threading
import time
from collections.abc import Callable

Beat = Callable[[int, int], bool]
"""Takes the number of the tick and when it was due (steady clock, ns); False ends the beat."""


class Ticker:
    """One thread that beats from :meth:`start` until the beat says that it is over, again and again.

    Args:
        period_ns: between ticks. A late tick does not move those after it.
        beat: what to call.
        failed: called with what the beat raised, if it did.
    """

    def __init__(self, period_ns: int, beat: Beat, failed: Callable[[BaseException], None]) -> None:
        self._period = period_ns
        self._beat = beat
        self._failed = failed
        self._changed = threading.Condition()
        self._begin: int | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def start(self, begin_ns: int) -> None:
        """Tick 0 is due at ``begin_ns`` on the steady clock (``time.monotonic_ns``)."""
        with self._changed:
            self._begin = begin_ns
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        try:
            while (begin := self._awaited()) is not None:
                self._beat_from(begin)
        except Exception as error:  # noqa: BLE001  (handed to the main thread)
            self._failed(error)

    def _awaited(self) -> int | None:
        with self._changed:
            while self._begin is None and not self._closed:
                self._changed.wait()
            begin, self._begin = self._begin, None
            return None if self._closed else begin

    def _beat_from(self, begin: int) -> None:
        tick = 0
        while not self._closed and self._begin is None:  # a new start ends this beat
            due = begin + tick * self._period
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            if not self._beat(tick, due):
                return
            tick += 1
