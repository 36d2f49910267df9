"""The one exception for what a user can mend, and how its message is built."""

from collections.abc import Iterable
from difflib import get_close_matches


class TandemError(Exception):
    """Bad input or a broken file. Its message is one line: where, what came, what is allowed.

    The command line prints the line and exits with status 2, without a traceback. Internal
    invariants use ``assert`` instead.
    """


def unknown(what: str, came: str, allowed: Iterable[str]) -> TandemError:
    """An error for a name that is not one of ``allowed``, with the nearest one suggested."""
    names = sorted(allowed)
    near = get_close_matches(came, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(names) if names else "nothing"
    return TandemError(f"{what}: unknown name '{came}'{hint} (allowed: {listed})")
