"""`tandem data` commands that write stores or change one."""

from dataclasses import fields

from tandem_datasets.errors import TandemError
from tandem_training.data_commands.arguments import bar, choice_of, counted, place


def merge(config) -> int:
    """Join stores of one embodiment in a new one.

    tandem data merge outputs/demos.zarr outputs/rollouts/episodes.zarr out=outputs/all.zarr

    What is stored is copied as it is; images are encoded anew only where stores have another codec than the new one.
    Episodes marked as deleted are left out. Killed at any point, the new store is whole or not there.
    """
    from omegaconf import OmegaConf

    from tandem_datasets.ops import joining

    where = "tandem data merge"
    stores = OmegaConf.to_container(config.stores) if OmegaConf.is_list(config.stores) else [config.stores]
    if not isinstance(stores, list) or not stores or not all(isinstance(path, str) and path for path in stores):
        raise TandemError(f"{where}: stores is {stores!r:.80} (allowed: paths)")
    with bar("merge") as progress:
        made = joining.merge(
            [str(path) for path in stores],
            place(config, "out", where),
            codec=None if config.codec is None else str(config.codec),
            duplicates=config.duplicates,
            widen=config.widen,
            progress=progress,
        )
    print(f"{counted(made.n_episodes, 'episode')}, {counted(made.n_frames, 'frame')} in {made.path}")
    return 0


def split(config) -> int:
    """Cut a store into parts: new stores in a new folder.

    tandem data split outputs/demos.zarr out=outputs/parts fractions='{train: 0.8, validation: 0.1, test: 0.1}'
    tandem data split outputs/demos.zarr out=outputs/parts by=task

    Which part an episode goes to depends on the seed, the fractions and the episodes' uuids, not on their order.
    """
    from tandem_datasets.ops import joining
    from tandem_training.config import section

    where = "tandem data split"
    fractions = {"train": 0.9, "validation": 0.1} if config.fractions is None else config.fractions
    if not hasattr(fractions, "items"):
        raise TandemError(f"{where}: fractions is {fractions!r:.80} (allowed: {{train: 0.9, validation: 0.1}})")
    shares = fractions if isinstance(fractions, dict) else section(fractions)
    if not all(isinstance(share, int | float) and not isinstance(share, bool) for share in shares.values()):
        raise TandemError(f"{where}: fractions is {shares!r:.80} (allowed: numbers, in all 1)")
    with bar("split") as progress:
        parts = joining.split(
            place(config, "store", where),
            place(config, "out", where),
            {name: float(share) for name, share in shares.items()},
            by=config.by,
            seed=config.seed,
            progress=progress,
        )
    for store in parts.values():
        print(f"{counted(store.n_episodes, 'episode')}, {counted(store.n_frames, 'frame')} in {store.path}")
    return 0


def filter_(config) -> int:
    """Copy chosen episodes to a new store.

    tandem data filter outputs/rollouts/episodes.zarr out=good.zarr success=true min_frames=20
    tandem data filter outputs/demos.zarr out=red.zarr task="*red*" seeds='[0-99,200]'
    """
    from tandem_datasets.ops import joining

    where = "tandem data filter"
    with bar("filter") as progress:
        made = joining.filtered(place(config, "store", where), place(config, "out", where), choice_of(config), progress)
    print(f"{counted(made.n_episodes, 'episode')}, {counted(made.n_frames, 'frame')} in {made.path}")
    return 0


def trim(config) -> int:
    """Make a store whose episodes are cut at their ends.

    tandem data trim outputs/demos.zarr out=trimmed.zarr still=0.002
    tandem data trim outputs/demos.zarr out=trimmed.zarr first_s=0.5 last=3 task="pick*"

    A cut episode gets a uuid of its own and tells in its provenance what it was cut from.
    """
    from tandem_datasets.ops import changing
    from tandem_training.validate import at_least

    where = "tandem data trim"
    at_least(where, first=(config.first, 0), last=(config.last, 0), margin=(config.margin, 0))
    at_least(where, keep_frames=(config.keep_frames, 1), first_s=(config.first_s, 0.0), last_s=(config.last_s, 0.0))
    if config.still is not None:
        at_least(where, still=(config.still, 0.0))
    ends = changing.Ends(
        first=config.first,
        last=config.last,
        first_s=float(config.first_s),
        last_s=float(config.last_s),
        still=None if config.still is None else float(config.still),
        margin=config.margin,
        min_frames=config.keep_frames,
    )
    with bar("trim") as progress:
        made, frames, short = changing.trim(
            place(config, "store", where), place(config, "out", where), ends, choice_of(config), progress
        )
    left = f", {counted(short, 'episode')} left out" if short else ""
    cut = f"{counted(frames, 'frame')} cut off{left}"
    print(f"{counted(made.n_episodes, 'episode')}, {counted(made.n_frames, 'frame')} in {made.path}: {cut}")
    return 0


def relabel(config) -> int:
    """Give episodes another task or outcome.

    tandem data relabel outputs/rollouts.zarr episodes='[3,7-9]' to.outcome=dropped to.failure_reason="too fast"
    tandem data relabel outputs/demos.zarr task="pick cup" to.task="pick up the cup"

    Outcomes are changed in place. Another task is part of every frame: the store is written anew for it, and replaces
    the old one in one step.
    """
    from tandem_datasets.ops import changing
    from tandem_training.config import section

    where = "tandem data relabel"
    values = section(config.to)
    for key, value in values.items():
        wanted = bool if key == "success" else str
        if value is not None and not isinstance(value, wanted):
            allowed = "true or false" if wanted is bool else "a text"
            raise TandemError(f"{where}: to.{key} is {value!r:.40} (allowed: {allowed})")
    facts = changing.Facts(**{field.name: values[field.name] for field in fields(changing.Facts)})
    out = None if config.out is None else place(config, "out", where)
    with bar("relabel") as progress:
        done = changing.relabel(place(config, "store", where), choice_of(config), facts, out=out, progress=progress)
    print(f"{_episodes(done)} relabelled in {out or config.store}")
    return 0


def delete(config) -> int:
    """Mark episodes as deleted, or lift the mark. Nothing is taken away before `tandem data compact`.

    tandem data delete outputs/demos.zarr episodes='[4,17]'
    tandem data delete outputs/demos.zarr episodes=17 undo=true

    Training, exports and figures leave marked episodes out.
    """
    from tandem_datasets.ops import changing

    where = "tandem data delete"
    done = changing.delete(place(config, "store", where), choice_of(config), deleted=not config.undo)
    print(f"{_episodes(done)} {'no longer ' * config.undo}marked as deleted in {config.store}")
    return 0


def compact(config) -> int:
    """Write a store anew without the episodes that are marked as deleted.

    tandem data compact outputs/demos.zarr

    The new store takes the old one's place in one step: killed at any point, one of them is there. Readers that have
    the old one open are told to open it again.
    """
    from tandem_datasets.ops import changing
    from tandem_datasets.ops.overview import folder_bytes

    where = "tandem data compact"
    store = place(config, "store", where)
    out = None if config.out is None else place(config, "out", where)
    before = folder_bytes(store)
    with bar("compact") as progress:
        dropped = changing.compact(store, out, progress)
    after = folder_bytes(out or store)
    print(
        f"{counted(dropped, 'episode')} dropped: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB in {out or store}"
    )
    return 0


def _episodes(found) -> str:
    shown = ", ".join(map(str, found[:12].tolist())) + (" ..." if len(found) > 12 else "")
    return f"{len(found)} episode{'s' * (len(found) != 1)} ({shown})"
