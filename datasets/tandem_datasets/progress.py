"""How long work tells how far it is: one callable, which a command turns into a bar."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is in all, and what is counted (``"episodes"``)."""


def silent(done: int, total: int, unit: str) -> None:
    """The progress that nobody watches."""
