"""Watch an environment live: MuJoCo's window, or a browser on this machine.

    tandem view env=h1_stack
    tandem view env=h1_build policy=outputs/act/best seed=7
    tandem view env=h1_join web=true

Episode i uses seed + i, in real time, until you close the window or press Ctrl-C. web=true needs no display: MuJoCo
Studio listens on 127.0.0.1 only.
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("view", argv, __doc__)
    if config is None:
        return 0
    from tandem_training.config import env_spec
    from tandem_training.performers import cast
    from tandem_training.validate import at_least

    where = "tandem view"
    at_least(where, seed=(config.seed, 0), threads=(config.threads, 1))
    for name in ("episodes", "port"):
        if config[name] is not None:
            at_least(where, **{name: (config[name], 1)})
    spec, actor = cast(env_spec(config), str(config.policy), config.device, config.threads)
    try:
        _watch(spec, actor, config)
    except KeyboardInterrupt:
        print()
    return 0


def _watch(spec, actor, config) -> None:
    from tandem_sim.opengl import import_mujoco

    import_mujoco()
    from tandem_sim.performing import Performance
    from tandem_sim.studio import Studio
    from tandem_sim.watching import Window, watch, world_of

    with Performance(spec, actor) as performance:
        world_of(performance)
        screen = Studio(f"Tandem: {config.env.name}", config.port) if config.web else Window(performance)
        with screen:
            for seed, outcome in watch(performance, screen, config.seed, config.episodes):
                print(f"seed {seed}: {outcome}", flush=True)
