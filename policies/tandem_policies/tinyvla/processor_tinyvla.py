"""TinyVLA's processors as LeRobot finds them."""

from tandem_policies.adapters.processors import make_pre_post_processors as make_tinyvla_pre_post_processors

__all__ = ["make_tinyvla_pre_post_processors"]
