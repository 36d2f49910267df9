"""Differential inverse kinematics of both arms at once, on a model of the robot alone.

mink (Zakka, 2025) gives the frame tasks, that is pose errors on SE(3) and their Jacobians. All limits here are bounds
of single joints, so the quadratic program is handed to mink's solver, DAQP (Arnström et al., 2022), with bounds instead
of the general inequalities that ``mink.solve_ik`` builds.
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
        self._tasks = [
            mink.FrameTask(f"{arm}_tcp", "site", POSITION_COST, ORIENTATION_COST, lm_damping=0.01) for arm in h1.ARMS
        ]
        data = self._configuration.data
        self._positions, self._rotations = data.site_xpos, data.site_xmat
        self._sites = [self._model.site(f"{arm}_tcp").id for arm in h1.ARMS]
        hinges = list(h1.HINGE_ACTIONS)
        self._step = h1.limits.speed[hinges] / rate_hz
        self._step[0] = 0.0
        self._low, self._high = self._model.jnt_range.T.copy()
        size = len(h1.JOINTS)
        self._regular = np.eye(size) * (DAMPING + POSTURE_COST**2)
        self._pull = POSTURE_COST**2 * POSTURE_GAIN
        self._posture = np.array(posture, float)
        self._no_rows, self._senses = np.zeros((0, size)), np.zeros(size, np.int32)
        self._rows, self._errors = np.zeros((12, size)), np.zeros(12)
        self._at = np.full(size, np.nan)  # the joints that the kinematics stand at

    def poses(self, joints: np.ndarray) -> np.ndarray:
        """Where the TCPs are for ``joints`` (15,) rad: (2, 7) of position (m, world) and quaternion (w, x, y, z)."""
        self._stand(joints)
        poses = np.empty((2, 7))
        for arm, site in enumerate(self._sites):
            poses[arm, :3] = self._positions[site]
            mujoco.mju_mat2Quat(poses[arm, 3:], self._rotations[site])
        return poses

    def solve(self, joints: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """One step from ``joints`` (15,) rad towards the poses ``left`` and ``right`` (7,) each.

        Always finite and within limits, also where a target is out of reach or the posture singular.

        Returns:
            (15,) rad, at most a step of the speed limits away.
        """
        self._stand(joints)
        damping = 0.0
        for task, pose, part in zip(self._tasks, (left, right), (slice(0, 6), slice(6, 12)), strict=True):
            task.transform_target_to_world = mink.SE3(wxyz_xyz=np.concatenate((pose[3:], pose[:3])))
            self._rows[part], self._errors[part], more = task.compute_qp_residual(self._configuration)
            damping += more
        hessian = self._rows.T @ self._rows
        hessian += self._regular
        hessian.flat[:: len(joints) + 1] += damping
        gradient = self._pull * (joints - self._posture)
        gradient -= self._errors @ self._rows
        lower = np.minimum(np.maximum(self._low - joints, -self._step), 0.0)
        upper = np.maximum(np.minimum(self._high - joints, self._step), 0.0)
        step, _, status, _ = daqp.solve(hessian, gradient, self._no_rows, upper, lower, self._senses)
        step[0] = 0.0  # exactly
        moved = np.minimum(np.maximum(joints + step, self._low), self._high)
        return moved if status == _SOLVED and np.isfinite(moved).all() else joints.copy()

    def _stand(self, joints: np.ndarray) -> None:
        if not (joints == self._at).all():
            self._configuration.update(joints)
            self._at[:] = joints


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
