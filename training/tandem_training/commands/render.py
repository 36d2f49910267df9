"""Film an environment: an MP4 of any policy, several cameras side by side.

    tandem render env=h1_stack policy=expert out=outputs/stack.mp4
    tandem render env=h1_join seed=7 cameras='[front,left_wrist,right_wrist]' size=480 fps=25
    tandem render env=blockfind policy=outputs/nano/best episodes=5

Episode i uses seed + i. Below the pictures stand the instruction and what the actor is about: the expert's subgoal, or
what a policy says. It plays at the speed at which it happened.
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("render", argv, __doc__)
    if config is None:
        return 0
    from tandem_training.config import env_spec, section
    from tandem_training.filming import film, film_path, film_settings
    from tandem_training.performers import cast
    from tandem_training.validate import at_least

    where = "tandem render"
    at_least(where, seed=(config.seed, 0), episodes=(config.episodes, 1), threads=(config.threads, 1))
    policy = str(config.policy)
    target = film_path(config.out, str(config.env.name), policy, where)
    spec = env_spec(config)
    settings = film_settings(section(config), where, spec.options.get("cameras"))
    spec, actor = cast(spec, policy, config.device, config.threads)
    outcomes, frames = film(spec, actor, config.seed, config.episodes, settings, target, where)
    for seed, outcome in outcomes.items():
        print(f"seed {seed}: {outcome}")
    print(f"{frames} frames written to {target}")
    return 0
