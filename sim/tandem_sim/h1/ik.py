"""Differential inverse kinematics of both arms at once, on a model of the robot alone.

The quadratic program is mink's (Zakka, 2025): frame tasks for both TCPs, a posture task, limits of joints and speeds,
on its ``Configuration`` and with its solver, DAQP (Arnström et al., 2022). For speed it is put together here: all
limits are bounds of single joints, which DAQP takes as such instead of as the general inequalities of
``mink.solve_ik``, and pose errors are taken in the world's frame, not on SE(3), which a step of a few millimetres does
not tell apart: 30 us instead of 110 for both arms.
"""

import math

import daqp
import mink
import mujoco
import numpy as np

from tandem_sim.h1 import robot as h1

POSITION_COST = 1.0  # 1/m
ORIENTATION_COST = 0.25  # 1/rad: 4 degrees weigh as much as 17 mm
POSTURE_COST = 0.015  # 1/rad: what is left of freedom goes to the posture
POSTURE_GAIN = 0.05  # of the way to the posture in a step
LM_DAMPING = 0.01  # of the squared error: steps stay short where a target is out of reach
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
        self._weights = np.tile(np.repeat([POSITION_COST, ORIENTATION_COST], 3), 2)
        self._row_weights = self._weights[:, None].copy()
        self._quats = np.empty((2, 4))
        self._rows, self._errors = np.zeros((12, size)), np.zeros(12)
        self._at = b""  # the joints that the kinematics stand at

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
        for arm, pose in enumerate((left, right)):
            self._residual(arm, pose)
        self._rows *= self._row_weights
        self._errors *= self._weights
        damping = LM_DAMPING * float(self._errors @ self._errors)
        hessian = self._rows.T @ self._rows
        hessian += self._regular
        hessian.ravel()[:: len(joints) + 1] += damping
        gradient = self._pull * (joints - self._posture)
        gradient -= self._errors @ self._rows
        lower = np.minimum(np.maximum(self._low - joints, -self._step), 0.0)
        upper = np.maximum(np.minimum(self._high - joints, self._step), 0.0)
        step, _, status, _ = daqp.solve(hessian, gradient, self._no_rows, upper, lower, self._senses)
        step[0] = 0.0  # exactly
        moved = np.minimum(np.maximum(joints + step, self._low), self._high)
        return moved if status == _SOLVED and math.isfinite(moved @ moved) else joints.copy()

    def _residual(self, arm: int, pose: np.ndarray) -> None:
        """Writes a TCP's Jacobian and its way to ``pose`` (7,), place and turn, both in the world's frame."""
        site, at = self._sites[arm], 6 * arm
        mujoco.mj_jacSite(
            self._model, self._configuration.data, self._rows[at : at + 3], self._rows[at + 3 : at + 6], site
        )
        np.subtract(pose[:3], self._positions[site], out=self._errors[at : at + 3])
        now, between = self._quats
        mujoco.mju_mat2Quat(now, self._rotations[site])
        now[1:] *= -1.0
        mujoco.mju_mulQuat(between, pose[3:], now)
        mujoco.mju_quat2Vel(self._errors[at + 3 : at + 6], between, 1.0)

    def _stand(self, joints: np.ndarray) -> None:
        wanted = joints.tobytes()
        if wanted != self._at:
            self._configuration.update(joints)
            self._at = wanted


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
