"""The action modes: what an action's numbers mean, and the joint targets that follow from them.

``joint``: 17 absolute targets. ``ee_delta``: per arm a displacement of the TCP's target in the world frame, a rotation
(``yaw`` about the vertical with the gripper pointing down, or ``full`` as a rotation vector) and the grip's width;
differential inverse kinematics makes joint targets of it. A missing action holds.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar
from tandem_datasets.errors import TandemError, unknown
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.control import substeps
from tandem_sim.h1.ik import ArmIK

MODES = ("joint", "ee_delta")
ROTATIONS = ("yaw", "full")
LINEAR_SPEED = 0.5  # m/s of a TCP's target, each axis
ANGULAR_SPEED = 2.5  # rad/s
LEASH = 0.03  # m that a TCP's target may run ahead of what the arm can follow
LEASH_ANGLE = 0.3  # rad
_ROUNDING = 1 + 1e-5  # an executed action, rounded to float32, is executed again unchanged


@dataclass(frozen=True)
class ControlSettings:
    """How the robot is commanded.

    Raises:
        TandemError: a setting outside of what is allowed.
    """

    mode: str = "joint"  # one of MODES
    rotation: str = "yaw"  # one of ROTATIONS, of ee_delta
    rate_hz: int = 50  # one of control.RATES_HZ
    strict: bool = False  # values out of range are refused instead of clamped

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("H1: action mode", str(self.mode), MODES)
        if self.rotation not in ROTATIONS:
            raise unknown("H1: rotation", str(self.rotation), ROTATIONS)
        substeps(self.rate_hz)


@dataclass(frozen=True)
class Executed:
    """What a control step does."""

    action: np.ndarray  # (A,) float32 that was really executed; executed again it does the same
    targets: np.ndarray  # (17,) float64, for Servo.command


def scalars(settings: ControlSettings) -> tuple[ActionScalar, ...]:
    """The contract of an action's numbers."""
    if settings.mode == "joint":
        return tuple(_target(index) for index in range(len(h1.ACTIONS)))
    parts = [("dx", "m"), ("dy", "m"), ("dz", "m")]
    parts += [("dyaw", "rad")] if settings.rotation == "yaw" else [("rx", "rad"), ("ry", "rad"), ("rz", "rad")]
    found = []
    for arm, grip in zip(h1.ARMS, h1.GRIPS, strict=True):
        for part, unit in parts:
            most = (LINEAR_SPEED if unit == "m" else ANGULAR_SPEED) / settings.rate_hz
            found.append(ActionScalar(f"{arm}_tcp/{part}", unit, -most, most, ActionKind.DELTA_STEP, frame="world"))
        found.append(_target(grip))
    return tuple(found)


def _target(index: int) -> ActionScalar:
    gripping = index in h1.GRIPS
    return ActionScalar(
        h1.ACTIONS[index],
        "m" if gripping else "rad",
        float(h1.limits.low[index]),
        float(h1.limits.high[index]),
        ActionKind.ABSOLUTE,
        rate_limit=None if gripping else float(h1.limits.speed[index]),  # the grip's drive has its own speed
    )


class Actions(ABC):
    """Turns actions into joint targets, one control step after the other."""

    def __init__(self, settings: ControlSettings) -> None:
        self.settings = settings
        self.scalars = scalars(settings)
        self.clamped = 0  # values out of range since the reset
        self._low = np.array([scalar.low for scalar in self.scalars], np.float32)
        self._high = np.array([scalar.high for scalar in self.scalars], np.float32)

    @abstractmethod
    def reset(self, targets: np.ndarray) -> None:
        """Begins an episode in which the joints stand at ``targets`` (17,) rad or m."""

    def step(self, action: np.ndarray | None) -> Executed:
        """One control step; None holds.

        Raises:
            TandemError: a wrong shape, a value that is not finite, in strict mode one out of range.
        """
        return self._execute(self._hold() if action is None else self._checked(action))

    @abstractmethod
    def _hold(self) -> np.ndarray: ...

    @abstractmethod
    def _execute(self, action: np.ndarray) -> Executed: ...

    def _checked(self, action: np.ndarray) -> np.ndarray:
        """``action`` as float32 within limits."""
        try:
            values = np.asarray(action, np.float32)
        except (TypeError, ValueError) as error:
            raise TandemError(f"H1 action: {type(action).__name__} (allowed: {len(self.scalars)} numbers)") from error
        if values.shape != self._low.shape:
            raise TandemError(f"H1 action: shape {values.shape} (allowed: {self._low.shape})")
        limited = np.minimum(np.maximum(values, self._low), self._high)
        if limited.tobytes() != values.tobytes():  # as a rule they are equal, which bytes tell sooner
            self._count(values, limited)
        return limited

    def _count(self, values: np.ndarray, limited: np.ndarray) -> None:
        if not np.isfinite(values).all():
            name = self.scalars[int(np.flatnonzero(~np.isfinite(values))[0])].name
            raise TandemError(f"H1 action: {name} is not finite (allowed: finite numbers)")
        outside = np.flatnonzero(limited != values)
        if self.settings.strict and len(outside):
            scalar, value = self.scalars[outside[0]], values[outside[0]]
            allowed = f"{scalar.low:g}..{scalar.high:g} {scalar.unit}"
            raise TandemError(f"H1 action: {scalar.name} is {value:g} (allowed: {allowed})")
        self.clamped += len(outside)


