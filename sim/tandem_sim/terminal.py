"""Pictures and keys in a terminal: half blocks in true colour, no further library."""

import os
import select
import shutil
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.play import Event

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # alternate screen, no cursor
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_ARROWS = {"A": "Up", "B": "Down", "C": "Right", "D": "Left"}
_NAMED = {"\r": "Return", "\n": "Return", " ": "space", "\t": "Tab", "\x1b": "Escape", "\x04": "Escape"}
_ESCAPE_WAIT_S = 0.05  # what follows an escape within this time belongs to it


class TerminalView:
    """A :class:`~tandem_sim.play.View` on standard input and output; a context that leaves the terminal as it was.

    Raises:
        TandemError: they are no terminal, or one that knows no colours.
    """

    def __init__(self) -> None:
        if not available():
            raise TandemError("terminal: standard input and output are not both a terminal with colours")
        self._fd = sys.stdin.fileno()
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        import termios
        import tty

        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios

        with suppress(OSError, termios.error):  # the terminal may be gone
            self._write(_LEAVE)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def show(self, image: np.ndarray, lines: list[str]) -> None:
        size = shutil.get_terminal_size((80, 24))
        rows = half_blocks(image, size.columns, size.lines - len(lines) - 1)
        text = [*rows, *(f"\x1b[0m{line[: size.columns]}" for line in lines)]
        self._write("\x1b[H" + "\x1b[K\r\n".join(text) + "\x1b[K\x1b[J")

    def wait(self) -> Event:
        first = self._read()
        if first != "\x1b" or not select.select([self._fd], [], [], _ESCAPE_WAIT_S)[0]:
            return Event(_NAMED.get(first, first) or "Escape")  # nothing read: nobody is there
        sequence = self._read()
        while sequence[-1:] and (sequence in "[O" or not sequence[-1].isalpha()) and sequence[-1] != "~":
            sequence += self._read()
        name = _ARROWS.get(sequence[-1:], "unknown")
        return Event(f"Shift-{name}" if ";2" in sequence else name)

    def _read(self) -> str:
        try:
            return os.read(self._fd, 1).decode("latin-1")
        except OSError:  # the terminal is gone
            return ""

    def _write(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def available() -> bool:
    """Whether standard input and output are a terminal that keys can be read from."""
    try:
        import termios  # noqa: F401
    except ImportError:  # Windows
        return False
    # a stream is None where the shell closed it
    there = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    return there and os.environ.get("TERM") != "dumb"


def half_blocks(image: np.ndarray, columns: int, rows: int) -> list[str]:
    """An image as lines of half blocks, two pixels a character, as large as fits."""
    height, width = image.shape[:2]
    scale = max(8 / height, min(columns / width, 2 * rows / height))
    scale = float(int(scale)) or scale  # whole pixels where there is room
    how = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    pixels = cv2.resize(image, (int(width * scale), max(2, int(height * scale) // 2 * 2)), interpolation=how)
    return ["".join(map(_two, upper, lower)) for upper, lower in zip(pixels[::2], pixels[1::2], strict=True)]


def _two(upper: np.ndarray, lower: np.ndarray) -> str:
    (r, g, b), (u, v, w) = upper, lower
    return f"\x1b[38;2;{r};{g};{b};48;2;{u};{v};{w}m\u2580"
