"""Differential inverse kinematics of both arms at once, on a model of the robot alone.

Built on mink (Zakka, 2025): its configuration, and a task of its kind for both TCPs together, in the world's frame.
``mink.solve_ik`` would state the limits as general inequalities; as they all bound single joints, the same quadratic
program goes to mink's solver, DAQP (Arnström et al., 2022), with plain bounds. That and doing both arms in one task
take it from 110 us to 35 us a step.
"""

import daqp
import mink
import mujoco
import numpy as np

from tandem_sim.h1 import robot as h1

POSITION_COST = 1.0  # 1/m
ORIENTATION_COST = 0.25  # 1/rad: 4 degrees weigh as much as 17 mm
POSTURE_COST = 0.015  # 1/rad: what is left of freedom goes to the posture
POSTURE_GAIN = 0.05  # of the way to the posture in a step
DAMPING = 2e-4  # 1/rad2: bounds the motion near singular postures
_SOLVED = 1  # of DAQP


class TcpTask(mink.Task):
    """Both TCPs at their targets: 12 rows, of each arm 3 of position (m) and 3 of rotation (rad), along world axes.

    ``targets`` (2, 7), position and quaternion (w, x, y, z), are written in place. Everything that a step needs lies
    ready in arrays of the task, for one configuration: also ``places`` (2, 3), where the TCPs are.
    """

    def __init__(self, configuration: mink.Configuration) -> None:
        cost = np.tile([POSITION_COST] * 3 + [ORIENTATION_COST] * 3, 2)
        super().__init__(cost=cost)
        model, data = configuration.model, configuration.data
        self.targets, self.error = np.zeros((2, 7)), np.zeros(12)
        self._rows = np.zeros((12, model.nv))
        self._column, self._way = cost[:, None], -cost
        self._quat, self._turn = np.zeros(4), np.zeros(3)
        sites = [model.site(f"{name}_tcp").id for name in h1.ARMS]
        assert sites[1] == sites[0] + 1
        self.places, self._away = data.site_xpos[sites[0] : sites[1] + 1], self.error.reshape(2, 6)[:, :3]
        self._arms = []
        for arm, site in enumerate(sites):
            place, turn = slice(6 * arm, 6 * arm + 3), slice(6 * arm + 3, 6 * arm + 6)
            pose = (data.site_xmat[site], self.targets[arm, 3:], self.error[turn])
            self._arms.append((site, *pose, self._rows[place], self._rows[turn]))

    def compute_error(self, configuration: mink.Configuration) -> np.ndarray:
        """From the targets to where the TCPs are, (12,)."""
        np.subtract(self.places, self.targets[:, :3], out=self._away)
        for _, xmat, quat, turned, _, _ in self._arms:
            mujoco.mju_mat2Quat(self._quat, xmat)
            mujoco.mju_subQuat(self._turn, self._quat, quat)  # in the target's frame, from it to the TCP
            mujoco.mju_rotVecQuat(turned, self._turn, quat)
        return self.error

    def compute_jacobian(self, configuration: mink.Configuration) -> np.ndarray:
        """Of the TCPs, (12, nv)."""
        for site, *_, moved, turned in self._arms:
            mujoco.mj_jacSite(configuration.model, configuration.data, moved, turned, site)
        return self._rows

    def compute_qp_residual(self, configuration: mink.Configuration) -> tuple[np.ndarray, np.ndarray, float]:
        """Weighted rows, weighted way to go, no damping of its own."""
        rows = self.compute_jacobian(configuration)
        rows *= self._column
        return rows, self.compute_error(configuration) * self._way, 0.0


class ArmIK:
    """One differential step towards two TCP poses, within joint and speed limits; the torso keeps still.

    Args:
        spec: the robot alone, as :func:`tandem_sim.h1.robot.robot_spec` makes it; it is not changed.
        rate_hz: steps a second, which the speed limits are shared out over.
        posture: (15,) rad of ``robot.JOINTS``, what the arms tend to.
    """

    def __init__(self, spec: mujoco.MjSpec, rate_hz: float, posture: np.ndarray) -> None:
        self._model = _arms_only(spec)
        assert [self._model.joint(index).name for index in range(self._model.njnt)] == list(h1.JOINTS)
        self._configuration = mink.Configuration(self._model)
        self._task = TcpTask(self._configuration)
        self._step = h1.limits.speed[list(h1.HINGE_ACTIONS)] / rate_hz
        self._step[0] = 0.0
        self._back = -self._step
        self._low, self._high = self._model.jnt_range.T.copy()
        size = len(h1.JOINTS)
        self._regular = np.eye(size) * (DAMPING + POSTURE_COST**2)
        self._pull = POSTURE_COST**2 * POSTURE_GAIN
        self._posture = np.array(posture, float)
        self._no_rows, self._senses = np.zeros((0, size)), np.zeros(size, np.int32)
        self._at = b""  # the joints that the kinematics stand at

    def positions(self, joints: np.ndarray) -> np.ndarray:
        """Where the TCPs are for ``joints`` (15,) rad: (2, 3) m in the world; a view, good until the next call."""
        self._stand(joints)
        return self._task.places

    def poses(self, joints: np.ndarray) -> np.ndarray:
        """The same with quaternions (w, x, y, z): (2, 7)."""
        poses = np.empty((2, 7))
        poses[:, :3] = self.positions(joints)
        for pose, arm in zip(poses, h1.ARMS, strict=True):
            mujoco.mju_mat2Quat(pose[3:], self._configuration.data.site(f"{arm}_tcp").xmat)
        return poses

    def solve(self, joints: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """One step from ``joints`` (15,) rad towards the poses ``left`` and ``right`` (7,) each.

        Always finite and within limits, also where a target is out of reach or the posture singular.

        Returns:
            (15,) rad, at most a step of the speed limits away.
        """
        self._stand(joints)
        task = self._task
        task.targets[0], task.targets[1] = left, right
        rows, way, _ = task.compute_qp_residual(self._configuration)
        hessian = rows.T @ rows
        hessian += self._regular
        gradient = (joints - self._posture) * self._pull
        gradient -= way @ rows
        lower = np.maximum(self._low - joints, self._back)
        upper = np.minimum(self._high - joints, self._step)
        step, _, status, _ = daqp.solve(hessian, gradient, self._no_rows, upper, lower, self._senses)
        if status != _SOLVED:  # no step leads into the limits from where the joints are
            return np.minimum(np.maximum(joints, self._low), self._high)
        step[0] = 0.0  # exactly
        return joints + step

    def turns(self) -> np.ndarray:
        """The rotations (2, 3) rad, about world axes, that were left to the targets when the last step began."""
        return -self._task.error.reshape(2, 6)[:, 3:]

    def _stand(self, joints: np.ndarray) -> None:
        now = joints.tobytes()
        if now != self._at:
            self._configuration.update(joints)
            self._at = now


def _arms_only(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The compiled robot without fingers, drives and shapes: 15 hinges."""
    bare = spec.copy()
    for elements in (bare.actuators, bare.equalities, bare.tendons, bare.sensors, bare.geoms):
        for element in list(elements):
            bare.delete(element)
    for body in list(bare.bodies):
        if "_finger_" in body.name:
            bare.delete(body)
    return bare.compile()
