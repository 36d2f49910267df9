"""LeRobot's config, policy and processors from Tandem's config and embodiment."""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
)
from lerobot.utils.import_utils import register_third_party_plugins
from torch import Tensor

from tandem_datasets.embodiment import Embodiment, Encoding
from tandem_datasets.errors import TandemError, unknown
from tandem_policies import hub
from tandem_policies.files import own_types
from tandem_policies.lerobot.config import LerobotConfig
from tandem_policies.lerobot.kinds import ENVIRONMENT_STATE, KINDS, STATE, UNFIT, Kind, kind
from tandem_policies.lerobot.steps import ENLARGE
from tandem_policies.lerobot.steps import NAME as INSTRUCTION

IMAGES, ACTION = "observation.images.", "action"
# Fields that no option may set: Tandem says these by itself, ...
_SET_HERE = (
    "n_action_steps", "input_features", "output_features", "device", "push_to_hub", "repo_id", "private", "tags",
    "license", "pretrained_path", "pretrained_revision", "use_amp", "use_peft", "trust_remote_code",
)  # fmt: skip
# ... and these are read by LeRobot's own training, so that setting them would do nothing.
_FOR_LEROBOTS_TRAINING = ("optimizer_", "scheduler_", "drop_n_last_frames")

# Steps that the processors of LeRobot's own policies share, and ours.
_STEPS = (
    "rename_observations_processor", "to_batch_processor", "device_processor", "normalizer_processor",
    "unnormalizer_processor", "tokenizer_processor", "smolvla_new_line_processor", "relative_actions_processor",
    "absolute_actions_processor", INSTRUCTION, ENLARGE,
)  # fmt: skip
# Options that change what LeRobot's own loop does with a chunk, which does not run here.
_OF_LEROBOTS_LOOP = ("temporal_ensemble_coeff",)

_HUB = "huggingface.co"

Pipelines = tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]


@contextmanager
def lerobots_errors(where: str, config: PreTrainedConfig | None = None) -> Iterator[None]:
    """What LeRobot and the libraries below it raise, as one line; ``config`` names the parts that may be fetched.

    These come from the cache where the hub cannot be reached, which is asked once: the libraries would for minutes.
    """
    try:
        with hub.not_asked_in_vain() if config is not None and _fetches(config) else nullcontext():
            yield
    except TandemError:
        raise
    except Exception as error:  # they raise nearly anything: ValueError, OSError, DecodingError, asserts
        told = f"{error} {error.__cause__ or ''}"  # draccus says only in the cause what was wrong
        reason = " ".join(told.split()) or type(error).__name__
        if config is not None and _HUB in reason:
            raise TandemError(
                f"{where}: a pretrained part cannot be fetched: {', '.join(_parts(config)) or reason[:300]} "
                "(allowed: with a network, a name on the Hugging Face hub; without, a local folder or what is cached)"
            ) from error
        raise TandemError(f"{where}: {reason[:400]}") from error


def _parts(config: PreTrainedConfig) -> list[str]:
    """The fields that name something on the hub or a folder."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return [f"{name}={value}" for name, value in values.items() if isinstance(value, str) and "/" in value]


def _fetches(config: PreTrainedConfig) -> bool:
    """Whether some of its parts come from the hub or its cache."""
    names = [text.partition("=")[2] for text in _parts(config)]
    return any(hub.local_folder(name) is None for name in (*names, *kind(config.type).fixed_names))


def known_policies() -> list[str]:
    """All types that LeRobot and its plugins have registered and that fit here."""
    register_third_party_plugins()
    return sorted({*PreTrainedConfig.get_known_choices()} - {*UNFIT, *own_types()})


def config_class(policy: str, where: str) -> type[PreTrainedConfig]:
    """LeRobot's config class of a type; TandemError with the known ones for another name."""
    if policy not in PreTrainedConfig.get_known_choices() or policy in (*UNFIT, *own_types()):
        known = known_policies()  # plugins are imported only where LeRobot itself does not know the name
        if policy not in known:
            raise unknown(f"{where}: policy", policy, known)
    return PreTrainedConfig.get_choice_class(policy)


def option_names(cls: type[PreTrainedConfig], of: Kind) -> list[str]:
    """The fields of a config class that ``options`` may hold."""
    names = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in (of.chunk, *_SET_HERE)]
    return [name for name in names if not name.startswith(_FOR_LEROBOTS_TRAINING)]


