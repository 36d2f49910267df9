"""Foreign episodes as a new store."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import batched, chain
from pathlib import Path

from tandem_datasets.codecs import DEFAULT_CODEC, codec_by_name
from tandem_datasets.errors import TandemError
from tandem_datasets.files import sync_folder
from tandem_datasets.formats import Source, is_store
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.progress import Progress, silent
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store
from tandem_datasets.workers import each_in_order

_FRAMES_TOGETHER = 16  # that a worker hands over at once: bounds what waits in memory


def import_episodes(
    source: Source,
    target: str | os.PathLike[str],
    *,
    codec: str = DEFAULT_CODEC,
    workers: int = 1,
    progress: Progress = silent,
) -> Store:
    """Writes all episodes of ``source`` as a new store, complete or not at all.

    Args:
        source: what to read.
        target: a place where nothing is yet, or an empty folder.
        codec: of the images, see ``codecs.CODECS``.
        workers: so many processes read; the store does not depend on how many.
        progress: told after each episode.

    Raises:
        TandemError: the place is taken, the source is empty or broken, a frame does not fit, the disk refuses.
    """
    place = Path(target)
    where = f"import to {place}"
    require_vacant(place, where)
    codec_by_name(codec, where)
    count = source.n_episodes
    if not count:
        raise TandemError(f"{where}: the source has no episodes (allowed: at least one)")

    def fill(beside: Path) -> None:
        reading = each_in_order(partial(_pieces, source), range(count), workers, where)
        with Recorder(beside, source.embodiment, codec=codec, exist_ok=False) as recorder, closing(reading):
            for done, pieces in enumerate(reading, 1):
                info = next(pieces)
                assert isinstance(info, EpisodeInfo)
                recorder.write_episode(info, chain.from_iterable(_only_frames(pieces)))
                progress(done, count, "episodes")

    write_beside(place, fill, where)
    return Store(place)


def require_vacant(place: Path, where: str) -> None:
    """Raises TandemError unless nothing is at ``place``, or an empty folder, and it is not inside a store."""
    for folder in place.absolute().parents:
        if is_store(folder):
            raise TandemError(f"{where}: {place} is inside the store {folder} (allowed: a place outside of stores)")
    if os.path.lexists(place) and not (place.is_dir() and not place.is_symlink() and not any(place.iterdir())):
        raise TandemError(f"{where}: {place} is in use (allowed: a new or an empty folder)")


def write_beside(place: Path, fill: Callable[[Path], None], where: str) -> Path:
    """Has ``fill`` write a file or folder beside ``place`` and renames it there; on any error nothing stays.

    ``fill`` gets a path at which nothing is yet. Raises TandemError if the disk refuses.
    """
    place = place.absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as scratch:
            beside = Path(scratch, place.name)
            fill(beside)
            os.replace(beside, place)
        sync_folder(str(place.parent))
    except OSError as error:
        raise TandemError(f"{where}: cannot be written: {error.strerror or error}") from error
    return place


def _pieces(source: Source, index: int) -> Iterator[EpisodeInfo | tuple[Frame, ...]]:
    """An episode for its way between processes: its facts, then its frames, some at a time."""
    info, frames = source.episode(index)
    yield info
    yield from batched(frames, _FRAMES_TOGETHER)


def _only_frames(pieces: Iterable[EpisodeInfo | tuple[Frame, ...]]) -> Iterator[tuple[Frame, ...]]:
    for piece in pieces:
        assert isinstance(piece, tuple)
        yield piece
