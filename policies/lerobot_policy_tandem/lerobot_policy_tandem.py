"""Tells LeRobot of Tandem's policies (``--policy.type=tinyvla``) and of its processor steps, when it is imported."""

from tandem_policies.adapters import register

register()
