"""MCAP files and rosbag2 folders: of the contract's topics both ways, of any other topics by a map.

What is written, Foxglove, ``ros2 bag`` and every reader of MCAP understand: ROS 2 messages as CDR with their
definitions. No ROS is needed here. Beside the messages a file carries the embodiment, and the ``episode`` topic each
episode's facts, so that a store comes back exactly.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import Source
from tandem_datasets.formats.bags import SUFFIXES, bag_files
from tandem_datasets.formats.mcap_export import export_recording
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store

_MAX_JSON = 16 << 20


def open_source(
    path: str,
    *,
    map: Mapping[str, Any] | str = "",
    namespace: str = "",
    embodiment: str = "",
    unfinished: bool = True,
) -> Source:
    """Episodes of a recording.

    Args:
        path: a ``.mcap`` or ``.db3`` file, or a rosbag2 folder.
        map: which topics of a foreign recording are cameras, state and action: a yaml file or its content, see
            :mod:`.bag_map`. Empty: the topics are the contract's.
        namespace: the robot's, where the contract's topics of several were recorded.
        embodiment: of a recording that does not carry it: a store, or a ``.json`` file.
        unfinished: whether an episode without an end is taken, with the outcome "interrupted".

    Raises:
        TandemError: it is no recording, the topics do not fit, or it is damaged before its end.
    """
    if map:
        from tandem_datasets.formats.bag_map import read_map
        from tandem_datasets.formats.bag_mapped import MappedSource

        return MappedSource(path, read_map(map))
    from tandem_datasets.formats.bag_episodes import ContractSource

    return ContractSource(path, namespace, _embodiment(path, embodiment), unfinished)


def export(
    store: Store,
    target: Path,
    *,
    episodes: Sequence[int] | None = None,
    workers: int = 1,
    progress: Progress = silent,
    compression: str = "zstd",
    namespace: str = "",
) -> Path:
    """Writes episodes as a recording: one ``.mcap`` file if ``target`` ends so, else a rosbag2 folder.

    Log times are the ticks; where episodes overlap in time (each simulated one begins at 0), later ones are moved on,
    which the ``episode`` message tells. Stamps in headers are always the episode's own.

    Args:
        store: what to export.
        target: a place where nothing is yet.
        episodes: which; None: all that are not deleted.
        workers: so many processes read the store; the file does not depend on how many.
        progress: told after each episode.
        compression: of the file's chunks: zstd, lz4 or none.
        namespace: that the topics get in front.
    """
    return export_recording(store, target, episodes, workers, progress, compression, namespace)


def claims(path: str) -> bool:
    """Whether there is a file or folder of recordings."""
    place = Path(path)
    if place.is_file():
        return place.suffix in SUFFIXES
    if not place.is_dir():
        return False
    try:
        return bool(bag_files(place))
    except TandemError:
        return False


def _embodiment(path: str, given: str) -> Embodiment | None:
    """The embodiment that the user names, or that lies in the recording's folder; None: the recording tells it."""
    beside = Path(path, "embodiment.json")
    if not given and not beside.is_file():
        return None
    place = Path(given or beside)
    if place.is_dir():
        return Store(place).embodiment
    where = f"embodiment {place}"
    try:
        if place.stat().st_size > _MAX_JSON:
            raise TandemError(f"{where}: larger than {_MAX_JSON} bytes")
        return Embodiment.from_dict(json.loads(place.read_bytes()), where)
    except OSError as error:
        raise TandemError(f"{where}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{where}: damaged JSON: {str(error)[:100]}") from error
