"""LeRobot's two processors of our networks: renaming, batch dimension and device; the task's text passes untouched."""

from copy import deepcopy
from typing import Any

from lerobot.lerobot_types import PolicyAction
from lerobot.processor import PolicyProcessorPipeline, policy_action_to_transition, transition_to_policy_action

from tandem_policies.adapters.configuration import NetworkConfig
from tandem_policies.processors import PROCESSOR_FILES

Processors = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]


def make_pre_post_processors(
    config: NetworkConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> Processors:
    """What every policy directory of ours has in its processor files, on the config's device.

    ``dataset_stats`` are LeRobot's to give and change nothing here: the network has them.
    """
    files = deepcopy(PROCESSOR_FILES)
    device = {"device_processor": {"device": config.device}}
    return (
        PolicyProcessorPipeline.from_config(files["policy_preprocessor.json"], overrides=device),
        PolicyProcessorPipeline.from_config(
            files["policy_postprocessor.json"],
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
