"""ROS 2 nodes: simulation with its control gate, policy, recorder, episode manager.

Leans on tandem_policies, tandem_sim and tandem_datasets; never imports tandem_training.
"""
