"""The threads between a recorder's caller and the disk: some that encode, and one that writes, in order.

Image codecs and system calls let go of Python's lock, so that the caller's thread is hardly held up. What waits is
bounded in bytes: blocks of raw frames are made once, filled by the caller, encoded, and filled again once the writing
thread has taken what they held.
"""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tandem_datasets.files import submit
from tandem_datasets.parts import Block, EpisodeRows, Part

_THREADS = 2  # that encode: more than that many cameras' pictures at video rate
_PUT_OFF_S = 0.1

Sink = Callable[[EpisodeRows, Callable[[], Part]], None]


@dataclass(frozen=True)
class RecorderStats:
    """How a recorder keeps up. Bytes are those of raw images that wait to be encoded and written."""

    waits: int  # how often ``add`` had to wait for room in the queue
    waited_s: float  # how long altogether
    queued_bytes: int  # now
    most_queued_bytes: int  # so far
    queue_bytes: int  # the limit


class Pipeline:
    """Takes blocks of frames; calls ``sink`` with each of them, encoded, one after the other in another thread.

    Args:
        make_block: makes one more block; all are of the same size.
        sink: takes the rows of an episode; what it raises the next :meth:`call` raises.
        queue_bytes: of all blocks together; two are always allowed.
    """

    def __init__(self, make_block: Callable[[], Block], sink: Sink, queue_bytes: int) -> None:
        self._make_block = make_block
        self._sink = sink
        self._limit = queue_bytes
        self._blocks = 0  # made so far
        self._most = 2  # known once the first one is made
        self._block_bytes = 0
        self._free: queue.LifoQueue[Block] = queue.LifoQueue()  # the last one is still in the cache
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._encoders: ThreadPoolExecutor | None = None
        self._worker: threading.Thread | None = None
        self._error: BaseException | None = None  # of a job that nobody waits for
        self._lock = threading.Lock()
        self._used = self._most_used = self._waits = 0  # used: blocks that were handed over
        self._waited_s = 0.0

    @property
    def stats(self) -> RecorderStats:
        """See :class:`RecorderStats`."""
        return RecorderStats(
            self._waits,
            self._waited_s,
            self._used * self._block_bytes,
            self._most_used * self._block_bytes,
            max(self._limit, self._most * self._block_bytes),
        )

    def block(self) -> Block:
        """An empty block; waits until there is one if the queue is full, which is counted."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        if self._blocks < self._most:
            block = self._make_block()
            self._blocks += 1
            self._block_bytes = block.bytes
            self._most = max(2, self._limit // max(block.bytes, 1)) if block.bytes else 64
            return block
        self._waits += 1
        begin = time.perf_counter()
        try:
            return self._free.get()
        finally:
            self._waited_s += time.perf_counter() - begin

    def submit(self, block: Block, rows: EpisodeRows) -> None:
        """The next rows of an episode; the block is not the caller's any more."""
        if self._encoders is None:
            self._encoders = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "tandem-encode")
        with self._lock:
            self._used += 1
            self._most_used = max(self._most_used, self._used)
        part = submit(self._encoders, lambda: Part({}, {}, []) if rows.dropped else block.encoded())

        def take() -> None:
            try:
                self._sink(rows, part.result)
            finally:
                with self._lock:
                    self._used -= 1
                self.give_back(block)

        self.post(take)

    def give_back(self, block: Block) -> None:
        """A block that is not needed after all."""
        block.clear()
        self._free.put(block)

    def post(self, job: Callable[[], None]) -> None:
        """``job`` runs in the writing thread after all that came before; if it raises, the next :meth:`call` does."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="tandem-write", daemon=True)
            self._worker.start()
        self._jobs.put(job)

    def call[T](self, job: Callable[[], T]) -> T:
        """Runs ``job`` in the writing thread after all that came before; returns or raises what it does.

        A Ctrl-C meanwhile is put off until that is certain: it comes a moment after the return. A second one is not.
        """
        done: Future[T] = Future()

        def run() -> None:
            try:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001  it is raised where the caller waits
                done.set_exception(error)

        self.post(run)
        try:
            return done.result()
        except KeyboardInterrupt:
            wait([done])
            waiter = threading.get_ident()  # the main thread, which may sleep by then: it gets the signal itself
            again = threading.Timer(_PUT_OFF_S, signal.pthread_kill, (waiter, signal.SIGINT))
            again.daemon = True
            again.start()
            return done.result()

    def close(self) -> None:
        """Ends the threads, when all that came before is done."""
        if self._worker is not None:
            self._jobs.put(None)
            self._worker.join()
        if self._encoders is not None:
            self._encoders.shutdown()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001  a dead thread would have the caller wait for ever
                self._error = error
