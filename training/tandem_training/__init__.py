"""The training engine, its stages, evaluation, reports and the ``tandem`` command.

Leans on tandem_policies, tandem_sim and tandem_datasets; never imports tandem_ros, which it meets by entry points.
"""
