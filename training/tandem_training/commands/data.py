"""Look at, check, change, import and export stores of episodes (`tandem data info STORE`).

    tandem data validate outputs/demos.zarr repair=true
    tandem data merge a.zarr b.zarr out=both.zarr
    tandem data export outputs/demos.zarr lerobot dataset video=true workers=2
    tandem data view outputs/demos.zarr out=page.html

Stores and places may be given without their keys, in the order of `tandem data NAME --help`. Episodes are chosen by
plain conditions, all of which must hold: episodes='[0,3,5-9]' task="pick*" success=true source=person seeds=0-99.
"""

NAMES = {
    "info": "what a store holds: episodes, tasks, outcomes, cameras, state, action, size",
    "validate": "finds all that is broken, says what repair=true would do; exit status 1 if something is",
    "stats": "mean, deviation, limits and quantiles of state, action and pixels",
    "merge": "several stores into a new one",
    "split": "a store into parts, by episode or by task",
    "filter": "chosen episodes into a new store",
    "trim": "a new store whose episodes are cut at their ends",
    "relabel": "other tasks, outcomes, reasons of failure",
    "delete": "marks episodes as deleted (undo=true lifts the mark)",
    "compact": "drops what is marked as deleted",
    "export": "to LeRobotDataset, replay buffers, WebDataset, MCAP",
    "import": "from LeRobotDataset, replay buffers, MCAP and rosbag2, HDF5, videos, images",
    "view": "a page with filmstrips and plots; on request a Rerun recording",
    "card": "a dataset card",
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, NAMES))
        lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in NAMES.items())
        print(f"usage: tandem data NAME [STORE] [key=value ...]\n\n{(__doc__ or '').strip()}\n\n{lines}")
        return 0
    if argv[0] not in NAMES:
        from tandem_datasets.errors import unknown

        raise unknown("tandem data", argv[0], NAMES)
    from tandem_training.data_commands import run

    return run(argv[0], argv[1:])
