"""Work on many items by several processes, with the results in the items' order and bounded memory."""

import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from tandem_datasets.errors import TandemError

_AHEAD = 4  # results of each process that wait for whoever takes them
_POLL_S = 1.0  # how often a process that says nothing is looked after
_MORE, _END, _ERROR = range(3)


def each_in_order[T, R](
    function: Callable[[T], Iterable[R]], items: Sequence[T], workers: int, where: str
) -> Generator[Iterator[R]]:
    """Yields, item by item in order, an iterator over ``function(item)``; each must be used up before the next.

    With one worker all runs in this process as it is asked for. With more, item ``i`` is worked on by process
    ``i % workers``, each a few results ahead; ``function``, items and results must be picklable. What comes out does
    not depend on the number of workers. Close it (``contextlib.closing``) to end the processes early.

    Raises:
        TandemError: ``function`` raised one, or a process died.
    """
    if type(workers) is not int or not 1 <= workers <= 256:
        raise TandemError(f"{where}: workers is {workers!r:.40} (allowed: 1..256)")
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            yield iter(function(item))
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")  # safe beside threads and rclpy
    queues: list[Any] = [context.Queue(_AHEAD) for _ in range(workers)]
    processes = [
        context.Process(target=_work, args=(function, items[k::workers], queues[k]), daemon=True)
        for k in range(workers)
    ]
    try:
        _start(processes)
        for k in range(len(items)):
            yield _results(queues[k % workers], processes[k % workers], where)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
        for each in queues:
            each.close()
            each.cancel_join_thread()


def _start(processes: Sequence[Any]) -> None:
    """Starts them without SIGINT: a Ctrl-C reaches the whole group, and who started them ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children keep it blocked
    try:
        for process in processes:
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_order[T, R](function: Callable[[T], R], items: Sequence[T], workers: int, where: str) -> Generator[R]:
    """``function`` of each item, in order; :func:`each_in_order` for functions with one result."""
    with closing(each_in_order(_One(function), items, workers, where)) as each:
        for results in each:
            yield from results


class _One[T, R]:
    """A function with one result as one that yields it (a lambda could not be pickled)."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self._function = function

    def __call__(self, item: T) -> Iterator[R]:
        yield self._function(item)


def _work(function: Callable[[Any], Iterable[Any]], items: Sequence[Any], results: Any) -> None:
    """What a process does: all its items, each ended by a mark."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for item in items:
            for result in function(item):
                results.put((_MORE, result))
            results.put((_END, None))
    except TandemError as error:
        results.put((_ERROR, str(error)))


def _end_with_parent() -> None:
    """A parent that is killed takes nothing from the queue any more, on which this process would wait for ever."""
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _results(results: Any, process: Any, where: str) -> Iterator[Any]:
    while True:
        try:
            kind, value = results.get(timeout=_POLL_S)
        except queue.Empty:
            if not process.is_alive() and results.empty():
                raise TandemError(f"{where}: worker process ended with status {process.exitcode}") from None
            continue
        if kind == _END:
            return
        if kind == _ERROR:
            raise TandemError(value)
        yield value
