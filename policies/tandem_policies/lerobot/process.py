"""The process of a LeRobot policy as its client sees it; imports neither LeRobot nor torch."""

import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_policies.lerobot.wire import EndedError, LateError, pack, receive, send

_END_TIMEOUT_S = 2.0
_TAIL_LINES = 100
_WHEEL_LIBRARIES = re.compile(r"/ros_\w+\.libs$")
_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


class Worker:
    """The process, the lines that it printed last, and questions and answers, one at a time."""

    def __init__(self, where: str, threads: int) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._given_up = ""  # why it was killed
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tandem_policies.lerobot.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_environment(os.environ, threads),
            process_group=0,  # Ctrl-C reaches this process alone; the worker ends when its input does
        )
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=_keep, args=(self.process.stderr, self._tail), daemon=True)
        self._reader.start()
        self._finalizer = weakref.finalize(self, _end, self.process)

    def ask(
        self, question: Mapping[str, Any], arrays: Sequence[np.ndarray], timeout_s: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The answer; safe from any thread.

        Raises:
            TandemError: what went wrong over there, or the process is gone or silent.
        """
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        packed = pack(question, arrays)
        with self._lock:
            until = time.monotonic() + timeout_s
            if process.stdin.closed or self._given_up:
                raise TandemError(f"{self._where}: its process has been ended{self._given_up}")
            try:
                send(process.stdin.fileno(), packed, timeout_s)
                answer, found = receive(process.stdout.fileno(), until - time.monotonic())
            except EndedError:
                self._fail()
            except LateError:
                self._give_up(f"gave no answer for {timeout_s:g} s")
                raise TandemError(
                    f"{self._where}: its process gave no answer for {timeout_s:g} s{self._last_words()}"
                ) from None
            except BaseException:  # also Ctrl-C: its answer would be taken for that to the next question
                self._give_up("an inference was interrupted")
                raise
        if "error" in answer:
            raise TandemError(f"{self._where}: {answer['error']}")
        return answer, found

    def close(self) -> None:
        """Ends the process; a second time does nothing."""
        self._finalizer()

    def _give_up(self, reason: str) -> None:
        self._given_up = f": {reason}"
        self.process.kill()

    def _fail(self) -> NoReturn:
        try:
            status = self.process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(1.0)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise TandemError(f"{self._where}: its process {how}{self._last_words()}")

    def _last_words(self) -> str:
        lines = [line for line in self._tail if line.strip()]
        return f": {lines[-1].strip()[:300]}" if lines else ""


def worker_environment(present: Mapping[str, str], threads: int) -> dict[str, str]:
    """The worker's environment: no downloads unless they are asked for, and none of what the ROS wheels add.

    The wheels re-execute Python with their libraries on ``LD_LIBRARY_PATH`` and mark that as done; both are taken out
    together.
    """
    base = dict(present)
    if base.pop(_BOOTSTRAPPED, None):
        paths = base.pop("LD_LIBRARY_PATH", "").split(os.pathsep)
        kept = [path for path in paths if path and not _WHEEL_LIBRARIES.search(path)]
        if kept:
            base["LD_LIBRARY_PATH"] = os.pathsep.join(kept)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return offline | base | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _keep(lines: IO[bytes], tail: "deque[str]") -> None:
    with lines:
        for line in lines:
            tail.append(line.decode(errors="replace").rstrip())


def _end(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
