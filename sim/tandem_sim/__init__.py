"""Environments, robots, experts and in-process rollouts. Leans on tandem_datasets; knows neither torch nor ROS.

Importing it registers the environments with Gymnasium (which since 1.0 looks for no plugins of its own):
``import tandem_sim; gymnasium.make("tandem/BlockFind-v0")``, or in one go
``gymnasium.make("tandem_sim:tandem/BlockFind-v0")``.
"""

from tandem_sim.registry import register

register()