class JointActions(Actions):
    """17 absolute targets; a target moves no faster than its joint can."""

    def __init__(self, settings: ControlSettings) -> None:
        super().__init__(settings)
        step = np.array([scalar.rate_limit or np.inf for scalar in self.scalars]) / settings.rate_hz
        self._step = step.astype(np.float32)
        self._last = h1.HOME.astype(np.float32)

    def reset(self, targets: np.ndarray) -> None:
        self.clamped = 0
        self._last = np.clip(targets, self._low, self._high).astype(np.float32)

    def _hold(self) -> np.ndarray:
        return self._last

    def _execute(self, action: np.ndarray) -> Executed:
        self._last = np.minimum(np.maximum(action, self._last - self._step), self._last + self._step)
        return Executed(self._last, self._last.astype(np.float64))


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
        self._hinges = list(h1.HINGE_ACTIONS)
        self._ik = ArmIK(spec, settings.rate_hz, h1.HOME[self._hinges])
        self._size = len(self.scalars) // 2  # of an arm
        self._leash = max(LEASH, 2 * LINEAR_SPEED / settings.rate_hz)
        self._leash_angle = max(LEASH_ANGLE, 2 * ANGULAR_SPEED / settings.rate_hz)
        self.reset(h1.HOME)

    @property
    def poses(self) -> np.ndarray:
        """The TCPs' targets, (2, 7) of position (m, world) and quaternion (w, x, y, z)."""
        return self._poses.copy()

    def reset(self, targets: np.ndarray) -> None:
        self.clamped = 0
        self._targets = np.array(targets, np.float64)
        self._poses = self._ik.poses(self._targets[self._hinges])
        if self.settings.rotation == "yaw":
            for pose in self._poses:
                pose[3:] = _pointing_down(pose[3:])

    def _hold(self) -> np.ndarray:
        action = np.zeros(len(self.scalars), np.float32)
        action[self._size - 1 :: self._size] = self._targets[list(h1.GRIPS)]
        return action

    def _execute(self, action: np.ndarray) -> Executed:
        executed = action.copy()
        joints = self._targets[self._hinges]
        there = self._ik.poses(joints)
        for arm, (pose, reached) in enumerate(zip(self._poses, there, strict=True)):
            part = executed[arm * self._size : (arm + 1) * self._size]
            self._move(pose, reached, part[:3])
            self._turn(pose, reached, part[3:-1])
            self._targets[h1.GRIPS[arm]] = part[-1]
        self._targets[self._hinges] = self._ik.solve(joints, self._poses[0], self._poses[1])
        return Executed(executed, self._targets.copy())

    def _move(self, pose: np.ndarray, reached: np.ndarray, delta: np.ndarray) -> None:
        """Adds ``delta`` (3,) to the target, or what of it the leash lets through, which is written back."""
        ahead = pose[:3] + delta - reached[:3]
        distance = float(np.sqrt(ahead @ ahead))
        if distance > self._leash * _ROUNDING:
            delta[:] = reached[:3] + ahead * (self._leash / distance) - pose[:3]
        pose[:3] += delta

    def _turn(self, pose: np.ndarray, reached: np.ndarray, delta: np.ndarray) -> None:
        """Turns the target by ``delta``, (1,) about the vertical or (3,); where the leash forbids it, writes back 0."""
        if not delta.any():
            return
        spin = np.array([0.0, 0.0, delta[0]]) if len(delta) == 1 else delta.astype(np.float64)
        angle = float(np.sqrt(spin @ spin))
        turn, turned = np.empty(4), np.empty(4)
        mujoco.mju_axisAngle2Quat(turn, spin / angle, angle)
        mujoco.mju_mulQuat(turned, turn, pose[3:])
        if _angle(turned, reached[3:]) > max(self._leash_angle, _angle(pose[3:], reached[3:])):
            delta[:] = 0.0
            return
        pose[3:] = turned / np.sqrt(turned @ turned)


def make_actions(settings: ControlSettings, spec: mujoco.MjSpec) -> Actions:
    """The action mode that ``settings`` asks for; ``spec`` is the robot alone, which ``ee_delta`` copies."""
    return JointActions(settings) if settings.mode == "joint" else DeltaActions(settings, spec)


def downward(yaw: float) -> np.ndarray:
    """The quaternion (w, x, y, z) of a TCP that points down, its fingers opening along y for ``yaw`` 0 rad."""
    cos, sin = np.cos(yaw / 2) * np.sqrt(0.5), np.sin(yaw / 2) * np.sqrt(0.5)
    return np.array([0.0, cos - sin, cos + sin, 0.0])


def yaw_of(quat: np.ndarray) -> float:
    """The yaw in rad of a TCP that points more or less down, from its quaternion (w, x, y, z)."""
    axis = np.empty(3)
    mujoco.mju_rotVecQuat(axis, np.array([1.0, 0.0, 0.0]), quat)
    return float(np.arctan2(-axis[0], axis[1]))


def _pointing_down(quat: np.ndarray) -> np.ndarray:
    return downward(yaw_of(quat))


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two unit quaternions, rad."""
    return float(2 * np.arccos(min(1.0, abs(float(a @ b)))))
