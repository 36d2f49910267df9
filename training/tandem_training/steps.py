"""A job of several steps that can be stopped anywhere and run again: what is done is not done twice.

Each step makes one file or folder. ``steps.json`` keeps, per step, the hash of everything that it was made
from; it is written after the artifact is whole, so an artifact without its entry is made anew.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_training.engine.folder import locked
from tandem_training.results import write_json

RECORD = "steps.json"


@dataclass(frozen=True)
class Done:
    """A finished step: where its artifact lies, what it was made from, how long it took."""

    path: Path
    key: str
    seconds: float
    cached: bool
    facts: dict[str, Any]  # what the step returned, plain JSON


class Steps:
    """The steps below one folder; see :func:`steps`."""

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        self._code = code
        self._record = _read(folder / RECORD)
        self.done: list[Done] = []

    def run(
        self,
        name: str,
        made_from: Mapping[str, Any],
        make: Callable[[Path], dict[str, Any] | None],
        after: tuple[Done, ...] = (),
    ) -> Done:
        """Makes ``folder/name`` with ``make``, unless it is there already from the same ``made_from`` and ``after``."""
        path = self.folder / name
        basis = [self._code, name, dict(made_from), [step.key for step in after]]
        key = hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()[:16]
        known = self._record.get(name)
        if known and known["key"] == key and path.exists():
            done = Done(path, key, known["seconds"], True, known["facts"])
        else:
            if self._record.pop(name, None):  # else a half-made artifact would pass for the one before
                self._write()
            remove(path)
            started = time.perf_counter()
            facts = make(path) or {}
            done = Done(path, key, time.perf_counter() - started, False, facts)
            self._record[name] = {"key": key, "seconds": done.seconds, "facts": facts}
            self._write()
        self.done.append(done)
        return done

    def _write(self) -> None:
        write_json(self.folder / RECORD, self._record)


@contextmanager
def steps(folder: Path, code: str, command: str) -> Iterator[Steps]:
    """The steps below ``folder``, which one process at a time may work on (the lock dies with its owner).

    Raises:
        TandemError: the folder is in use, cannot be made, or holds something that is not of such a job: steps
            remove what stands in their place.
    """
    with locked(folder, command):
        if not (folder / RECORD).exists():
            if any(not item.name.startswith(".") for item in folder.iterdir()):
                raise TandemError(f"{command}: {folder} holds something else (allowed: a new or empty folder)")
            write_json(folder / RECORD, {})  # a run killed in its first step is known again
        yield Steps(folder, code)


def remove(path: Path) -> None:
    """Removes a file or folder, moved aside first so that a half-removed one is never taken for whole."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        aside = path.with_name(f".{path.name}.removing")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        shutil.rmtree(aside)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TandemError(f"{path}: unreadable ({error}); remove the folder to start anew") from error
    if not isinstance(record, dict) or not all(_is_entry(entry) for entry in record.values()):
        raise TandemError(f"{path}: damaged; remove the folder to start anew")
    return record


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and {*entry} == {"key", "seconds", "facts"} and isinstance(entry["facts"], dict)
