"""What stands on the command line of `tandem data`: places without keys, chosen episodes, options of formats."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.progress import Progress
from tandem_training.config import compose, given, quoted, section

_KEY = re.compile(r"[+~]*[\w.]*=")

CHOICE = ("episodes", "task", "outcome", "env", "success", "source", "seeds", "min_frames", "max_frames")


def with_keys(argv: Sequence[str], keys: Sequence[str], several: bool, where: str) -> list[str]:
    """The arguments with ``key=`` in front of those that came without, in the order of ``keys``.

    Args:
        argv: as typed.
        keys: that may be left out.
        several: whether there is only one key, which takes a list of all of them.
        where: begins the error.

    Raises:
        TandemError: more came than there are keys.
    """
    bare: list[str] = []  # a path may hold = behind a slash, too
    named: list[str] = []
    takes_next = False
    for text in argv:
        plain = not (_KEY.match(text) or text.startswith("-") or takes_next)
        (bare if plain else named).append(text)
        takes_next = text == "--cfg"
    if several:
        return [*([f"{keys[0]}=[{','.join(map(quoted, bare))}]"] if bare else []), *named]
    if len(bare) > len(keys):
        raise TandemError(
            f"{where}: '{bare[len(keys)]}' is too much (allowed: {' '.join(keys).upper()}, then key=value)"
        )
    return [*(f"{key}={quoted(text)}" for key, text in zip(keys, bare, strict=False)), *named]


def own_and_others(command: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Arguments that set keys of the command's configuration, and the values of all others by name."""
    known = {str(key) for key in compose(command, [])}
    own, others = [], {}
    for text in arguments:
        key = text.partition("=")[0].lstrip("+")
        if "=" not in text or key.startswith("-") or key.partition(".")[0] in known:
            own.append(text)
        else:
            others[key] = given(command, [text], key)
    return own, others


def choice_of(config) -> Any:
    """The conditions by which episodes are chosen.

    Raises:
        TandemError: one is of the wrong kind.
    """
    from tandem_datasets.ops.choosing import Choice
    from tandem_training.validate import at_least

    values = {key: value for key, value in section(config).items() if key in CHOICE}
    for key in ("min_frames", "max_frames"):
        if values[key] is not None:
            at_least("tandem data", **{key: (values[key], 0)})
    if values["success"] is not None and not isinstance(values["success"], bool):
        raise TandemError(f"tandem data: success is {values['success']!r:.40} (allowed: true or false)")
    return Choice(**values)


def place(config, key: str, where: str) -> str:
    """A configured path or URL as text; raises TandemError if it is none."""
    from tandem_training.validate import path

    value = config[key]
    if isinstance(value, str) and value:
        return value  # a URL stays as it is written
    found = path(where, key, value)
    if found is None:
        raise TandemError(f"{where}: {key} is null (allowed: a path)")
    return str(found)


def file_place(config, key: str, where: str) -> Path:
    """A configured path of a file that is going to be written.

    Raises:
        TandemError: it is a folder, or inside a store.
    """
    from tandem_datasets.formats import is_store

    out = Path(place(config, key, where))
    if out.is_dir():
        raise TandemError(f"{where}: {key} is {out}, a folder (allowed: a file)")
    for folder in out.absolute().parents:
        if is_store(folder):
            raise TandemError(f"{where}: {out} is inside the store {folder} (allowed: a place outside of stores)")
    return out


def counted(count: int, word: str) -> str:
    """``1 episode``, ``2 episodes``."""
    return f"{count} {word}{'s' * (count != 1)}"


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A bar over long work; silent where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, transient=True, disable=not Console().is_terminal) as bars:
        task = bars.add_task(title, total=None)

        def advance(done: int, total: int, unit: str) -> None:
            bars.update(task, completed=done, total=total, description=f"{title} ({unit})")

        yield advance
