"""The configuration of a LeRobot policy in Tandem: which one, its chunk, and fields of LeRobot's own config class."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from tandem_policies.lerobot.embedding import MOST
from tandem_policies.settings import PolicyConfig, setting


@dataclass(frozen=True)
class LerobotConfig(PolicyConfig):
    """See :class:`PolicyConfig` for errors; ``options`` are compared with LeRobot's class when a network is built."""

    policy: str = ""  # LeRobot's name of the type: act, diffusion, smolvla ...
    chunk_size: int = setting(4, 1, 1024)  # LeRobot's chunk_size; of a horizon, what begins at the newest observation
    n_action_steps: int = setting(1, 1, 1024)
    embedding_size: int = setting(64, 0, MOST)  # of the instruction, for policies without language; 0: none
    image_scale: int = setting(1, 1, 16)  # a side of the square that each pixel becomes, for coarse backbones
    options: dict = dataclasses.field(default_factory=dict)  # fields of LeRobot's config class: {name: value}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", self.policy):
            self.refuse("policy", self.policy, "a type of LeRobot's, such as act or diffusion")
        if self.embedding_size % 8:
            self.refuse("embedding_size", self.embedding_size, "a multiple of 8")
        for name in self.options:
            if not isinstance(name, str):
                self.refuse("options", name, "names of fields")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


Config = LerobotConfig
