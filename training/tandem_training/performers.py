"""Who can be watched: the environment's expert, somebody who holds still, or a policy directory."""

from tandem_datasets.policy import Policy
from tandem_datasets.rollout import EXPERT


def performer(policy: str, device: str, threads: int) -> Policy | str:
    """As :class:`tandem_sim.performing.Performance` takes it; raises TandemError if there is no such policy."""
    from tandem_sim.performing import HOLD

    if policy in (EXPERT, HOLD):
        return policy
    import tandem_policies

    return tandem_policies.load(policy, device=device, threads=threads)
