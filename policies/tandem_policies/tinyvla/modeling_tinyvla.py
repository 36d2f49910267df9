"""TinyVLA as LeRobot finds it."""

from tandem_policies.adapters.modeling import NetworkPolicy
from tandem_policies.tinyvla.configuration_tinyvla import TinyVLAConfig


class TinyVLAPolicy(NetworkPolicy):
    """:class:`tandem_policies.tinyvla.network.TinyVLA` behind LeRobot's interface."""

    config_class = TinyVLAConfig
    name = "tinyvla"
