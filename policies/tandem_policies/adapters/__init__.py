"""What makes any of our networks a policy of LeRobot's (0.6.1). Imported by LeRobot's commands, never by our runtime.

A policy type has three small modules beside its network, under the names that LeRobot's factory looks for:
``configuration_x`` (:mod:`tandem_policies.adapters.configuration`), ``modeling_x``
(:mod:`tandem_policies.adapters.modeling`) and ``processor_x`` (:mod:`tandem_policies.adapters.processors`).
:func:`register` imports the first of each; the plugin wheel ``lerobot_policy_tandem`` calls it.
"""

import importlib
from pathlib import Path

from tandem_policies.files import own_types


def register() -> list[str]:
    """Tells LeRobot of every policy type and of our processor steps; returns the types' names."""
    import tandem_policies.lerobot.steps  # noqa: F401 (registers them)

    root = Path(__file__).parents[1]
    names = [name for name in own_types() if (root / name / f"configuration_{name}.py").is_file()]
    for name in names:
        importlib.import_module(f"tandem_policies.{name}.configuration_{name}")
    return names
