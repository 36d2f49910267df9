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


def add_sensors(spec: mujoco.MjSpec) -> None:
    """MuJoCo sensors that give the state in order, the first ones of the model."""
    kind, thing = mujoco.mjtSensor, mujoco.mjtObj
    sensed = [(kind.mjSENS_JOINTPOS, thing.mjOBJ_JOINT, name, "") for name in h1.JOINTS]
    sensed += [(kind.mjSENS_JOINTVEL, thing.mjOBJ_JOINT, name, "/speed") for name in h1.JOINTS]
    for arm in h1.ARMS:
        sensed.append((kind.mjSENS_FRAMEPOS, thing.mjOBJ_SITE, f"{arm}_tcp", "/place"))
        sensed.append((kind.mjSENS_FRAMEQUAT, thing.mjOBJ_SITE, f"{arm}_tcp", "/turn"))
    for arm in h1.ARMS:
        sensed.append((kind.mjSENS_TENDONPOS, thing.mjOBJ_TENDON, f"{arm}_grip", "/width"))
        sensed.append((kind.mjSENS_ACTUATORFRC, thing.mjOBJ_ACTUATOR, f"{arm}_grip", "/force"))
    for sense, what, name, suffix in sensed:
        spec.add_sensor(name=f"state/{name}{suffix}", type=sense, objtype=what, objname=name)


class StateReader:
    """Reads the state from a scene's data.

    The width is that between the pads; the force is what the drive presses each finger inwards with (positive), as a
    motor's current tells it. A quaternion has the sign for which qx + qy is not negative: for a gripper that points
    down it then turns over only half a turn away from where it opens to the side.

    Args:
        model: a scene with the robot and the sensors of :func:`add_sensors`.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        assert model.sensor(0).name == f"state/{h1.JOINTS[0]}"
        self._model = model
        self._low = np.array([scalar.low for scalar in scalars()])
        self._high = np.array([scalar.high for scalar in scalars()])
        self._sign = np.array([-1.0 if scalar.name.endswith("/force") else 1.0 for scalar in scalars()])
        self._first = slice(0, len(self._low))

    def refresh(self, data: mujoco.MjData) -> None:
        """After a step, brings what is observed up to date: MuJoCo's poses are those of the last but one state."""
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_tendon(self._model, data)
        mujoco.mj_sensorPos(self._model, data)
        mujoco.mj_sensorVel(self._model, data)

    def read(self, data: mujoco.MjData) -> np.ndarray:
        """(48,) float32 within the limits of :func:`scalars`, as of the last :meth:`refresh`."""
        return self.states(data.sensordata)

    @staticmethod
    def places(sensed: np.ndarray) -> np.ndarray:
        """Where the TCPs are, (..., 2, 3) m in float64, from sensor data (..., nsensordata)."""
        return sensed[..., 30:44].reshape(*sensed.shape[:-1], 2, 7)[..., :3]

    def states(self, sensed: np.ndarray) -> np.ndarray:
        """The same for many simulations at once: (..., 48) float32 from sensor data (..., nsensordata)."""
        values = sensed[..., self._first] * self._sign
        if values.ndim == 1:  # the same as below, sooner
            if values[34] + values[35] < 0:
                values[33:37] *= -1.0
            if values[41] + values[42] < 0:
                values[40:44] *= -1.0
        else:
            for begin in (33, 40):
                quat = values[..., begin : begin + 4]
                quat *= np.where(quat[..., 1] + quat[..., 2] < 0, -1.0, 1.0)[..., None]
        np.maximum(values, self._low, out=values)
        return np.minimum(values, self._high, out=values).astype(np.float32)
