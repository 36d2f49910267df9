"""Networks and how they are stored and opened as policies. Leans on tandem_datasets; knows neither simulators nor ROS.

Importing it is light: torch comes only with :func:`load` (or with ``tandem_policies.network``).
"""

from pathlib import Path

from tandem_datasets.policy import Policy


def load(path: str | Path, device: str = "auto", threads: int = 1) -> Policy:
    """Opens a policy directory; see :func:`tandem_policies.runtime.load`."""
    from tandem_policies.runtime import load as load_policy

    return load_policy(path, device, threads)
