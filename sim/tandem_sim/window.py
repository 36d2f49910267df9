"""A window for pictures, keys and clicks, on tkinter (Python's own toolkit)."""

import os
import sys
import time
from collections import deque
from importlib.util import find_spec
from typing import Any, Self

import cv2
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.pictures import enlarge
from tandem_sim.play import Event

_POLL_S = 0.01


class Window:
    """Shows RGB pictures with captions; as a :class:`~tandem_sim.play.View` it also waits for keys and clicks.

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
        self._picture: Any = None  # tkinter only borrows it
        self._size = (1, 1)  # width and height of the image above the captions
        self._events: deque[Event] = deque()
        self.closed = False
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._root.bind("<Key>", self._on_key)
        self._label.bind("<Button-1>", self._on_click)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, image: np.ndarray, lines: list[str]) -> None:
        """Replaces the image, (H, W, 3) uint8 RGB, and its captions; nothing once the person closed the window."""
        if self.closed:
            return
        import tkinter

        width = 512 * max(1, round(image.shape[1] / image.shape[0]))
        self._size = (width, round(width * image.shape[0] / image.shape[1]))
        _, png = cv2.imencode(".png", enlarge(image, width, lines)[..., ::-1])
        self._picture = tkinter.PhotoImage(master=self._root, data=png.tobytes(), format="png")
        self._label.configure(image=self._picture)
        self._root.update()

    def wait(self) -> Event:
        """The next key or click; ``Escape`` once the window is closed."""
        while not self._events and not self.closed:
            self._root.update()
            time.sleep(_POLL_S)
        return self._events.popleft() if self._events else Event("Escape")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._root.destroy()

    def _on_key(self, event: Any) -> None:
        name = event.keysym
        if name.startswith(("Shift", "Control", "Alt", "Caps")):  # not by themselves
            return
        self._events.append(Event(f"Shift-{name}" if event.state & 0x1 and len(name) > 1 else name))

    def _on_click(self, event: Any) -> None:
        width, height = self._size
        if event.y < height:
            self._events.append(Event("click", (event.x / width, event.y / height)))


def available() -> bool:
    """Whether a window can be hoped for here: there is tkinter, and a display is named."""
    return not _lacking()


def require(where: str) -> None:
    """Raises TandemError saying why no window can be opened here."""
    obstacle = _lacking() or _refusal()
    if obstacle:
        raise TandemError(f"{where}: {obstacle}")


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
