"""The embodiment of a policy that LeRobot makes from a dataset or an environment, whose features say less than ours.

A dataset that Tandem exported carries its embodiment whole. What is assumed of any other stands in
``tandem_datasets.formats.lerobot.features``, so that an imported store and a policy trained by LeRobot agree.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.lerobot import EMBODIMENT_FILE
from tandem_datasets.formats.lerobot.features import ACTION, IMAGES, STATE, Statistics, channels_first, of_features
from tandem_policies.files import policy_features

__all__ = ["ACTION", "IMAGES", "STATE", "Statistics", "of_dataset", "of_features", "require_shapes"]


def of_dataset(meta: Any, statistics: Statistics | None) -> Embodiment:
    """The embodiment of a LeRobotDataset's metadata: the one it carries, else one made from its features.

    Raises:
        TandemError: a feature that no embodiment describes, or one that contradicts the carried embodiment.
    """
    where = f"dataset '{meta.repo_id}'"
    carried = Path(meta.root) / EMBODIMENT_FILE
    if carried.is_file():
        body = _read(carried, where)
        require_shapes(body, meta.features, where)
        if body.rate_hz != meta.fps:
            raise TandemError(f"{where}: fps is {meta.fps} (wanted: {body.rate_hz:g}, as in {EMBODIMENT_FILE})")
        return body
    return of_features(
        meta.features,
        where,
        rate_hz=float(meta.fps),
        name=meta.robot_type or "",
        hears=any(str(text) for text in meta.tasks.index),
        statistics=statistics or {},
    )


def require_shapes(body: Embodiment, features: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Raises TandemError if one of LeRobot's features has another shape than the embodiment's of that name."""
    for part in policy_features(body).values():
        for key, wanted in part.items():
            if key not in features:
                continue
            item = features[key]
            given = channels_first(item) if wanted["type"] == "VISUAL" else tuple(item["shape"])
            if given != tuple(wanted["shape"]):
                raise TandemError(
                    f"{where}: {key} has shape {given} (allowed: {tuple(wanted['shape'])}, as in '{body.name}')"
                )


def _read(file: Path, where: str) -> Embodiment:
    try:
        return Embodiment.from_dict(json.loads(file.read_text("utf-8")), f"{where}: {EMBODIMENT_FILE}")
    except (OSError, ValueError, RecursionError) as error:
        raise TandemError(f"{where}: {EMBODIMENT_FILE}: {str(error)[:120]}") from None
