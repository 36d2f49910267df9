"""The action mode ``ee_delta``: displacements of the TCPs' targets, and the inverse kinematics that follow them."""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from tandem_sim.h1 import robot as h1
from tandem_sim.h1.actions import ANGULAR_SPEED, LINEAR_SPEED, Actions, ControlSettings, Executed, downward, yaw_of
from tandem_sim.h1.ik import ArmIK

Quaternion = tuple[float, float, float, float]

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
        for arm in (0, 1):
            self._turn(arm, there, parts)
        self._targets[self._grips] = parts[:, -1]
        self._targets[self._hinges] = self.ik.solve(joints, self._poses[0], self._poses[1])
        return Executed(executed, self._targets.copy())

    def _move(self, there: np.ndarray, deltas: np.ndarray) -> None:
        """Adds ``deltas`` (2, 3) to the targets, or what of them the leash lets through, which is written back."""
        targets = self._poses[:, :3]
        ahead = targets - there[:, :3]
        if max(map(abs, (ahead + deltas).ravel().tolist())) > self._leash:
            low = np.minimum(-self._leash - ahead, 0.0).astype(np.float32)
            high = np.maximum(self._leash - ahead, 0.0).astype(np.float32)
            np.minimum(np.maximum(deltas, low), high, out=deltas)
        targets += deltas

    def _turn(self, arm: int, there: np.ndarray, parts: np.ndarray) -> None:
        """Turns a target by its part's (1,) about the vertical or (3,); where the leash forbids it, writes back 0."""
        spin = parts[arm, 3:-1].tolist()
        x, y, z = spin if len(spin) == 3 else (0.0, 0.0, spin[0])
        angle = math.sqrt(x * x + y * y + z * z)
        if angle == 0:
            return
        turned = _times(_about(x, y, z, angle), self._poses[arm, 3:].tolist())
        reached = there[arm, 3:].tolist()
        near = abs(_dot(turned, reached))  # the cosine of half the angle between them
        if near < self._leash_cosine and near < abs(_dot(self._poses[arm, 3:].tolist(), reached)):
            parts[arm, 3:-1] = 0.0
            return
        size = math.sqrt(_dot(turned, turned))
        self._poses[arm, 3:] = [part / size for part in turned]


def _about(x: float, y: float, z: float, angle: float) -> Quaternion:
    """The turn by ``angle`` about an axis as long as that."""
    sin = math.sin(angle / 2) / angle
    return (math.cos(angle / 2), x * sin, y * sin, z * sin)


def _times(a: Sequence[float], b: Sequence[float]) -> Quaternion:
    """The turn by ``b``, then by ``a``; quaternions (w, x, y, z)."""
    w, x, y, z = a
    i, j, k, m = b
    return (
        w * i - x * j - y * k - z * m,
        w * j + x * i + y * m - z * k,
        w * k - x * m + y * i + z * j,
        w * m + x * k - y * j + z * i,
    )


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


def _pointing_down(quat: np.ndarray) -> np.ndarray:
    return downward(yaw_of(quat))
