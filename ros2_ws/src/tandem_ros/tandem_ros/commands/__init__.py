"""The subcommands of ``tandem`` that need ROS; each imports what is heavy only when it runs."""
