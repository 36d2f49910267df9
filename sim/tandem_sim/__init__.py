"""Environments, robots, experts and in-process rollouts. Leans on tandem_datasets; knows neither torch nor ROS."""
