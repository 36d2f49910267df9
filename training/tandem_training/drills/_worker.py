"""A process that forks others and kills them: `python -m tandem_training.drills._worker`, for `tandem drill store`.

Reads tasks and writes findings as JSON lines. It keeps no threads itself, so that its forks are sound.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tandem_datasets import files
from tandem_datasets.codecs import CODECS
from tandem_training.drills import _recording
from tandem_training.drills._faults import KILL, Fault
from tandem_training.drills._operations import OPERATIONS

_PATIENCE_S = 60.0
_MISSED = 77  # exit status
_KNOWN = 60  # episodes whose content the children need not work out


def main() -> None:
    """Answers task after task until there are no more."""
    for codec in CODECS.values():  # loads what the children would each load
        codec.encode(np.zeros((8, 8, 3), np.uint8))
    for episode in range(_KNOWN):
        _recording.expected(episode)
    for line in sys.stdin:
        task = json.loads(line)
        found = TASKS[task.pop("task")](**task)
        print(json.dumps(found), flush=True)


def count(operation: str, folder: str) -> dict[str, Any]:
    """Prepares an operation in ``<folder>/prepared``; which of its file operations write."""
    prepared, work = Path(folder, "prepared"), Path(folder, "counted")
    prepared.mkdir(parents=True)
    what = OPERATIONS[operation]()
    problem = _child(lambda _: what.prepare(prepared)).problem
    shutil.copytree(prepared, work)

    def act(_: _recording.Tell) -> None:
        counter = Fault(-1, "", "")
        files.inject(counter)
        what.act(work, lambda _: None)
        files.inject(None)
        Path(folder, "writes.json").write_text(json.dumps(counter.writes))

    problem = problem or _child(act).problem
    shutil.rmtree(work)
    return {"problem": problem} if problem else {"writes": json.loads(Path(folder, "writes.json").read_text())}


def fault(operation: str, folder: str, at: int, phase: str, kind: str) -> dict[str, Any]:
    """One failure at one file operation of a copy; what is wrong afterwards."""
    what = OPERATIONS[operation]()
    work = Path(folder, f"work-{os.getpid()}")
    shutil.copytree(Path(folder, "prepared"), work)

    def act(tell: _recording.Tell) -> int:
        injected = Fault(at, phase, kind)
        files.inject(injected)
        what.act(work, tell)
        return 0 if injected.struck else _MISSED

    try:
        ended = _child(act)
        least = max(ended.told, 0 if kind == KILL else what.at_least)
        return _findings(lambda: what.check(work, least), ended.problem) | {"missed": int(ended.missed)}
    finally:
        shutil.rmtree(work)


def kill(operation: str, folder: str, delay_s: float, **how: Any) -> dict[str, Any]:
    """Kills a process that does the operation, after a while; what is wrong afterwards.

    ``recorder`` records for ever (``group``, ``sync``, ``codec``), into ``<folder>/store``; others run once, in a copy.
    """
    if operation == "recorder":
        Path(folder).mkdir(exist_ok=True)
        store, codec = Path(folder, "store"), how["codec"]
        ended = _child(lambda tell: _recording.record(store, None, tell, **how), delay_s)
        return _findings(lambda: _recording.check(store, ended.told, codec=codec), ended.problem)
    what = OPERATIONS[operation]()
    work = Path(folder, f"work-{os.getpid()}")
    shutil.copytree(Path(folder, "prepared"), work)
    try:
        ended = _child(lambda tell: what.act(work, tell), delay_s, may_end=True)
        return _findings(lambda: what.check(work, ended.told), ended.problem)
    finally:
        shutil.rmtree(work)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"count": count, "fault": fault, "kill": kill}


def _findings(check: Callable[[], tuple[dict[str, int], str]], problem: str) -> dict[str, Any]:
    """Checks in a child of its own, whose memory and threads go with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            found, first = check()
            os.write(writing, json.dumps({**found, "problem": problem or first}).encode())
            status = 0
        except BaseException:  # noqa: BLE001  a child must never go on as if it were its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return json.loads(data) if data else {"unopened": 1, "problem": "checking the store broke; see above"}


class _Ended(NamedTuple):
    """How a child ended."""

    told: int  # the last number that it told; 0 if none
    problem: str  # what went wrong with the child itself
    missed: bool  # its fault never struck


def _child(
    act: Callable[[_recording.Tell], int | None], delay_s: float | None = None, *, may_end: bool = False
) -> _Ended:
    """Runs ``act``, which gives the exit status, in a fork that is killed ``delay_s`` after it first told something."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:

            def tell(number: int) -> None:
                os.write(writing, b"%d\n" % number)

            code = act(tell) or 0
        except BaseException:  # noqa: BLE001  as above
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        told = b""
        if delay_s is not None:
            told = pipe.read(100) or b""
            time.sleep(delay_s)
            os.kill(child, signal.SIGKILL)
        status, rest = _ended(child, pipe)
    numbers = (told + rest).split()
    problem = ""
    missed = status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == _MISSED
    if status is None:
        problem = "it hung, and was killed"
    elif missed:
        pass
    elif os.WIFEXITED(status) and (os.WEXITSTATUS(status) or (delay_s is not None and not may_end)):
        problem = f"it ended with status {os.WEXITSTATUS(status)}; see above"
    return _Ended(int(numbers[-1]) if numbers else 0, problem, missed)


def _ended(child: int, pipe: Any) -> tuple[int | None, bytes]:
    """Waits for the end; the exit status (None: it hung, and was killed) and what it told meanwhile."""
    os.set_blocking(pipe.fileno(), False)
    told, end = b"", time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        told += pipe.read() or b""
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, told + (pipe.read() or b"")
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, told + (pipe.read() or b"")


if __name__ == "__main__":
    main()
