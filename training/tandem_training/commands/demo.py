"""Go once round the loop on BlockFind and write a report (what `make demo` runs).

Expert demonstrations, training, rollouts over ROS 2 with the expert's labels (DAgger), training again, a
control, evaluations on unseen seeds. Run it again: what is done is not done twice.
"""

import time


def main(argv: list[str]) -> int:
    started = time.time()
    from tandem_training.config import parse

    config = parse("demo", argv, __doc__)
    if config is None:
        return 0
    from tandem_training.demo import run
    from tandem_training.validate import at_least

    for key in ("demonstrations", "dagger_episodes", "episodes", "realtime_episodes"):
        at_least("tandem demo", **{key: (config[key], 1)})
    at_least("tandem demo", seed=(config.seed, 0))
    return run(config, started)
