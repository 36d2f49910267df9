"""H1 worlds in processes of their own, each with a fleet and a renderer; arrays are shared, words go through pipes.

A worker that fails says so in one line, and so does the absence of one that died. Workers end with whoever started
them, however that one ends.
"""

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_sim.h1.fleets import Desk, Ended, desk_fields, desk_of, fleet
from tandem_sim.h1.settings import Settings

_ALIGNED = 64  # bytes that each array begins at a multiple of
_PATIENCE_S = 5.0  # until a worker that was asked to end is made to


@dataclass(frozen=True)
class _Job:
    """What a worker is told at its begin."""

    settings: Settings
    body: Embodiment
    memory: Any  # of the desk, shared
    n: int  # of all environments
    begin: int  # of its own
    end: int


class ProcessFleet:
    """A fleet whose worlds are shared out over processes.

    Args:
        settings: of the worlds.
        body: their embodiment.
        n: how many worlds.
        workers: how many processes.

    Raises:
        TandemError: the worlds cannot be made; here and later also that a worker died.
    """

    def __init__(self, settings: Settings, body: Embodiment, n: int, workers: int) -> None:
        size = _layout(body, n)[1]
        context = get_context("spawn")  # safe beside threads, OpenGL and rclpy
        try:
            memory = context.RawArray("b", size)
        except OSError as error:
            raise TandemError(f"H1: no shared memory of {size} bytes for {n} environments: {error}") from error
        self.desk = _desk(memory, body, n)
        bounds = [n * k // workers for k in range(workers + 1)]
        self._spans = list(pairwise(bounds))
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        try:
            self._start(context, [_Job(settings, body, memory, n, *span) for span in self._spans])
            for worker in range(workers):
                self._answer(worker)
        except BaseException:
            self.close()
            raise

    def reset(self, which: Sequence[int], seeds: Sequence[int | None]) -> list[str]:
        orders = dict(zip(which, seeds, strict=True))
        words = self._all("reset", which, lambda ids: [orders[k] for k in ids])
        return [words[k] for k in which]

    def step(self, which: Sequence[int]) -> dict[int, Ended]:
        return self._all("step", which, lambda _: None)

    def close(self) -> None:
        """Ends the workers; a second call does nothing."""
        for pipe in self._pipes:
            with suppress(OSError):  # it is gone already
                pipe.send(("close", [], None))
        for process in self._processes:
            process.join(_PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._processes = [], []

    def _start(self, context: Any, jobs: Sequence[_Job]) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for who started them
        try:
            for job in jobs:
                mine, theirs = context.Pipe()
                process = context.Process(target=_work, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()  # so that its end is noticed
                self._pipes.append(mine)
                self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _all(self, order: str, which: Sequence[int], argument: Any) -> dict[int, Any]:
        """Has every worker that is concerned do something at the same time; answers by world."""
        concerned = []
        for worker, (begin, end) in enumerate(self._spans):
            ids = [k for k in which if begin <= k < end]
            if ids:
                self._tell(worker, (order, [k - begin for k in ids], argument(ids)))
                concerned.append(worker)
        found: dict[int, Any] = {}
        for worker in concerned:
            begin = self._spans[worker][0]
            found |= {begin + k: value for k, value in self._answer(worker).items()}
        return found

    def _tell(self, worker: int, message: tuple) -> None:
        if not self._pipes:
            raise TandemError("H1: the environments are closed (allowed: new ones)")
        try:
            self._pipes[worker].send(message)
        except OSError:
            self._died(worker)

    def _answer(self, worker: int) -> dict[int, Any]:
        try:
            failed, answer = self._pipes[worker].recv()
        except (EOFError, OSError):
            self._died(worker)
        if failed:
            self.close()
            raise TandemError(answer)
        return answer

    def _died(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(_PATIENCE_S)
        status = process.exitcode
        self.close()
        raise TandemError(f"H1: worker process {worker} of {len(self._spans)} ended with status {status}")


def _layout(body: Embodiment, n: int) -> tuple[dict[str, int], int]:
    """Where each array of the shared desk begins, and how many bytes they take in all."""
    begins, size = {}, 0
    for name, (shape, dtype) in desk_fields(body, n).items():
        begins[name] = size
        size += -(-int(np.prod(shape)) * dtype.itemsize // _ALIGNED) * _ALIGNED
    return begins, max(size, 1)


def _desk(memory: Any, body: Embodiment, n: int) -> Desk:
    begins, _ = _layout(body, n)
    bytes_of = np.frombuffer(memory, np.uint8)  # holds on to the memory
    arrays = {}
    for name, (shape, dtype) in desk_fields(body, n).items():
        size = int(np.prod(shape)) * dtype.itemsize
        arrays[name] = bytes_of[begins[name] : begins[name] + size].view(dtype).reshape(shape)
    return desk_of(arrays)


def _work(job: _Job, pipe: Connection) -> None:
    """What a worker does until it is told to end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        desk = _desk(job.memory, job.body, job.n).part(job.begin, job.end)
        mine = fleet(job.settings, desk, job.end - job.begin, threads=1)
    except TandemError as error:
        pipe.send((True, str(error)))
        return
    pipe.send((False, {}))
    while True:
        try:
            order, ids, argument = pipe.recv()
        except EOFError:
            return
        if order == "close":
            mine.close()
            return
        try:
            if order == "reset":
                answer: dict[int, Any] = dict(zip(ids, mine.reset(ids, argument), strict=True))
            else:
                answer = mine.step(ids)
        except TandemError as error:
            pipe.send((True, str(error)))
            continue
        pipe.send((False, answer))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
