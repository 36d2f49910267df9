"""Ctrl-C and SIGTERM become a wish to stop after the running step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import NoReturn


class Interrupts:
    """Inside the block the first signal sets :attr:`asked`; a second one interrupts at once, see :meth:`unwind`.

    Only a main thread can take signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.asked = 0  # the signal's number
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.unwind()
        self.asked = number

    def unwind(self) -> NoReturn:
        """Raises what the signal would have raised without us: KeyboardInterrupt, or SystemExit for SIGTERM."""
        if self.asked == signal.SIGTERM:
            raise SystemExit(128 + self.asked)
        raise KeyboardInterrupt
