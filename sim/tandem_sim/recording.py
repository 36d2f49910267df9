"""Puts finished episodes on one clock and, where wanted, into a store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.frames import EpisodeInfo
from tandem_sim.episodes import Episode, shifted


class EpisodeWriter:
    """Gives episodes their stamps on a simulated clock that goes on from one to the next, and stores them.

    Args:
        path: store to append to, whose clock then goes on; None: nothing is stored.
        embodiment: of the episodes' environment.
        provenance: kept with each episode.
        durable: whether each commit waits for the disk. Simulated episodes need not, since their seeds
            give them again; either way a killed process loses only the unfinished episode.

    Raises:
        TandemError: the store cannot be opened, or is another robot's.
    """

    def __init__(
        self, path: Path | None, embodiment: Embodiment, provenance: Mapping[str, Any], durable: bool = False
    ) -> None:
        self._provenance = provenance
        self._begin_ns = 0
        self._recorder = None
        if path is not None:
            from tandem_datasets.recorder import Recorder
            from tandem_datasets.store import Store

            self._recorder = Recorder(path, embodiment, fsync=durable)
            try:
                if last := self._recorder.n_episodes:
                    self._begin_ns = Store(path).info(last - 1).end_ns + 2 * embodiment.period_ns
            except BaseException:
                self._recorder.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._recorder is not None:
            self._recorder.close()

    def write(self, episode: Episode) -> EpisodeInfo:
        """Commits the episode, all of it or nothing; returns its facts."""
        info = episode.info(self._begin_ns, self._provenance)
        if self._recorder is not None:
            frames = (shifted(frame, self._begin_ns) for frame in episode.frames)
            info = self._recorder.write_episode(info, frames)
        self._begin_ns = episode.next_begin_ns(self._begin_ns)
        return info
