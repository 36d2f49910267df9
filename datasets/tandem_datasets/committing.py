"""What a recorder's writing thread does: brings rows to the disk, commits, and copes where the disk refuses."""

import contextlib
from collections.abc import Callable, Sequence

from tandem_datasets.errors import TandemError
from tandem_datasets.files import SyncError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.parts import EpisodeRows, Part
from tandem_datasets.writer import StoreWriter

SPILL_ROWS = 256  # of an open episode, that wait in memory before they go to the disk; a shard's
SPILL_BYTES = 8 << 20  # of their images
GROUP_BYTES = 64 << 20  # of images of finished episodes that wait for their group

Finished = tuple[EpisodeRows, EpisodeInfo]

_REFUSED = (OSError, TandemError, MemoryError)


class Committer:
    """All methods run in one thread, in the order of the recorder's calls. Rows become the disk's in three states:

    - in memory: nothing can happen to them but the end of the process;
    - taken by the writer and still in memory: after any failure they can be written once more;
    - released: only the disk has them. After a plain OSError (no room, no permission) the writer goes on where it was;
      where the disk does not confirm what it took, or the files are gone, the episode is lost.

    While a finished episode waits with rows that are released, the writer takes nothing behind them: what the next one
    leaves there could not be cleared away without them.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self.failure: Exception | None = None  # of the last attempt to write; it can be tried again
        self.lost = ""  # what went wrong with frames that are gone, and nobody was told of
        self.finished: list[Finished] = []  # whole, not yet committed
        self.dirty = False  # the writer has to recover before anything else
        self._writer = writer
        self._open: EpisodeRows | None = None

    def sink(self, rows: EpisodeRows, part: Callable[[], Part]) -> None:
        """The next rows of the open episode, as ``part`` gives them; they go to the disk when they become many."""
        self._open = rows
        doing = "its images cannot be encoded"
        try:
            encoded = part()
            if rows.dropped:
                return
            doing = "its frames cannot be taken"
            rows.add(encoded)
            if self.failure is None and self._is_much(rows):
                self.spill(rows)
        except Exception as error:  # noqa: BLE001  whatever it is, MemoryError for one: it lacks rows now
            self._lose(rows, f"{doing}: {_reason(error)}")

    def spill(self, rows: EpisodeRows) -> None:
        """Writes what waits of the open episode past the committed rows; finished ones before it are committed.

        Afterwards ``failure`` says whether that worked; until it does nothing more goes to the disk by itself.
        """
        self.failure = None
        if rows.dropped:
            return
        try:
            self._commit_finished()
            self._require_ready()
            self._writer.take(rows)
            self._writer.write()
            rows.release()
        except _REFUSED as error:
            self.failure = error
            self._after(error)

    def finish(self, last: Finished) -> None:
        """The open episode is whole, and waits for others to be committed with."""
        self._open, (rows, _) = None, last
        if not rows.dropped and rows.count < rows.promised:
            self._lose(rows, f"only {rows.count} of its {rows.promised} frames arrived")
            self._clear()
        if not rows.dropped:  # else it is lost, and said to be
            self.finished.append(last)

    def commit(self, last: Finished | None) -> None:
        """Commits all finished episodes, and with them ``last``, the open one.

        Raises:
            TandemError: the disk refuses, or something is lost. ``last`` stays open unless it is in or dropped.
        """
        self.failure = None  # whatever it was, it is tried once more
        number, count = self._writer.n_episodes, len(self.finished) + (last is not None)
        try:
            if self._any_released:
                self._commit_finished()
                number, count = self._writer.n_episodes, 1
            if last is not None:
                self.finish(last)
            self._raise_lost()
            self._commit_finished()
        except _REFUSED as error:
            committed = self._writer.n_episodes > number
            self._after(error)
            if last is not None and self.finished and self.finished[-1] is last:
                del self.finished[-1]
                self._open = last[0]
            self._raise_lost()
            name = f"episode {number}" if count < 2 else f"episodes {number} to {number + count - 1}"
            kept = not committed or (last is not None and self.keeps(last[0]))
            end = "kept: commit again, or abort" if kept else "in the store, but the disk did not confirm it"
            raise TandemError(f"{self._writer.where}: {name}: not written: {_reason(error)} ({end})") from error

    def keeps(self, rows: EpisodeRows) -> bool:
        """Whether they are the open episode's, and not lost."""
        return self._open is rows and not rows.dropped

    def mark(self, episodes: Sequence[int], deleted: bool) -> None:
        """Sets or lifts the mark of deletion; raises TandemError if the disk refuses."""
        try:
            self._require_ready()
            self._writer.mark(episodes, deleted)
        except _REFUSED as error:
            self._after(error)
            raise TandemError(f"{self._writer.where}: not marked: {_reason(error)}") from error

    def drop(self, rows: EpisodeRows) -> None:
        """Forgets the open episode."""
        rows.dropped = True
        self.failure = self._open = None
        self._clear()

    def clean(self) -> None:
        """Makes sure that nothing uncommitted is on the disk; raises TandemError if that cannot be done.

        Finished episodes with rows that only the disk has are committed instead.
        """
        try:
            if self._any_released:
                self._commit_finished()
            self.dirty = True
            self._require_clean()
        except (OSError, MemoryError) as error:
            self._after(error)
            raise TandemError(f"{self._writer.where}: cannot be recovered: {_reason(error)}") from error

    def _commit_finished(self) -> None:
        """Raises OSError or TandemError with all of them still finished, unless the disk has them in the end."""
        if not self.finished:
            return
        if self._open is not None and self._open.taken:  # with them, for a commit that failed
            self.dirty = True
        self._require_ready()
        before, batch = self._writer.n_episodes, self.finished
        try:
            self._writer.commit(batch)
        finally:
            if self._writer.n_episodes > before:
                self.finished = []

    def _require_ready(self) -> None:
        """Before anything is written: another store may lie there meanwhile."""
        self._require_clean()
        if self._writer.gone:
            raise GoneError("its folder, or files in it, were removed or replaced")

    def _clear(self) -> None:
        """What was taken of an episode that nobody wants any more goes."""
        if self._writer.touched and not self._any_released:
            self.dirty = True
            with contextlib.suppress(*_REFUSED):  # else before the next episode
                self._require_clean()

    @property
    def _any_released(self) -> bool:
        """Whether a finished episode has rows that only the disk has."""
        return any(rows.released for rows, _ in self.finished)

    def _require_clean(self) -> None:
        if not self.dirty:
            return
        if self._writer.replaced:
            raise GoneError("its folder was removed or replaced")
        self._writer.recover()
        self.dirty = False
        for rows in self._all_rows():
            rows.take_back()

    def _after(self, error: Exception) -> None:
        """Makes the next attempt possible. What only the disk had is lost, unless the disk just had no room."""
        if isinstance(error, OSError) and not isinstance(error, SyncError | GoneError):
            return
        self.dirty = True
        for rows in self._all_rows():
            if rows.released:
                self._lose(rows, _reason(error))
        self.finished = [item for item in self.finished if not item[0].dropped]
        with contextlib.suppress(*_REFUSED):  # else before the next attempt
            self._require_clean()

    def _all_rows(self) -> Sequence[EpisodeRows]:
        """Of all episodes that are not committed."""
        rows = [rows for rows, _ in self.finished]
        return rows if self._open is None or self._open.dropped else [*rows, self._open]

    def _is_much(self, rows: EpisodeRows) -> bool:
        """Whether what waits in memory, of the open episode or of finished ones, should go to the disk."""
        finished = sum(rows.waiting_bytes for rows, _ in self.finished)
        return rows.waiting_rows >= SPILL_ROWS or rows.waiting_bytes >= SPILL_BYTES or finished >= GROUP_BYTES

    def _lose(self, rows: EpisodeRows, reason: str) -> None:
        rows.dropped = True
        one = f"an episode is lost, {rows.count} frames of it: {reason}"
        self.lost = f"{self.lost}; {one}" if self.lost else one

    def _raise_lost(self) -> None:
        """Tells of lost frames once."""
        lost, self.lost = self.lost, ""
        if lost:
            raise TandemError(f"{self._writer.where}: {lost}")


class GoneError(OSError):
    """Files that held rows are not there any more."""


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
