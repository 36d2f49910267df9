"""TinyVLA's config as LeRobot finds it."""

from lerobot.configs import PreTrainedConfig

from tandem_policies.adapters.configuration import NetworkConfig, with_fields_of
from tandem_policies.tinyvla.config import Config


@PreTrainedConfig.register_subclass("tinyvla")
@with_fields_of(Config)
class TinyVLAConfig(NetworkConfig):
    """``--policy.type=tinyvla``; the fields are those of :class:`tandem_policies.tinyvla.config.TinyVLAConfig`."""
