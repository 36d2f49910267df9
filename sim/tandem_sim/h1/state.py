"""What the robot feels: joint positions and speeds, TCP poses, the grips' width and force."""

import mujoco
import numpy as np

from tandem_datasets.embodiment import StateScalar, StateSource
from tandem_sim.h1 import robot as h1
from tandem_sim.h1 import wrist

_POSE = (("x", "m"), ("y", "m"), ("z", "m"), ("qw", "1"), ("qx", "1"), ("qy", "1"), ("qz", "1"))
_REACH = 2.0  # m, bounds of a TCP's position in the world frame


def scalars() -> tuple[StateScalar, ...]:
    """The contract of the state: 15 positions, 15 speeds, two poses of 7, two grips of width and force."""
    low, high, speed = (bound[list(h1.HINGE_ACTIONS)] for bound in (h1.limits.low, h1.limits.high, h1.limits.speed))
    found = [
        StateScalar(name, "rad", float(a) - 0.1, float(b) + 0.1, StateSource.JOINT_POSITION)
        for name, a, b in zip(h1.JOINTS, low, high, strict=True)
    ]
    found += [
        StateScalar(name, "rad/s", -2 * float(most), 2 * float(most), StateSource.JOINT_VELOCITY)
        for name, most in zip(h1.JOINTS, speed, strict=True)
    ]
    for arm in h1.ARMS:
        for part, unit in _POSE:
            most = _REACH if unit == "m" else 1.0
            found.append(StateScalar(f"{arm}_tcp/{part}", unit, -most, most, StateSource.POSE, "world"))
    for arm in h1.ARMS:
        found.append(StateScalar(f"{arm}_gripper/width", "m", -0.005, wrist.MAX_WIDTH + 0.005, StateSource.GRIP))
        force = wrist.GRIP_FORCE
        found.append(StateScalar(f"{arm}_gripper/force", "N", -force, force, StateSource.GRIP))
    return tuple(found)


class StateReader:
    """Reads the state from a scene's data.

    The width is that between the pads; the force is what the drive presses each finger inwards with (positive), as a
    motor's current tells it. A quaternion has the sign for which qx + qy is not negative: for a gripper that points
    down it then turns over only half a turn away from where it opens to the side.

    Args:
        model: a scene with the robot.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        hinges = [model.joint(name) for name in h1.JOINTS]
        self._qpos = np.array([hinge.qposadr[0] for hinge in hinges])
        self._qvel = np.array([hinge.dofadr[0] for hinge in hinges])
        self._sites = np.array([model.site(f"{arm}_tcp").id for arm in h1.ARMS])
        self._fingers = [np.array([model.joint(f"{arm}_finger_{side}").qposadr[0] for arm in h1.ARMS]) for side in "ab"]
        self._grips = np.array([model.actuator_outadr[model.actuator(f"{arm}_grip").id] for arm in h1.ARMS])
        self._low = np.array([scalar.low for scalar in scalars()])
        self._high = np.array([scalar.high for scalar in scalars()])

    def read(self, data: mujoco.MjData) -> np.ndarray:
        """(48,) float32 within the limits of :func:`scalars`.

        After a step, MuJoCo's poses are those of the last but one state: ``mj_kinematics`` brings them up to date.
        """
        values = np.empty(len(self._low))
        values[:15] = data.qpos[self._qpos]
        values[15:30] = data.qvel[self._qvel]
        places, turns = data.site_xpos[self._sites], data.site_xmat[self._sites]
        for arm, begin in enumerate((30, 37)):
            values[begin : begin + 3] = places[arm]
            quat = values[begin + 3 : begin + 7]
            mujoco.mju_mat2Quat(quat, turns[arm])
            if quat[1] + quat[2] < 0:
                quat *= -1.0
        first, second = self._fingers
        values[44::2] = data.qpos[first] + data.qpos[second]
        values[45::2] = -data.actuator_force[self._grips]
        np.maximum(values, self._low, out=values)
        return np.minimum(values, self._high, out=values).astype(np.float32)