def lerobot_config(config: LerobotConfig, embodiment: Embodiment) -> PreTrainedConfig:
    """LeRobot's config of a policy for an embodiment, on the CPU.

    Raises:
        TandemError: no such type or option, a value that LeRobot refuses, or an embodiment that it cannot serve.
    """
    where = f"policy 'lerobot/{config.policy}'"
    of = kind(config.policy)
    cls = config_class(config.policy, where)
    allowed = option_names(cls, of)
    for name, value in config.options.items():
        if name in _OF_LEROBOTS_LOOP and value is not None:
            raise TandemError(f"{where}: options.{name} is {value} (allowed: null; Tandem plays chunks as they are)")
        if name == of.chunk:
            raise TandemError(f"{where}: options.{name} (allowed: policy.chunk_size, which stands for it)")
        if name.startswith(_FOR_LEROBOTS_TRAINING):
            raise TandemError(f"{where}: options.{name} is of LeRobot's training (allowed: trainer.lr and the like)")
        if name not in allowed:
            raise unknown(f"{where}: options", name, allowed)
    fields = {field.name for field in dataclasses.fields(cls)}
    if of.chunk not in fields:
        raise TandemError(f"{where}: its config has no {of.chunk} (allowed: policies that predict chunks of actions)")
    if of.plays_all and config.n_action_steps != config.chunk_size:
        raise TandemError(
            f"{where}: n_action_steps is {config.n_action_steps} "
            f"(allowed: chunk_size = {config.chunk_size}, it plays the whole chunk)"
        )
    values = {**config.options, **features(config, embodiment), "device": "cpu", of.chunk: config.chunk_size}
    values["push_to_hub"] = False
    if "n_action_steps" in fields:
        values["n_action_steps"] = config.n_action_steps
    with lerobots_errors(where):
        if of.chunk == "horizon":
            values["horizon"] = config.chunk_size + int(values.get("n_obs_steps", cls.n_obs_steps)) - 1
        return draccus.decode(cls, values)


def features(config: LerobotConfig, embodiment: Embodiment) -> dict[str, dict[str, Any]]:
    """LeRobot's ``input_features`` and ``output_features``, in JSON types; images (C, H, W) as the policy sees them.

    Raises:
        TandemError: a camera of another encoding, or no state: LeRobot breaks without one in its first step.
    """
    inputs: dict[str, Any] = {}
    if not embodiment.state_dim and config.policy in KINDS:
        raise TandemError(
            f"policy 'lerobot/{config.policy}': embodiment '{embodiment.name}' has no state, which it reads "
            "(allowed: an embodiment with state, or a policy that needs none, such as tinyvla/nano)"
        )
    for camera in embodiment.cameras:
        if camera.encoding is not Encoding.RGB8:
            raise TandemError(
                f"policy 'lerobot/{config.policy}': camera '{camera.name}' is {camera.encoding} (allowed: rgb8)"
            )
        height, width, channels = camera.shape
        shape = [channels, config.image_scale * height, config.image_scale * width]
        inputs[IMAGES + camera.name] = {"type": "VISUAL", "shape": shape}
    size = embodiment.state_dim
    heard = embedding_key(config, embodiment)
    if heard == STATE:
        size += config.embedding_size
    if size:
        inputs[STATE] = {"type": "STATE", "shape": [size]}
    if heard == ENVIRONMENT_STATE:
        inputs[ENVIRONMENT_STATE] = {"type": "ENV", "shape": [config.embedding_size]}
    action = {"type": "ACTION", "shape": [embodiment.action_dim]}
    return {"input_features": inputs, "output_features": {ACTION: action}}


def embedding_key(config: LerobotConfig, embodiment: Embodiment) -> str | None:
    """The feature that the instruction's embedding is in; None if there is none."""
    return kind(config.policy).embedding if embodiment.hears_instruction and config.embedding_size else None


@contextmanager
def weights_come_later(config: PreTrainedConfig) -> Iterator[None]:
    """Inside, a policy fetches no pretrained weights: its own ones replace them anyway."""
    fields: dict[str, Any] = {
        "pretrained_backbone_weights": None,
        "load_vlm_weights": False,
        "pretrained_path": Path(),  # EO-1 then builds its backbone from the config
        "compile_model": False,
    }
    before = {name: getattr(config, name) for name in fields if hasattr(config, name)}
    for name in before:
        setattr(config, name, fields[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def make_policy(config: PreTrainedConfig, where: str) -> PreTrainedPolicy:
    """A policy with fresh weights, those of its pretrained parts excepted.

    Raises:
        TandemError: what LeRobot refuses, a package is missing, or a part by name cannot be had.
    """
    with lerobots_errors(where, config):
        return get_policy_class(config.type)(config)


def make_processors(
    config: PreTrainedConfig, statistics: Mapping[str, Mapping[str, Tensor]], ours: Sequence[ProcessorStep]
) -> Pipelines:
    """LeRobot's own processors of a policy, with steps of ours in front of the normalisation."""
    with lerobots_errors(f"policy 'lerobot/{config.type}': processors", config):
        before, after = make_pre_post_processors(config, dataset_stats={k: dict(v) for k, v in statistics.items()})
    steps = list(before.steps)
    batching = [at for at, step in enumerate(steps) if isinstance(step, AddBatchDimensionProcessorStep)]
    place = batching[0] + 1 if batching else 0
    before.steps = [*steps[:place], *ours, *steps[place:]]
    return before, after


def allowed_steps(policy: str) -> list[str]:
    """The registered names that processor files of a type may hold: harmless ones, and those of the type's own module.

    Others of LeRobot's do what a policy has no need of; ``action_tokenizer_processor`` runs code out of the folder that
    it names.
    """
    module = PreTrainedConfig.get_choice_class(policy).__module__.replace("configuration_", "processor_")
    importlib.import_module(module)  # it registers them
    own = [name for name in ProcessorStepRegistry.list() if ProcessorStepRegistry.get(name).__module__ == module]
    return sorted({*_STEPS, *own})


def time_window(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Observations seen at once, and how many actions before the newest one, and from it on, training wants."""
    actions = config.action_delta_indices or [0]
    seen = config.observation_delta_indices or [0]
    return 1 - min(seen), -min(0, *actions), max(actions) + 1
