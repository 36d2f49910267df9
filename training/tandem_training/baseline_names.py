"""The names of the baselines; see :mod:`tandem_training.baselines`, which costs more to import."""

HOLD, MEAN, NEAREST = "hold", "mean", "nearest"
BASELINES = f"{HOLD}, {MEAN}:STORE, {NEAREST}:STORE"  # as errors tell them


def is_baseline(policy: str) -> bool:
    """Whether a policy's name is a baseline's, and no directory's."""
    return policy == HOLD or policy.startswith((f"{MEAN}:", f"{NEAREST}:"))


def store_of(policy: str) -> str:
    """The store that a baseline's name holds; "" for ``hold``."""
    return policy.partition(":")[2]


def short_name(policy: str) -> str:
    """Without the store."""
    return policy.partition(":")[0]
