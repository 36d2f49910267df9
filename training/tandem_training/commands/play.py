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

    at_least("tandem play", seed=(config.seed, 0))
    if config.episodes is not None:
        at_least("tandem play", episodes=(config.episodes, 1))
    spec = env_spec(config)
    record = path("tandem play", "record", config.record)
    with _view(config.view) as view:
        infos = play(spec, view, config.seed, config.episodes, record, {"code": code_digest()})
    won = sum(info.success for info in infos)
    print(f"{len(infos)} episodes played, {won} successful" + (f"; stored in {record}" if record and infos else ""))
    return 0


def _view(wanted: str):
    from tandem_datasets.errors import TandemError, unknown
    from tandem_sim import terminal, window

    if wanted not in ("auto", "window", "terminal"):
        raise unknown("tandem play: view", wanted, ("auto", "window", "terminal"))
    if wanted == "window" or (wanted == "auto" and window.available()):
        try:
            return window.Window("Tandem")
        except TandemError:  # a display is named, but it cannot be opened
            if wanted == "window" or not terminal.available():
                raise
    if wanted == "auto" and not terminal.available():
        raise TandemError("tandem play: there is neither a display nor a terminal to play in")
    return terminal.TerminalView()
