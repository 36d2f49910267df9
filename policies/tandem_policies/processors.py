"""LeRobot's two processor files of a policy directory, as it would write them itself; without importing it.

Processors never normalise, for the network does. The normaliser steps stand there all the same, because
``lerobot-train`` overrides them by name when it trains a policy on; without features they change nothing.
"""

from typing import Any

_NOTHING_NORMALISED = {"eps": 1e-8, "features": {}, "norm_map": {}}


def _step(name: str, **config: Any) -> dict[str, Any]:
    return {"registry_name": name, "config": config}


PROCESSOR_FILES: dict[str, dict[str, Any]] = {
    "policy_preprocessor.json": {
        "name": "policy_preprocessor",
        "steps": [
            _step("rename_observations_processor", rename_map={}),
            _step("to_batch_processor"),
            _step("device_processor", device="cpu", float_dtype=None),
            _step("normalizer_processor", **_NOTHING_NORMALISED),
        ],
    },
    "policy_postprocessor.json": {
        "name": "policy_postprocessor",
        "steps": [
            _step("unnormalizer_processor", **_NOTHING_NORMALISED),
            _step("device_processor", device="cpu", float_dtype=None),
        ],
    },
}
