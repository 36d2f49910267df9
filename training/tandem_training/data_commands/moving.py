"""`tandem data export` and `import`."""

from collections.abc import Mapping
from typing import Any

from tandem_datasets.errors import unknown
from tandem_training.data_commands.arguments import bar, counted, place


def export(config, options: Mapping[str, Any]) -> int:
    """Write a store's episodes in another format: complete, or not at all.

    tandem data export outputs/demos.zarr lerobot dataset video=true workers=2
    tandem data export outputs/demos.zarr replay_buffer buffer.zarr.zip map='{top: img}'

    Episodes marked as deleted are left out. datasets/FORMATS.md tells what each format carries.
    """
    from tandem_datasets.formats import export as write
    from tandem_datasets.ops.choosing import Choice, choose
    from tandem_datasets.store import Store
    from tandem_training.validate import at_least

    where = "tandem data export"
    at_least(where, workers=(config.workers, 1))
    name, out = str(config.format), place(config, "out", where)
    _check_names(where, name, "export", options)
    store = Store(place(config, "store", where))
    episodes = store.kept if config.episodes is None else choose(store, Choice(episodes=_plain(config.episodes)))
    with bar(f"export {name}") as progress:
        made = write(
            store, name, out, episodes=episodes.tolist(), workers=config.workers, progress=progress, options=options
        )
    print(f"{counted(len(episodes), 'episode')} written as {name} to {made}")
    return 0


def import_(config, options: Mapping[str, Any]) -> int:
    """Make a store of other people's episodes: complete, or not at all.

    tandem data import dataset again.zarr
    tandem data import lift.hdf5 lift.zarr instruction="lift the cube" actor=person codec=jpeg
    tandem data import lab_bag lab.zarr format=mcap map=map.yaml

    What the data does not tell is assumed, and stands in each episode's provenance; see datasets/FORMATS.md.
    """
    from tandem_datasets.formats import open_source, recognise
    from tandem_datasets.formats.importing import import_episodes
    from tandem_training.validate import at_least

    where = "tandem data import"
    at_least(where, workers=(config.workers, 1))
    source, out = place(config, "source", where), place(config, "out", where)
    name = recognise(source) if config.format is None else str(config.format)
    _check_names(where, name, "import", options)
    with bar(f"import {name}") as progress:
        opened = open_source(source, name, options)
        store = import_episodes(opened, out, codec=config.codec, workers=config.workers, progress=progress)
    print(f"{counted(store.n_episodes, 'episode')}, {counted(store.n_frames, 'frame')} of {name} in {out}")
    return 0


def formats_help(doing: str) -> str:
    """The formats, and the options of each with their defaults."""
    from tandem_datasets.formats import FORMATS, options_of

    lines = ["Formats and their options:", ""]
    for name, form in FORMATS.items():
        if form.writes if doing == "export" else form.reads:
            shown = " ".join(f"{key}={_shown(default)}" for key, default in options_of(name, doing).items())
            lines += [f"  {name}: {form.what}", f"    {shown}"]
    return "\n".join(lines)


def _check_names(where: str, name: str, doing: str, options: Mapping[str, Any]) -> None:
    """Raises TandemError for an option that neither the command nor the format knows."""
    from tandem_datasets.formats import options_of
    from tandem_training.config import compose

    known = options_of(name, doing)
    for key in options:
        if key not in known:
            raise unknown(f"{where}: {name}", str(key)[:40], [*known, *map(str, compose(f"data_{doing}", []))])


def _plain(value: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _shown(default: Any) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default) or '""'
