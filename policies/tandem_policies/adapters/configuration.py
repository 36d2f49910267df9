"""The LeRobot config of a policy type: LeRobot's own fields, those of our config dataclass, and the embodiment."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig, LRSchedulerConfig, OptimizerConfig
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig

from tandem_datasets.embodiment import Embodiment
from tandem_policies.files import policy_features
from tandem_policies.settings import PolicyConfig


@dataclass
class NetworkConfig(PreTrainedConfig):
    """The base of all adapters' configs; :func:`with_fields_of` adds the type's own fields.

    It reads the ``config.json`` of a policy directory and writes one that our runtime reads.
    """

    settings_class: ClassVar[type[PolicyConfig]]

    embodiment: dict[str, Any] | None = None  # None: derived from the dataset's features or the environment's
    normalization_mapping: dict[str, NormalizationMode] = field(  # the network normalises by itself
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    optimizer_lr: float = 4e-3
    optimizer_weight_decay: float = 0.01
    optimizer_grad_clip_norm: float = 1.0
    scheduler_warmup_steps: int = 100  # linear, then a cosine to zero over what is left of the training

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settings()

    def settings(self) -> PolicyConfig:
        """The type's own config; TandemError for a value that it refuses."""
        names = [item.name for item in dataclasses.fields(self.settings_class)]
        return self.settings_class.from_dict({name: getattr(self, name) for name in names}, f"policy '{self.type}'")

    def describe(self, body: Embodiment) -> None:
        """Takes an embodiment, and LeRobot's features as they follow from it."""
        self.embodiment = body.to_dict()
        for key, part in policy_features(body).items():
            features = {
                name: PolicyFeature(FeatureType(item["type"]), tuple(item["shape"])) for name, item in part.items()
            }
            setattr(self, key, features)

    def validate_features(self) -> None:
        """Nothing of its own: the policy compares features with the embodiment when it is made."""

    @property
    def observation_delta_indices(self) -> list | None:
        return None

    @property
    def action_delta_indices(self) -> list:
        return list(range(self.settings().chunk_size))

    @property
    def reward_delta_indices(self) -> list | None:
        return None

    def get_optimizer_preset(self) -> OptimizerConfig:
        return AdamWConfig(
            lr=self.optimizer_lr,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> LRSchedulerConfig | None:
        return CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=self.scheduler_warmup_steps)


def with_fields_of(settings: type[PolicyConfig]) -> Callable[[type[NetworkConfig]], type[NetworkConfig]]:
    """A class decorator: the dataclass with the fields of a type's config beside LeRobot's."""

    def decorate(adapter: type[NetworkConfig]) -> type[NetworkConfig]:
        for item in dataclasses.fields(settings):
            adapter.__annotations__[item.name] = item.type
            copied = (
                {"default": item.default}
                if item.default_factory is dataclasses.MISSING
                else {"default_factory": item.default_factory}
            )
            setattr(adapter, item.name, field(**copied))
        adapter.settings_class = settings
        return dataclass(adapter)

    return decorate
