"""The writer of an episode store: whole episodes, committed one by one, safe against kill -9 at any point."""

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tandem_datasets.codecs import DEFAULT_CODEC, codec_by_name
from tandem_datasets.committing import Committer, Finished
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.episode import FrameCheck
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.facts import check_info
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.layout import frame_columns
from tandem_datasets.parts import Block, EpisodeRows
from tandem_datasets.pipeline import Pipeline, RecorderStats
from tandem_datasets.writer import StoreWriter

QUEUE_BYTES = 64 << 20


@dataclass
class _OpenEpisode:
    """What the caller's thread knows of an episode; its rows are the writing thread's."""

    info: EpisodeInfo
    check: FrameCheck
    rows: EpisodeRows
    where: str
    block: Block | None = None  # that is being filled


class Recorder:
    """Appends episodes to a store, which is made if there is none. One at a time, and not thread-safe.

    Frames are checked and copied where :meth:`add` is called; they are encoded and written in other threads, also while
    the episode is open, so that memory stays bounded however long it is. The rules for errors of the disk:

    - What is committed stays as it is and can be read.
    - The next :meth:`add` or :meth:`commit` tries again. If that fails it raises, and names the episode. Its frames are
      kept, the refused one is not among them; call again once there is room, or :meth:`abort`.
    - Only where the disk itself loses what it took (it does not confirm it, or the folder is gone) an episode that is
      partly written is dropped, and the error says that it is lost.

    Args:
        path: the store's folder.
        embodiment: what the frames are checked against; an existing store must have the same.
        codec: of the images, see ``codecs.CODECS``; an existing store must have the same.
        exist_ok: False refuses a path at which a store is already.
        fsync: True: a committed episode survives a power cut. False: commits are as atomic against a killed
            process, but a power cut may cost the latest ones or damage the store.
        group: so many episodes are written to the disk together, the last ones by :meth:`flush` or
            :meth:`close`. Short episodes are recorded several times quicker so; a killed process then loses
            up to ``group - 1`` finished episodes beside the open one. Fewer, if they have more than 64 MiB of images.
        queue_bytes: of raw images that may wait to be encoded; :meth:`add` waits when it is full.

    Raises:
        TandemError: another writer has the store open, it is damaged or made for something else, or the
            path holds other files.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        embodiment: Embodiment,
        codec: str = DEFAULT_CODEC,
        exist_ok: bool = True,
        fsync: bool = True,
        group: int = 1,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.path = Path(path).absolute()
        self.embodiment = embodiment
        self._where = f"store {self.path}"
        self._codec = codec_by_name(codec, self._where)
        self._columns = frame_columns(embodiment, self._codec)
        if group < 1:
            raise TandemError(f"{self._where}: group is {group} (allowed: at least 1)")
        self._group = group
        self._episode: _OpenEpisode | None = None
        self._waiting = 0  # finished episodes that wait for their group
        self._closed = False
        self._process = os.getpid()
        try:
            self._writer = StoreWriter(self.path, embodiment, self._codec, exist_ok, fsync)
        except OSError as error:
            raise TandemError(f"{self._where}: cannot be written: {error.strerror or error}") from error
        self._committer = Committer(self._writer)
        self._pipeline = Pipeline(lambda: Block(self._columns), self._committer.sink, queue_bytes)
        self.n_episodes = self._writer.n_episodes
        self.n_frames = self._writer.n_frames
        atexit.register(self.close)  # finished episodes that wait for their group are not lost if nobody closes it

    n_episodes: int
    """Committed episodes, with those that wait for their group."""

    n_frames: int
    """Committed frames, with those that wait for their group."""

    @property
    def n_open_frames(self) -> int:
        """Frames of the open episode; 0 if none is open."""
        return self._episode.check.count if self._episode is not None else 0

    @property
    def stats(self) -> RecorderStats:
        """How often and how long :meth:`add` had to wait, and what is queued."""
        return self._pipeline.stats

    def begin(self, info: EpisodeInfo) -> None:
        """Opens an episode; raises TandemError if one is open already or ``info`` cannot be stored."""
        self._require_open_store()
        where = f"{self._where}: episode {self.n_episodes}"
        if self._episode is not None:
            raise TandemError(f"{where}: begin while it is open (commit or abort it first)")
        self._raise_lost()
        info = check_info(info, where)
        if self._committer.dirty:
            self._pipeline.call(self._committer.clean)
        check = FrameCheck(self.embodiment, info.begin_ns)
        self._episode = _OpenEpisode(info, check, EpisodeRows(self._columns), where)

    def add(self, frame: Frame) -> None:
        """Adds one step to the open episode; its arrays may be reused by the caller.

        Waits only if more than ``queue_bytes`` of images wait to be encoded; see :attr:`stats`.

        Raises:
            TandemError: no episode is open, the frame does not fit the embodiment, its stamp does not
                come after the one before, or the disk refuses earlier ones. The episode stays open as it was.
        """
        episode = self._open_episode("add")
        if self._committer.failure is not None or self._committer.lost:
            self._raise_failure(episode)
        block = episode.block
        if block is None:
            block = episode.block = self._pipeline.block()
        numbers = episode.check(frame, episode.where)
        block.put(frame, numbers)
        episode.check.take(numbers)  # last: a Ctrl-C may strike anywhere above
        if block.count == block.capacity:
            episode.block = None
            self._pipeline.submit(block, episode.rows)

    def commit(self, **changes: Any) -> EpisodeInfo:
        """Makes the open episode part of the store, all of it or nothing, and returns when that is durable.

        Args:
            changes: fields of EpisodeInfo that were not known at the begin: ``success=True``,
                ``outcome="success"``. An ``end_ns`` left at 0 becomes the last frame's stamp.

        Returns:
            The facts as they were stored.

        Raises:
            TandemError: no episode is open, it has no frame, a change does not fit, or the disk refuses.
                The episode stays open, to be tried again or aborted, unless the error says that it is lost.
        """
        episode = self._open_episode("commit")
        self._raise_lost()
        info = self._final_info(episode, changes)
        episode.rows.promised = episode.check.count
        if episode.block is not None:
            block, episode.block = episode.block, None
            self._pipeline.submit(block, episode.rows)
        last = (episode.rows, info)
        if self._waiting + 1 < self._group:
            self._pipeline.post(lambda: self._committer.finish(last))
            self._waiting += 1
            self._episode = None
        else:
            self._commit(last)
        self.n_episodes += 1
        self.n_frames += episode.check.count
        return info

    def flush(self) -> None:
        """Commits finished episodes that wait for their group; raises TandemError if the disk refuses."""
        self._require_open_store()
        self._raise_lost()
        if self._group > 1:
            self._commit(None)

    def abort(self) -> None:
        """Drops the open episode, if there is one."""
        episode = self._episode
        if episode is None or self._process != os.getpid():
            return
        episode.rows.dropped = True
        if episode.block is not None:
            self._pipeline.give_back(episode.block)
            episode.block = None
        self._pipeline.call(lambda: self._committer.drop(episode.rows))
        self._episode = None

    def recover(self) -> None:
        """Drops the open episode and everything on the disk that is not committed, as opening the store does.

        Raises:
            TandemError: the disk refuses, or the store is damaged.
        """
        self._require_open_store()
        self.abort()
        self._pipeline.call(self._committer.clean)

    def mark_deleted(self, episodes: Sequence[int], deleted: bool = True) -> None:
        """Marks committed episodes as deleted, or lifts the mark; returns when that is durable.

        Raises:
            TandemError: there is no such episode, or the disk refuses.
        """
        self.flush()
        for episode in episodes:
            if not 0 <= episode < self._writer.n_episodes:
                raise TandemError(f"{self._where}: no episode {episode} (allowed: 0..{self._writer.n_episodes - 1})")
        self._pipeline.call(lambda: self._committer.mark(episodes, deleted))

    def write_episode(self, info: EpisodeInfo, frames: Iterable[Frame]) -> EpisodeInfo:
        """Begins, adds all ``frames`` and commits; on any error nothing of it stays."""
        self.begin(info)
        try:
            for frame in frames:
                self.add(frame)
            return self.commit()
        except BaseException:
            self.abort()
            raise

    def close(self) -> None:
        """Gives the store back. Twice is harmless, and so it is in a forked child.

        Raises:
            TandemError: an episode was still open, or the disk refuses finished ones. They are dropped and the store
                closed all the same; call :meth:`abort` or :meth:`flush` first where that is not meant.
        """
        if self._closed or self._process != os.getpid():
            return
        atexit.unregister(self.close)
        open_frames = None if self._episode is None else self.n_open_frames
        try:
            try:
                self.abort()
            finally:
                self.flush()
        except TandemError as error:
            if dropped := len(self._committer.finished):
                said = f"{self._where}: closed with {dropped} finished episodes, which are dropped: {error}"
                raise TandemError(said) from error
            raise
        finally:
            self._closed = True
            self._pipeline.close()
            self._writer.close()
        if open_frames is not None:
            raise TandemError(f"{self._where}: closed with an open episode of {open_frames} frames, which is dropped")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; an exception on its way out aborts the open episode first."""
        try:
            if error is not None:
                self.abort()
        finally:
            self.close()

    # -- in the caller's thread

    def _final_info(self, episode: _OpenEpisode, changes: dict[str, Any]) -> EpisodeInfo:
        where, check = episode.where, episode.check
        if not check.count:
            raise TandemError(f"{where}: commit without a frame (abort it instead)")
        known = [field.name for field in fields(EpisodeInfo)]
        for key in changes:
            if key not in known:
                raise unknown(f"{where}: commit", key, known)
        info = check_info(replace(episode.info, **changes), where)
        if info.end_ns == 0:
            info = replace(info, end_ns=check.last_ns)
        if not info.begin_ns <= check.first_ns <= check.last_ns <= info.end_ns:
            raise TandemError(
                f"{where}: its frames are from {check.first_ns} to {check.last_ns} ns "
                f"(allowed: from begin_ns {info.begin_ns} to end_ns {info.end_ns})"
            )
        return info

    def _commit(self, last: Finished | None) -> None:
        """Has everything committed that is finished; ``last`` stays open if that fails and it is not lost."""
        try:
            self._pipeline.call(lambda: self._committer.commit(last))
        except TandemError:
            if last is not None and not self._committer.keeps(last[0]):
                self._episode = None
            self._forget_dropped()
            self._recount()
            raise
        self._waiting = 0
        if last is not None:
            self._episode = None

    def _raise_failure(self, episode: _OpenEpisode) -> None:
        """Tries once more what failed, and tells if it still does: nothing more is taken then, so memory is bounded."""
        self._raise_lost()
        self._pipeline.call(lambda: self._committer.spill(episode.rows))
        self._raise_lost()
        if failure := self._committer.failure:
            reason = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
            raise TandemError(f"{episode.where}: not written: {reason} (it is kept: add again, commit, or abort)")

    def _raise_lost(self) -> None:
        """Tells of lost frames once; an open episode that they belong to is dropped."""
        if self._committer.lost:
            self._forget_dropped()
            self._pipeline.call(lambda: None)  # what is lost or finished meanwhile is told and counted, too
            lost, self._committer.lost = self._committer.lost, ""
            self._recount()
            raise TandemError(f"{self._where}: {lost}")

    def _forget_dropped(self) -> None:
        if self._episode is not None and self._episode.rows.dropped:
            self.abort()

    def _recount(self) -> None:
        finished = self._committer.finished
        self._waiting = len(finished)
        self.n_episodes = self._writer.n_episodes + len(finished)
        self.n_frames = self._writer.n_frames + sum(rows.count for rows, _ in finished)

    def _require_open_store(self) -> None:
        if self._closed:
            raise TandemError(f"{self._where}: the recorder is closed")
        if self._process != os.getpid():
            raise TandemError(f"{self._where}: opened by process {self._process} (allowed: to record in that one)")

    def _open_episode(self, doing: str) -> _OpenEpisode:
        if self._episode is None or self._process != os.getpid():
            self._require_open_store()
            self._raise_lost()
            raise TandemError(f"{self._where}: {doing} without an open episode (begin one first)")
        return self._episode
