"""Who can be watched: the environment's expert, a baseline, or a policy directory."""

from tandem_datasets.policy import Policy
from tandem_datasets.rollout import EXPERT, EnvSpec


def cast(spec: EnvSpec, policy: str, device: str, threads: int) -> tuple[EnvSpec, Policy | None]:
    """Environment and actor as :class:`tandem_sim.performing.Performance` takes them.

    Where the actor does not look through cameras, the environment has none, so that nobody waits for their pictures.

    Raises:
        TandemError: no such environment or policy.
    """
    from tandem_sim.performing import blind
    from tandem_training.baseline_names import HOLD
    from tandem_training.evaluation import policy_loader

    if policy in (EXPERT, HOLD):
        spec = blind(spec)
    load = policy_loader(policy, device, threads, spec)
    return spec, load() if load else None
