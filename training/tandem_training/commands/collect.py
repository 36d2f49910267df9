"""Record demonstrations: the expert (or a policy, with the expert's labels) acts, a store keeps it.

    tandem collect env=blockfind episodes=200 out=outputs/demos.zarr
    tandem collect env=blockfind episodes=50 out=outputs/demos.zarr append=true seed=1000 noise=0.3
    tandem collect env=h1_stack episodes=100 workers=2 out=outputs/stack.zarr recovery=0.2

Episode i uses seed + i, and the store is the same whatever the number of workers. Each step is stored with the action
executed and the expert's label. Stopped at any point, the store keeps the episodes that were finished.
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("collect", argv, __doc__)
    if config is None:
        return 0
    return _run(config)


def _run(config) -> int:
    import time

    from tandem_datasets.rollout import EXPERT, EpisodeResult
    from tandem_sim.rollout import run
    from tandem_training.evaluation import progress

    request = _request(config)
    results: list[EpisodeResult] = []
    started = time.perf_counter()
    title = "the expert demonstrates" if request.policy == EXPERT else "the policy acts, the expert labels"
    try:
        with progress(request.episodes, title) as advance:

            def on_episode(result: EpisodeResult) -> None:
                results.append(result)
                advance(result)

            run(request, on_episode)
    finally:
        seconds = time.perf_counter() - started
        stopped = "" if len(results) == request.episodes else f" of {request.episodes}, then stopped"
        if results:
            won = sum(result.info.success for result in results)
            frames = sum(result.steps for result in results)
            print(
                f"{len(results)} episodes{stopped}: {frames} frames, {won / len(results):.1%} success, "
                f"{seconds:.1f} s, in {request.record}"
            )
    return 0


def _request(config):
    from datetime import datetime
    from pathlib import Path

    from tandem_datasets.errors import TandemError
    from tandem_datasets.rollout import RolloutRequest
    from tandem_datasets.writer import vacant
    from tandem_training.config import env_spec
    from tandem_training.evaluation import policy_loader
    from tandem_training.provenance import policy_provenance
    from tandem_training.validate import at_least, path

    where = "tandem collect"
    at_least(where, episodes=(config.episodes, 1), num_envs=(config.num_envs, 1), threads=(config.threads, 1))
    at_least(where, seed=(config.seed, 0), noise=(config.noise, 0.0), recovery=(config.recovery, 0.0))
    at_least(where, workers=(config.workers, 1))
    out, policy = path(where, "out", config.out), str(config.policy)
    if out is None and config.append:
        raise TandemError(f"{where}: append is true without out (allowed: out=<the store to add to>)")
    if out is None:
        out = Path("outputs", "collect", f"{config.env.name}-{datetime.now():%Y%m%d-%H%M%S}.zarr")
    if not config.append and not vacant(out):
        raise TandemError(f"{where}: out={out} exists (allowed: a new path, or append=true to add to a store)")
    return RolloutRequest(
        env=env_spec(config),
        policy=policy,
        episodes=config.episodes,
        seed=config.seed,
        load_policy=policy_loader(policy, config.device, config.threads, env_spec(config)),
        record=out,
        label=True,
        num_envs=config.num_envs,
        provenance=policy_provenance(policy),
        workers=config.workers,
        options={"noise": float(config.noise), "recovery": float(config.recovery)},
    )
