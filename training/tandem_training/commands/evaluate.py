"""Roll a policy out in simulation, in this process or over ROS 2, and report its success.

    tandem eval policy=outputs/nano/best env=blockfind episodes=200
    tandem eval policy=expert env=blockfind backend=ros2 ros.mode=realtime
    tandem eval policy=outputs/static/best data=blockfind_static

Episode i uses seed + i. Writes metrics.json, a plot and films of some successes and failures to out. With data= nothing
is rolled out: the policy's actions are compared with recorded ones, of the test split or of any stores.
"""

from dataclasses import replace
from pathlib import Path


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("eval", argv, __doc__)
    if config is None:
        return 0
    if config.data is not None:
        from tandem_training.offline import run_offline
        from tandem_training.validate import at_least

        at_least("tandem eval", threads=(config.threads, 1))
        run_offline(config)
        return 0
    return _run(config)


def _run(config) -> int:
    from tandem_datasets.errors import TandemError
    from tandem_datasets.rollout import EXPERT, RolloutRequest
    from tandem_training.baseline_names import is_baseline, short_name
    from tandem_training.config import env_spec, section
    from tandem_training.evaluation import evaluate, find_backend, policy_loader, print_evaluation
    from tandem_training.provenance import policy_provenance
    from tandem_training.results import claimed
    from tandem_training.validate import at_least, path

    policy = str(config.policy)
    at_least("tandem eval", episodes=(config.episodes, 1), num_envs=(config.num_envs, 1), films=(config.films, 0))
    at_least("tandem eval", workers=(config.workers, 1))
    at_least("tandem eval", seed=(config.seed, 0), threads=(config.threads, 1))
    find_backend(config.backend)
    if is_baseline(policy) and config.backend != "inprocess":
        raise TandemError(f"tandem eval: policy '{policy}' with backend={config.backend} (allowed: backend=inprocess)")
    provenance = policy_provenance(policy)
    store = None if isinstance(config.record, bool) else path("tandem eval", "record", config.record)
    request = RolloutRequest(
        env=env_spec(config),
        policy=policy,
        episodes=config.episodes,
        seed=config.seed,
        load_policy=policy_loader(policy, config.device, config.threads, env_spec(config)),
        record=store,
        label=config.label,
        num_envs=config.num_envs,
        workers=config.workers,
        provenance=provenance,
        options={**section(config.ros), "device": config.device, "threads": config.threads},
    )
    name = short_name(policy) if policy == EXPERT or is_baseline(policy) else Path(policy).name
    with claimed(config.out, "tandem eval", name) as out:
        if config.record is True:
            request = replace(request, record=out / "episodes.zarr")
        evaluation = evaluate(request, config.backend, out, config.films)
    print_evaluation(evaluation.metrics)
    print(f"written to {out}")
    return 0
