"""The nodes' processes, thin over the ROS-free modules beside this folder. Each runs as ``python -m``."""
