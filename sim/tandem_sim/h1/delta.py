"""The action mode ``ee_delta``: displacements of the TCPs' targets, and the inverse kinematics that follow them."""

import math

import mujoco
import numpy as np

from tandem_sim.h1 import robot as h1
from tandem_sim.h1.actions import ANGULAR_SPEED, LINEAR_SPEED, Actions, ControlSettings, Executed, downward, yaw_of
from tandem_sim.h1.ik import ArmIK

LEASH = 0.03  # m on each axis that a TCP's target may run ahead of what the arm can follow
LEASH_ANGLE = 0.3  # rad


class DeltaActions(Actions):
    """Displacements of both TCPs' targets.

    A target out of reach stops a leash ahead of where the arm can go; what is executed then is what of the displacement
    was added.

    Args:
        settings: how the robot is commanded.
        spec: the robot alone, for the inverse kinematics.
    """

    def __init__(self, settings: ControlSettings, spec: mujoco.MjSpec) -> None:
        super().__init__(settings)
        self._hinges, self._grips = np.array(h1.HINGE_ACTIONS), np.array(h1.GRIPS)
        self.ik = ArmIK(spec, settings.rate_hz, h1.HOME[self._hinges])
        self._size = len(self.scalars) // 2  # of an arm
        self._leash = max(LEASH, 2 * LINEAR_SPEED / settings.rate_hz)
        self._leash_cosine = math.cos(max(LEASH_ANGLE, 2 * ANGULAR_SPEED / settings.rate_hz) / 2)
        self._by, self._turned = np.empty(4), np.empty(4)
        self.reset(h1.HOME)

    @property
    def poses(self) -> np.ndarray:
        """The TCPs' targets, (2, 7) of position (m, world) and quaternion (w, x, y, z)."""
        return self._poses.copy()

    @property
    def targets(self) -> np.ndarray:
        return self._targets.copy()

    def reset(self, targets: np.ndarray) -> None:
        self.clamped = 0
        self._targets = np.array(targets, np.float64)
        self._poses = self.ik.poses(self._targets[self._hinges])
        if self.settings.rotation == "yaw":
            for pose in self._poses:
                pose[3:] = _pointing_down(pose[3:])

    def _hold(self) -> np.ndarray:
        action = np.zeros(len(self.scalars), np.float32)
        action[self._size - 1 :: self._size] = self._targets[self._grips]
        return action

    def _execute(self, action: np.ndarray) -> Executed:
        executed = action.copy()
        parts = executed.reshape(2, self._size)  # a view: what is cut there is told
        joints = self._targets[self._hinges]
        there = self.ik.poses(joints)
        self._move(there, parts[:, :3])
        for pose, reached, part in zip(self._poses, there, parts, strict=True):
            self._turn(pose, reached, part[3:-1])
        self._targets[self._grips] = parts[:, -1]
        self._targets[self._hinges] = self.ik.solve(joints, self._poses[0], self._poses[1])
        return Executed(executed, self._targets.copy())

    def _move(self, there: np.ndarray, deltas: np.ndarray) -> None:
        """Adds ``deltas`` (2, 3) to the targets, or what of them the leash lets through, which is written back."""
        ahead = self._poses[:, :3] - there[:, :3]
        low = np.minimum(-self._leash - ahead, 0.0).astype(np.float32)
        high = np.maximum(self._leash - ahead, 0.0).astype(np.float32)
        np.minimum(np.maximum(deltas, low), high, out=deltas)
        self._poses[:, :3] += deltas

    def _turn(self, pose: np.ndarray, reached: np.ndarray, delta: np.ndarray) -> None:
        """Turns the target by ``delta``, (1,) about the vertical or (3,); where the leash forbids it, writes back 0."""
        spin = delta.tolist() if len(delta) == 3 else [0.0, 0.0, float(delta[0])]
        angle = math.hypot(*spin)
        if angle == 0:
            return
        turned = self._turned
        mujoco.mju_axisAngle2Quat(self._by, np.array(spin) / angle, angle)
        mujoco.mju_mulQuat(turned, self._by, pose[3:])
        near = abs(float(turned @ reached[3:]))  # the cosine of half the angle between them
        if near < self._leash_cosine and near < abs(float(pose[3:] @ reached[3:])):
            delta[:] = 0.0
            return
        pose[3:] = turned / math.sqrt(turned @ turned)


def _pointing_down(quat: np.ndarray) -> np.ndarray:
    return downward(yaw_of(quat))
