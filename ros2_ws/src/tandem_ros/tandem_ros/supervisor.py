"""Starts a graph's nodes as child processes, watches them, and leaves none behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self, TextIO

from tandem_datasets.errors import TandemError
from tandem_ros.environment import child_environment, sweep_shared_memory
from tandem_ros.graph import Graph, Node
from tandem_ros.lifeline import FOLDER, VARIABLE

_TAIL_LINES = 200
_POLL_S = 0.05
_INTERRUPT_S, _TERMINATE_S, _KILL_S = 3.0, 1.0, 2.0
_ERROR = re.compile(r"error|fatal|exception", re.IGNORECASE)
# what rclpy's log, our own main functions and Python's traceback put before the message
_LEAD = re.compile(r"^(\[(ERROR|FATAL)\] \[[\d.]+\] \[[^\]]*\]: |error: |tandem_datasets\.errors\.TandemError: )")


class Child:
    """One node's process, the lines that it printed last, and how it ended."""

    def __init__(self, node: Node, folder: Path, environment: dict[str, str], echo: TextIO | None) -> None:
        self.node = node
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        parameters = folder / f"{node.name}.yaml"
        parameters.write_text(node.parameter_text(), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "tandem_ros.lifeline", node.module, *node.ros_arguments(parameters)]
        self.process = subprocess.Popen(
            [*command, "--disable-external-lib-logs"],  # what it logs is read here; no files in ~/.ros
            stdin=subprocess.PIPE,  # the lifeline
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment | {VARIABLE: str(folder)},
            process_group=0,  # Ctrl-C reaches the supervisor alone, which stops the nodes in order
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout, echo), daemon=True)
        self._reader.start()

    def _read(self, lines: IO[str], echo: TextIO | None) -> None:
        for line in lines:
            self.tail.append(line.rstrip())
            if echo is not None:
                with suppress(OSError, ValueError):  # whoever looked on has left
                    echo.write(f"[{self.node.name}] {line.rstrip()}\n")
                    echo.flush()

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def why(self) -> str:
        """How the process ended and its last line that tells of an error."""
        self._reader.join(0.5)
        status = self.process.returncode
        ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        lines = [line for line in self.tail if line.strip()]
        telling = [line for line in lines if _ERROR.search(line)] or (lines if status >= 0 else [])
        return f"{ended}: {_LEAD.sub('', telling[-1].strip())}" if telling else ended

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """Ends what is left of the process and of those that it started itself."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Reaps the process and closes its pipes."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_KILL_S)
        self._reader.join(1.0)
        assert self.process.stdin is not None
        self.process.stdin.close()


class Supervisor:
    """Runs a graph for the length of a ``with`` block.

    When a required node dies, everything is stopped and :meth:`poll` or :meth:`wait` raises TandemError with its name,
    exit status and last error line. SIGTERM is taken like Ctrl-C. Even if this process is killed, nodes end within
    two seconds.

    Args:
        graph: what to run.
        domain_id: the ROS domain, claimed by the caller (:func:`tandem_ros.domain.claim`).
        echo: where the nodes' lines go, each with the node's name before it; None: they are only kept.
    """

    def __init__(self, graph: Graph, *, domain_id: int, echo: TextIO | None = None) -> None:
        self.graph = graph
        self.domain_id = domain_id
        self._echo = echo
        self._children: list[Child] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._previous_handler: object = None

    def __enter__(self) -> Self:
        self._previous_handler = _take_sigterm()
        try:
            sweep_shared_memory()
            self._folder = tempfile.TemporaryDirectory(prefix=FOLDER)  # mode 0700
            environment = child_environment(self.domain_id)
            for node in self.graph.nodes:
                self._children.append(Child(node, Path(self._folder.name), environment, self._echo))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            if self._previous_handler is not None:
                signal.signal(signal.SIGTERM, self._previous_handler)  # type: ignore[arg-type]
                self._previous_handler = None

    @property
    def pids(self) -> dict[str, int]:
        """Process id by node name."""
        return {child.node.name: child.process.pid for child in self._children}

    def poll(self) -> bool:
        """Whether the graph still works: False once a node with ``ends`` has left cleanly.

        Raises:
            TandemError: a required node died; everything has been stopped.
        """
        if any(child.node.ends and child.status == 0 for child in self._children):
            return False
        for child in self._children:
            if child.node.required and child.status is not None:
                why = child.why()
                self.stop()
                raise TandemError(f"node '{child.node.name}' {why}")
        return True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Polls until the graph's work is done (True) or the time is over (False); raises like :meth:`poll`."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.poll():
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True

    def stop(self) -> None:
        """Ends all nodes: SIGINT, after 3 s SIGTERM, after 1 s more SIGKILL. Does nothing the second time."""
        children, self._children = self._children, []
        try:
            for number, patience_s in ((signal.SIGINT, _INTERRUPT_S), (signal.SIGTERM, _TERMINATE_S)):
                for child in children:
                    child.signal(number)
                if _all_ended(children, patience_s):
                    break
        finally:  # also when a second Ctrl-C comes in between
            for child in children:
                child.kill_group()
            for child in children:
                child.close()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None


def _all_ended(children: list[Child], patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while any(child.status is None for child in children):
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def _take_sigterm() -> object:
    """Makes SIGTERM raise KeyboardInterrupt where nobody handles it yet; returns the handler to put back, or None."""
    if threading.current_thread() is not threading.main_thread():
        return None
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return None
    return signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
