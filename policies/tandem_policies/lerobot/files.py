"""A LeRobot policy on disk: LeRobot's own files, written by it and read with distrust, and ``embodiment.json`` beside.

:mod:`tandem_policies.lerobot.checking` says what is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_model

from tandem_datasets.errors import TandemError, unknown
from tandem_policies.files import CONFIG, EMBODIMENT, WEIGHTS
from tandem_policies.lerobot import building
from tandem_policies.lerobot.building import Pipelines
from tandem_policies.lerobot.checking import PROCESSORS, Contents, check_directory
from tandem_policies.lerobot.config import LerobotConfig
from tandem_policies.lerobot.kinds import kind
from tandem_policies.lerobot.network import LerobotPolicy
from tandem_policies.lerobot.steps import ENLARGE
from tandem_policies.lerobot.steps import NAME as EMBEDDING_STEP

_ADDED = "observation.images.empty_camera_"  # features that vision-language-action models add by themselves


def write_policy(network: LerobotPolicy, folder: Path) -> None:
    """The files of a policy directory, into an empty folder."""
    before, after = network.processors()
    with building.lerobots_errors(str(folder)):
        network.policy.save_pretrained(folder)
        before.save_pretrained(folder)
        after.save_pretrained(folder)
    (folder / EMBODIMENT).write_text(json.dumps(network.embodiment.to_dict(), indent=2) + "\n", "utf-8")


def open_policy(directory: str | Path, device: str | torch.device = "cpu") -> LerobotPolicy:
    """The network of a LeRobot policy directory, in evaluation mode.

    Raises:
        TandemError: a file is missing, damaged or contradicts another, names a step that is not allowed, or asks
            for something that LeRobot cannot make.
    """
    contents = check_directory(directory)
    config = read_config(contents)
    weights = contents.path / WEIGHTS
    _check_steps(config.policy, contents)
    _check_features(contents, building.features(config, contents.embodiment))
    with torch.random.fork_rng(devices=[]):  # the throw-away initialisation must not move the caller's randomness
        network = LerobotPolicy(config, contents.embodiment, {})
    with building.lerobots_errors(str(weights)):
        load_model(network.policy, weights)
    for name, value in network.policy.named_parameters():
        if not torch.isfinite(value).all():
            raise TandemError(f"{weights}: tensor '{name}' holds numbers that are not finite")
    network.to(device).eval()
    network.take_processors(_load_processors(network, contents))
    return network


def read_config(contents: Contents) -> LerobotConfig:
    """Tandem's config of what LeRobot wrote; fields that only LeRobot's own training reads are left out.

    Raises:
        TandemError: no type that LeRobot knows, or a chunk that is none.
    """
    written, where = contents.config, str(contents.path / CONFIG)
    name = str(written.get("type"))
    cls, of = building.config_class(name, where), kind(name)
    known = {*building.option_names(cls, of)}
    length = written.get(of.chunk)
    if of.chunk == "horizon" and isinstance(length, int):
        steps = written.get("n_obs_steps", 1)
        length = length - (steps if isinstance(steps, int) else 1) + 1
    values = {
        "policy": name,
        "chunk_size": length,
        "n_action_steps": length if of.plays_all else written.get("n_action_steps"),
        "embedding_size": _setting(contents, EMBEDDING_STEP, "size", without=0),
        "image_scale": _setting(contents, ENLARGE, "factor", without=1),
        "options": {key: value for key, value in written.items() if key in known},
    }
    return LerobotConfig.from_dict(values, where)


def _setting(contents: Contents, name: str, key: str, without: int) -> Any:
    """A setting of one of our steps in the preprocessor; ``without`` that step, another."""
    for step in contents.steps[PROCESSORS[0]]:
        if step["registry_name"] == name:
            config = step.get("config")
            return config.get(key) if isinstance(config, dict) else None
    return without


def _check_steps(policy: str, contents: Contents) -> None:
    known = building.allowed_steps(policy)
    for name, steps in contents.steps.items():
        for step in steps:
            if step["registry_name"] not in known:
                raise unknown(f"{contents.path / name}: step", step["registry_name"][:80], known)


def _check_features(contents: Contents, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    for key, features in wanted.items():
        found = contents.config.get(key)
        if isinstance(found, dict):
            found = {name: feature for name, feature in found.items() if not name.startswith(_ADDED)}
        if found != features:
            raise TandemError(
                f"{contents.path / CONFIG}: {key} contradict {EMBODIMENT} (wanted: {json.dumps(features)})"
            )


def _load_processors(network: LerobotPolicy, contents: Contents) -> Pipelines:
    names = [step["registry_name"] for step in contents.steps[PROCESSORS[0]]]
    overrides: dict[str, Any] = {}
    if "device_processor" in names:
        overrides["device_processor"] = {"device": str(network.device)}
    with building.lerobots_errors(str(contents.path / PROCESSORS[0])):
        return make_pre_post_processors(
            network.policy.config, pretrained_path=str(contents.path), preprocessor_overrides=overrides
        )
