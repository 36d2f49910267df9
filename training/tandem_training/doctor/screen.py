"""Pictures: off-screen OpenGL for the simulators that need it, and a display or terminal for a person."""

import ctypes
import sys

from tandem_datasets.health import Finding, Health


def check() -> list[Finding]:
    return [_graphics(), _person()]


def _graphics() -> Finding:
    """BlockFind is drawn with OpenCV; physics simulators will render through EGL."""
    if sys.platform != "linux":
        return Finding("OpenGL", Health.FINE, "the system's own; BlockFind needs none")
    missing = [name for name in ("libEGL.so.1", "libGL.so.1") if not _loads(name)]
    if not missing:
        return Finding("OpenGL", Health.FINE, "EGL can be loaded; BlockFind needs none")
    found = f"{' and '.join(missing)} cannot be loaded; BlockFind needs none, MuJoCo scenes will"
    return Finding("OpenGL", Health.LIMITED, found, "sudo apt install libegl1 libgl1 libgl1-mesa-dri")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _person() -> Finding:
    """Where `tandem play` can be played."""
    from tandem_sim import terminal, window

    values = {"window": window.available(), "terminal": terminal.available()}
    words = {"window": "a window", "terminal": "this terminal"}
    places = [words[name] for name, there in values.items() if there]
    if places:
        return Finding("tandem play", Health.FINE, f"in {' or '.join(places)}", values=values)
    advice = "run it in a terminal; for a window: a display (ssh -X) and a Python with tkinter"
    return Finding("tandem play", Health.LIMITED, "no display, and this is no terminal", advice, values)
