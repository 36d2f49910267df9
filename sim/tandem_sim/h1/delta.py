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
        self._leash_angle = max(LEASH_ANGLE, 2 * ANGULAR_SPEED / settings.rate_hz)
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
        self._joints = self._targets[self._hinges]
        self._poses = self.ik.poses(self._joints)
        if self.settings.rotation == "yaw":
            for pose in self._poses:
                pose[3:] = _pointing_down(pose[3:])
        self.ik.solve(self._joints, self._poses[0], self._poses[1])  # forgets the episode before

    def _hold(self) -> np.ndarray:
        action = np.zeros(len(self.scalars), np.float32)
        action[self._size - 1 :: self._size] = self._targets[self._grips]
        return action

    def _execute(self, action: np.ndarray) -> Executed:
        executed = action.copy()
        parts = executed.reshape(2, self._size)  # a view: what is cut there is told
        joints = self._joints
        self._move(self.ik.positions(joints), parts[:, :3])
        for arm, spin in enumerate(parts[:, 3:-1].tolist()):
            self._turn(arm, spin if len(spin) == 3 else [0.0, 0.0, *spin], parts[arm, 3:-1])
        self._targets[self._grips] = parts[:, -1]
        self._joints = self._targets[self._hinges] = self.ik.solve(joints, self._poses[0], self._poses[1])
        return Executed(executed, self._targets.copy())

    def _move(self, there: np.ndarray, deltas: np.ndarray) -> None:
        """Adds ``deltas`` (2, 3) to the targets, or what of them the leash lets through, which is written back."""
        places = self._poses[:, :3]
        wanted = places + deltas
        if max(map(abs, (wanted - there).ravel().tolist())) > self._leash:
            ahead = places - there
            low = np.minimum(-self._leash - ahead, 0.0).astype(np.float32)
            high = np.maximum(self._leash - ahead, 0.0).astype(np.float32)
            np.minimum(np.maximum(deltas, low), high, out=deltas)
            wanted = places + deltas
        self._poses[:, :3] = wanted

    def _turn(self, arm: int, spin: list[float], told: np.ndarray) -> None:
        """Turns a target by the rotation vector ``spin``; where the leash forbids it, writes 0 to ``told``."""
        angle = math.hypot(*spin)
        if angle == 0:
            return
        left = self.ik.turns()[arm].tolist()  # to go, as of the step before
        if math.hypot(*left) > self._leash_angle and math.sumprod(left, spin) > 0:
            told[:] = 0.0
            return
        scale = math.sin(angle / 2) / angle
        self._by[:] = math.cos(angle / 2), scale * spin[0], scale * spin[1], scale * spin[2]
        mujoco.mju_mulQuat(self._turned, self._by, self._poses[arm, 3:])
        self._poses[arm, 3:] = self._turned


def _pointing_down(quat: np.ndarray) -> np.ndarray:
    return downward(yaw_of(quat))
