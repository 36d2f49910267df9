"""The checks of ``tandem doctor`` that need no ROS; those of the middleware live beside the nodes."""
