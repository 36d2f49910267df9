"""A Unitree H1 upper body with the Tandem wrist and gripper on each arm: robot, control, tasks and experts.

Leans on ``tandem_datasets``, ``tandem_sim.bricks``, MuJoCo and mink; knows neither torch nor ROS. World frame: z up, x
forward from the robot, y to its left, origin on the floor under the pelvis. SI units, radians.
"""
