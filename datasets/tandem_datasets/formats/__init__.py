"""Other dataset formats, one module each, found by name in :data:`FORMATS` and imported only when they are asked for.

A format's module offers what makes sense for it:

- ``open_source(path: str, *, <options>) -> Source``: foreign episodes, to be read one by one;
- ``export(store, target, *, episodes=None, workers=1, progress=silent, <options>) -> Path``: a store's episodes in this
  format, complete or not at all;
- ``claims(path: str) -> bool``: whether that looks like this format, told from names and a few bytes.

To add one: a module here with these functions, and its line in :data:`FORMATS`.
"""

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import EpisodeInfo, Frame
from tandem_datasets.progress import Progress, silent
from tandem_datasets.store import Store


class Source(Protocol):
    """Episodes from elsewhere. It can be pickled, so that worker processes read different episodes at once."""

    @property
    def embodiment(self) -> Embodiment:
        """What every frame fits."""
        ...

    @property
    def n_episodes(self) -> int: ...

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterable[Frame]]:
        """One episode, its frames read as they are asked for; raises TandemError where the data is broken."""
        ...


@dataclass(frozen=True)
class Format:
    """What is known of a format without importing its module."""

    module: str  # below this package
    reads: bool
    writes: bool
    what: str  # one line for help texts


FORMATS: dict[str, Format] = {
    "lerobot": Format("lerobot", True, True, "LeRobotDataset v3: parquet with images or mp4 video"),
    "replay_buffer": Format(
        "replay_buffer", True, True, "replay buffers of Diffusion Policy and UMI (.zarr, .zarr.zip)"
    ),
    "webdataset": Format("webdataset", False, True, "WebDataset tar shards, to train from"),
    "mcap": Format("mcap", True, True, "MCAP and rosbag2 recordings of ROS 2 messages"),
    "hdf5": Format("hdf5", True, False, "HDF5 in robomimic's layout"),
    "video": Format("video", True, False, "video files, cut into scenes: episodes without actions"),
    "images": Format("images", True, False, "folders of images: episodes without actions"),
}
"""In the order in which :func:`recognise` asks them."""

_FIXED = {"path", "store", "target", "episodes", "workers", "progress"}  # parameters that are no options


def open_source(path: str, name: str = "", options: Mapping[str, Any] | None = None) -> Source:
    """Opens data in the format ``name``; an empty name is recognised from the data.

    Raises:
        TandemError: there is nothing at ``path``, no format knows it, the format is only written, an option
            is unknown or of the wrong type, a package is not installed, or the data is broken.
    """
    name = name or recognise(path)
    module = _module(name, "import")
    return module.open_source(path, **checked_options(module.open_source, options or {}, f"import {name}"))


def export(
    store: Store,
    name: str,
    target: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    workers: int = 1,
    progress: Progress = silent,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``episodes`` of ``store`` (None: all that are not deleted) in the format ``name``, complete or not at all.

    Raises:
        TandemError: the format is unknown or only read, an option is unknown or of the wrong type, a package is not
            installed, the place is taken, or the format cannot express the store.
    """
    module = _module(name, "export")
    values = checked_options(module.export, options or {}, f"export {name}")
    return module.export(store, Path(target), episodes=episodes, workers=workers, progress=progress, **values)


def recognise(path: str) -> str:
    """The name of the format that claims what is at ``path``; raises TandemError if none does."""
    if "://" not in path and not Path(path).exists():
        raise TandemError(f"import {path}: there is nothing")
    if is_store(Path(path)):
        raise TandemError(f"import {path}: it is a store already (allowed: what other tools wrote)")
    readable = [name for name, form in FORMATS.items() if form.reads]
    for name in readable:
        if _module(name, "import").claims(path):
            return name
    if any(Path(path).glob("*.tar")):
        raise TandemError(
            f"import {path}: WebDataset shards hold windows, no episodes (allowed: what they were made of)"
        )
    raise TandemError(f"import {path}: no format knows it (give format=..., one of: {', '.join(readable)})")


def is_store(folder: Path) -> bool:
    """Whether a store of ours lies there, whole or damaged, told by names that replay buffers do not have."""
    ours = any((folder / "meta" / name).is_dir() for name in ("instructions", "uuid"))
    return ours and (folder / "zarr.json").is_file()


def options_of(name: str, doing: str) -> dict[str, Any]:
    """The options of a format with their defaults, for ``doing`` "import" or "export"; raises TandemError as these."""
    module = _module(name, doing)
    function = module.open_source if doing == "import" else module.export
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.name not in _FIXED}


def checked_options(function: Any, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``options`` as keyword arguments of ``function``.

    Raises:
        TandemError: one is not a parameter of it, or not of the type that it is annotated with.
    """
    known = {name: each for name, each in inspect.signature(function).parameters.items() if name not in _FIXED}
    for key, value in options.items():
        if key not in known:
            raise unknown(f"{where}: option", str(key)[:40], known)
        wanted = known[key].annotation
        if not _is_a(value, wanted):
            word = getattr(wanted, "__name__", str(wanted)) if isinstance(wanted, type) else str(wanted)
            raise TandemError(f"{where}: option {key} is {value!r:.80} (allowed: {word})")
    return dict(options)


def _module(name: str, doing: str) -> types.ModuleType:
    form = FORMATS.get(name)
    able = [each for each, known in FORMATS.items() if (known.reads if doing == "import" else known.writes)]
    if form is None:
        raise unknown(f"{doing}: format", str(name)[:40], able)
    if name not in able:
        raise TandemError(f"{doing}: format '{name}' cannot be {doing}ed (allowed: {', '.join(able)})")
    return import_module(f"{__name__}.{form.module}")


def _is_a(value: Any, wanted: Any) -> bool:
    """Whether ``value`` is what the annotation says; what a container holds is left to whom it is given."""
    if isinstance(wanted, types.UnionType):
        return any(_is_a(value, each) for each in typing.get_args(wanted))
    kind = typing.get_origin(wanted) or wanted
    if kind is inspect.Parameter.empty or kind is Any:
        return True
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, str):
        return kind is str
    return isinstance(value, (int, float) if kind is float else kind)
