"""The writer of an episode store: whole episodes, committed one by one, safe against kill -9 at any point."""

import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tandem_datasets.codecs import DEFAULT_CODEC, codec_by_name
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.episode import OpenEpisode
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.facts import check_info
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.layout import frame_columns
from tandem_datasets.writer import StoreWriter


class Recorder:
    """Appends episodes to a store, which is made if there is none. One at a time, and not thread-safe.

    Args:
        path: the store's folder.
        embodiment: what the frames are checked against; an existing store must have the same.
        codec: of the images, see ``codecs.CODECS``; an existing store must have the same.
        exist_ok: False refuses a path at which a store is already.
        fsync: True: a committed episode survives a power cut. False: commits are as atomic against a killed
            process, but a power cut may cost the latest ones or damage the store.
        group: so many episodes are written to the disk together, the last ones by :meth:`flush` or
            :meth:`close`. Short episodes are recorded several times quicker so; a killed process then loses
            up to ``group - 1`` finished episodes beside the open one.

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
    ) -> None:
        self.path = Path(path).absolute()
        self.embodiment = embodiment
        self._where = f"store {self.path}"
        self._codec = codec_by_name(codec, self._where)
        self._columns = frame_columns(embodiment, self._codec)
        if group < 1:
            raise TandemError(f"{self._where}: group is {group} (allowed: at least 1)")
        self._group = group
        self._episode: OpenEpisode | None = None
        self._finished: list[tuple[OpenEpisode, EpisodeInfo]] = []  # not yet on the disk
        self._closed = False
        try:
            self._writer = StoreWriter(self.path, embodiment, self._codec, exist_ok, fsync)
        except OSError as error:
            raise TandemError(f"{self._where}: cannot be written: {error.strerror or error}") from error

    @property
    def n_episodes(self) -> int:
        """Committed episodes, with those that wait for their group."""
        return self._writer.n_episodes + len(self._finished)

    @property
    def n_frames(self) -> int:
        """Committed frames, with those that wait for their group."""
        return self._writer.n_frames + sum(len(episode) for episode, _ in self._finished)

    @property
    def n_open_frames(self) -> int:
        """Frames of the open episode; 0 if none is open."""
        return len(self._episode) if self._episode is not None else 0

    def begin(self, info: EpisodeInfo) -> None:
        """Opens an episode; raises TandemError if one is open already or ``info`` cannot be stored."""
        self._require_open_store()
        where = f"{self._where}: episode {self.n_episodes}"
        if self._episode is not None:
            raise TandemError(f"{where}: begin while it is open (commit or abort it first)")
        self._episode = OpenEpisode(self.embodiment, self._codec, self._columns, check_info(info, where), where)

    def add(self, frame: Frame) -> None:
        """Adds one step to the open episode; its arrays may be reused by the caller.

        Raises:
            TandemError: no episode is open, the frame does not fit the embodiment, or its stamp does not
                come after the one before. The episode stays open as it was.
        """
        self._require_episode("add").add(frame)

    def commit(self, **changes: Any) -> EpisodeInfo:
        """Makes the open episode part of the store, all of it or nothing.

        Args:
            changes: fields of EpisodeInfo that were not known at the begin: ``success=True``,
                ``outcome="success"``. An ``end_ns`` left at 0 becomes the last frame's stamp.

        Returns:
            The facts as they were stored.

        Raises:
            TandemError: no episode is open, it has no frame, a change does not fit, or the disk refuses.
                The episode stays open, to be tried again or aborted.
        """
        episode = self._require_episode("commit")
        info = self._final_info(episode, changes)
        self._finished.append((episode, info))
        if len(self._finished) >= self._group:
            try:
                self.flush()
            except BaseException:
                del self._finished[-1:]
                raise
        self._episode = None
        return info

    def flush(self) -> None:
        """Writes finished episodes that wait for their group; raises TandemError if the disk refuses."""
        if not self._finished:
            return
        before = self._writer.n_episodes
        try:
            self._writer.commit(self._finished)
        except BaseException as error:
            self._recover(before)
            if isinstance(error, OSError):
                raise TandemError(f"{self._where}: commit failed: {error.strerror or error}") from error
            raise
        self._finished = []

    def abort(self) -> None:
        """Drops the open episode, if there is one."""
        self._episode = None

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
        """Gives the store back. Twice is harmless.

        Raises:
            TandemError: an episode was still open. It is dropped and the store closed all the same; call
                :meth:`abort` first where that is meant.
        """
        if self._closed:
            return
        open_frames = None if self._episode is None else len(self._episode)
        self.abort()
        try:
            self.flush()
        finally:
            self._closed = True
            self._writer.close()
        if open_frames is not None:
            raise TandemError(f"{self._where}: closed with an open episode of {open_frames} frames, which is dropped")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; an exception on its way out aborts the open episode first."""
        if error is not None:
            self.abort()
        self.close()

    def _final_info(self, episode: OpenEpisode, changes: dict[str, Any]) -> EpisodeInfo:
        where = f"{self._where}: episode {self.n_episodes}"
        if not len(episode):
            raise TandemError(f"{where}: commit without a frame (abort it instead)")
        known = [field.name for field in fields(EpisodeInfo)]
        for key in changes:
            if key not in known:
                raise unknown(f"{where}: commit", key, known)
        info = check_info(replace(episode.info, **changes), where)
        if info.end_ns == 0:
            info = replace(info, end_ns=episode.last_ns)
        if not info.begin_ns <= episode.first_ns <= episode.last_ns <= info.end_ns:
            raise TandemError(
                f"{where}: its frames are from {episode.first_ns} to {episode.last_ns} ns "
                f"(allowed: from begin_ns {info.begin_ns} to end_ns {info.end_ns})"
            )
        return info

    def _recover(self, episodes_before: int) -> None:
        """After a commit that did not return: back to what is on the disk, or closed if even that fails."""
        try:
            self._writer.recover()
        except (OSError, TandemError) as error:
            self.abort()
            self._finished = []
            self.close()
            raise TandemError(f"{self._where}: closed after a failed commit: {error}") from error
        if self._writer.n_episodes > episodes_before:  # interrupted after the rename: they are in
            self._episode = None
            self._finished = []

    def _require_open_store(self) -> None:
        if self._closed:
            raise TandemError(f"{self._where}: the recorder is closed")

    def _require_episode(self, doing: str) -> OpenEpisode:
        self._require_open_store()
        if self._episode is None:
            raise TandemError(f"{self._where}: {doing} without an open episode (begin one first)")
        return self._episode
