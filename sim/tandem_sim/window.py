"""A window for pictures, keys and clicks, on tkinter (Python's own toolkit)."""

import os
import sys
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np

from tandem_datasets.errors import TandemError


class Window:
    """Shows RGB pictures; collects the keys and clicks that a person makes on them.

    Raises:
        TandemError: there is no display, or no tkinter.
    """

    def __init__(self, title: str) -> None:
        require(f"window '{title}'")
        import tkinter

        self._root = tkinter.Tk()
        self._root.title(title)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._picture: Any = None
        self._events: list[tuple[str, float, float]] = []
        self.closed = False
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._root.bind("<Key>", lambda event: self._events.append((_key(event), 0.0, 0.0)))
        self._label.bind("<Button-1>", lambda event: self._events.append(("click", event.x, event.y)))

    def show(self, picture: np.ndarray) -> None:
        """Replaces the picture, (H, W, 3) uint8 RGB; does nothing once the person closed the window."""
        if self.closed:
            return
        import tkinter

        _, png = cv2.imencode(".png", picture[..., ::-1])
        self._picture = tkinter.PhotoImage(data=png.tobytes(), format="png")
        self._label.configure(image=self._picture)
        self.poll()

    def poll(self) -> list[tuple[str, float, float]]:
        """The keys and clicks since the last call: (name, x, y), x and y in pixels for "click", else 0."""
        if not self.closed:
            self._root.update()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._root.destroy()


def available() -> bool:
    """Whether a window can be hoped for here: there is tkinter, and a display is named."""
    return not _lacking()


def require(where: str) -> None:
    """Raises TandemError saying why no window can be opened here."""
    obstacle = _lacking() or _refusal()
    if obstacle:
        raise TandemError(f"{where}: {obstacle} (a terminal will do for tandem play; rgb_array needs neither)")


def _lacking() -> str:
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        return "there is no display"
    return "" if find_spec("tkinter") and find_spec("_tkinter") else "this Python has no tkinter"


def _refusal() -> str:
    import tkinter

    try:
        tkinter.Tk().destroy()
    except tkinter.TclError as error:
        return f"the display cannot be opened: {error}"
    return ""


def _key(event: Any) -> str:
    """``a``, ``A``, ``Left``, ``Shift-Left``, ``Escape`` ..."""
    shifted = event.state & 0x1 and len(event.keysym) > 1
    return f"Shift-{event.keysym}" if shifted else event.keysym
