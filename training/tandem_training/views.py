"""Where a person can watch and answer: a window or the terminal."""

from collections.abc import Sequence

from tandem_datasets.errors import TandemError, unknown

WINDOW, TERMINAL, PICTURE, AUTO = "window", "terminal", "picture", "auto"


def open_view(wanted: str, where: str, allowed: Sequence[str] = (AUTO, WINDOW, TERMINAL)):
    """A window or a terminal view, to be entered as a context; None for a picture file.

    ``auto`` takes a window where there is a display, else the terminal, else a picture if that is allowed.

    Raises:
        TandemError: another name, or what was asked for is not there.
    """
    from tandem_sim import terminal, window

    if wanted not in allowed:
        raise unknown(f"{where}: view", wanted, allowed)
    if wanted == PICTURE:
        return None
    if wanted == WINDOW or (wanted == AUTO and window.available()):
        try:
            return window.Window("Tandem")
        except TandemError:  # a display is named, but it cannot be opened
            if wanted == WINDOW or not (terminal.available() or PICTURE in allowed):
                raise
    if wanted == AUTO and not terminal.available():
        if PICTURE in allowed:
            return None
        raise TandemError(f"{where}: there is neither a display nor a terminal")
    return terminal.TerminalView()
