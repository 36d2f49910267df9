"""A LeRobot policy on disk: LeRobot's own files, written by it and read with distrust, and ``embodiment.json`` beside.

LeRobot would import whatever class a processor file names: only steps that are registered with it by name are let
through. A directory of LeRobot's own training lacks ``embodiment.json``, and LeRobot's features have no units, limits,
rate and names to make it from: write it there (:meth:`tandem_datasets.embodiment.Embodiment.to_dict`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import ProcessorStepRegistry
from safetensors.torch import load_model

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_policies.files import CONFIG, EMBODIMENT, WEIGHTS, read_json
from tandem_policies.lerobot import building
from tandem_policies.lerobot.building import Pipelines
from tandem_policies.lerobot.config import LerobotConfig
from tandem_policies.lerobot.kinds import kind
from tandem_policies.lerobot.network import LerobotPolicy
from tandem_policies.lerobot.steps import NAME as EMBEDDING_STEP

PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
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
        TandemError: a file is missing, damaged or contradicts another, names a step that is not registered, or asks
            for something that LeRobot cannot make.
    """
    path = Path(directory)
    written = read_json(path / CONFIG)
    where = str(path / CONFIG)
    embodiment = read_embodiment(path)
    for name in (WEIGHTS, *PROCESSORS):
        if not (path / name).is_file():
            raise TandemError(f"{path}: no {name} (wanted: a directory that LeRobot's save_pretrained wrote)")
    steps = [read_json(path / name) for name in PROCESSORS]
    config = _read_config(written, steps[0], where)
    building.register_steps(config.policy)
    for name, content in zip(PROCESSORS, steps, strict=True):
        _check_steps(content, path / name)
    _check_features(written, building.features(config, embodiment), where)
    with torch.random.fork_rng(devices=[]):  # the throw-away initialisation must not move the caller's randomness
        network = LerobotPolicy(config, embodiment, {})
    with building.lerobots_errors(str(path / WEIGHTS)):
        load_model(network.policy, path / WEIGHTS)
    for name, value in network.policy.named_parameters():
        if not torch.isfinite(value).all():
            raise TandemError(f"{path / WEIGHTS}: tensor '{name}' holds numbers that are not finite")
    network.to(device).eval()
    network.take_processors(_load_processors(network.policy.config, path, steps, network.device))
    return network


def read_embodiment(path: Path) -> Embodiment:
    """What a LeRobot policy directory was trained for; TandemError if it does not say."""
    file = path / EMBODIMENT
    if not file.is_file():
        raise TandemError(
            f"{path}: no {EMBODIMENT} (wanted: names, units, limits and rate of cameras, state and action, which "
            "LeRobot's config.json does not hold; a directory that Tandem trained has it)"
        )
    return Embodiment.from_dict(read_json(file), str(file))


def _read_config(written: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> LerobotConfig:
    """Tandem's config of what LeRobot wrote; fields that only its training reads are left out."""
    name = written.get("type")
    if not isinstance(name, str):
        raise TandemError(f"{where}: type is {name!r:.60} (wanted: a policy type)")
    cls, of = building.config_class(name, where), kind(name)
    known = {*building.option_names(cls, of)}
    options = {key: value for key, value in written.items() if key in known}
    length = written.get(of.chunk)
    if of.chunk == "horizon" and isinstance(length, int):
        steps = written.get("n_obs_steps", 1)
        length = length - (steps if isinstance(steps, int) else 1) + 1
    values = {
        "policy": name,
        "chunk_size": length,
        "n_action_steps": length if of.plays_all else written.get("n_action_steps"),
        "embedding_size": _embedding_size(preprocessor, where),
        "options": options,
    }
    return LerobotConfig.from_dict(values, where)


def _embedding_size(preprocessor: Mapping[str, Any], where: str) -> Any:
    """What the file's step for instructions makes; 0 without one."""
    for step in _steps(preprocessor, where):
        if step.get("registry_name") == EMBEDDING_STEP:
            config = step.get("config")
            return config.get("size") if isinstance(config, dict) else None
    return 0


def _steps(content: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    steps = content.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise TandemError(f"{where}: steps is {type(steps).__name__} (wanted: a list of objects)")
    return steps


def _check_steps(content: Mapping[str, Any], file: Path) -> None:
    """Refuses steps that are not registered, and state from elsewhere."""
    for step in _steps(content, str(file)):
        name = step.get("registry_name")
        if name is None or "class" in step:
            shown = step.get("class")
            raise TandemError(f"{file}: a step of class {shown!r:.80} (allowed: steps registered by name)")
        if not isinstance(name, str) or name not in ProcessorStepRegistry.list():
            raise unknown(f"{file}: step", str(name)[:80], ProcessorStepRegistry.list())
        state = step.get("state_file")
        if state is not None:
            fine = isinstance(state, str) and Path(state).name == state and state.endswith(".safetensors")
            if not fine or not (file.parent / state).is_file():
                raise TandemError(f"{file}: state_file is {state!r:.80} (allowed: a .safetensors file beside it)")


def _check_features(written: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for key, features in wanted.items():
        found = written.get(key)
        if isinstance(found, dict):
            found = {name: feature for name, feature in found.items() if not name.startswith(_ADDED)}
        if found != features:
            raise TandemError(f"{where}: {key} contradict {EMBODIMENT} (wanted: {json.dumps(features)})")


def _load_processors(
    config: PreTrainedConfig, path: Path, contents: list[dict[str, Any]], device: torch.device
) -> Pipelines:
    names = [step.get("registry_name") for step in _steps(contents[0], PROCESSORS[0])]
    overrides: dict[str, Any] = {}
    if "device_processor" in names:
        overrides["device_processor"] = {"device": str(device)}
    with building.lerobots_errors(str(path / PROCESSORS[0])):
        return make_pre_post_processors(config, pretrained_path=str(path), preprocessor_overrides=overrides)
