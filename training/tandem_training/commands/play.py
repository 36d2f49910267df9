"""Play an environment yourself, in a window or in the terminal.

    tandem play env=blockfind
    tandem play env=blockfind view=terminal record=outputs/mine.zarr

Finished episodes can be stored as demonstrations by a person.
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("play", argv, __doc__)
    if config is None:
        return 0
    from tandem_sim.play import play
    from tandem_training.config import env_spec
    from tandem_training.provenance import code_digest
    from tandem_training.validate import at_least, path
    from tandem_training.views import open_view

    at_least("tandem play", seed=(config.seed, 0))
    if config.episodes is not None:
        at_least("tandem play", episodes=(config.episodes, 1))
    spec = env_spec(config)
    record = path("tandem play", "record", config.record)
    with open_view(config.view, "tandem play") as view:
        infos = play(spec, view, config.seed, config.episodes, record, {"code": code_digest()})
    won = sum(info.success for info in infos)
    print(f"{len(infos)} episodes played, {won} successful" + (f"; stored in {record}" if record and infos else ""))
    return 0
