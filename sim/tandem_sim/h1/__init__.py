"""A Unitree H1's upper body with the Tandem wrist and gripper on each arm, which handles studded bricks on a table.

``settings`` says what can be chosen; ``robot`` and ``scene`` build the model; ``control``, ``ik`` and ``actions`` move
it; ``tasks`` say what is asked and judge it; ``env`` and ``vector`` are the Gymnasium environments on top. Leans on
``tandem_datasets``, ``tandem_sim.bricks``, MuJoCo and mink; knows neither torch nor ROS.

World frame: z up, x forward from the robot, y to its left, origin on the floor under the pelvis. SI units, radians.
"""

from tandem_sim.opengl import import_mujoco

import_mujoco()
