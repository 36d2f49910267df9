"""The action modes: what an action's numbers mean, and the joint targets that follow from them.

``joint``: 17 absolute targets. ``ee_delta``: per arm a displacement of the TCP's target in the world frame, a rotation
(``yaw`` about the vertical with the gripper pointing down, or ``full`` as a rotation vector) and the grip's width;
differential inverse kinematics makes joint targets of it. A missing action holds.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar
from tandem_datasets.errors import TandemError, unknown
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.control import substeps

MODES = ("joint", "ee_delta")
ROTATIONS = ("yaw", "full")
LINEAR_SPEED = 0.5  # m/s of a TCP's target, each axis
ANGULAR_SPEED = 2.5  # rad/s


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


class Executed(NamedTuple):
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

    @property
    @abstractmethod
    def targets(self) -> np.ndarray:
        """The joint targets of the last step, (17,) float64 rad or m, a copy."""

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
        # as a rule they are equal, which bytes tell sooner; NaN is bytewise equal to itself, but spoils a sum
        if limited.tobytes() != values.tobytes() or math.isnan(limited.dot(limited)):
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

    @property
    def targets(self) -> np.ndarray:
        return self._last.astype(np.float64)

    def reset(self, targets: np.ndarray) -> None:
        self.clamped = 0
        self._last = np.clip(targets, self._low, self._high).astype(np.float32)

    def _hold(self) -> np.ndarray:
        return self._last

    def _execute(self, action: np.ndarray) -> Executed:
        self._last = self.follow(self._last, action)
        return Executed(self._last, self._last.astype(np.float64))

    def limit(self, actions: np.ndarray) -> np.ndarray:
        """(..., 17) float32 actions within their limits."""
        return np.minimum(np.maximum(actions, self._low), self._high)

    def follow(self, last: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(..., 17) float32: as far towards ``actions`` as the joints' speeds let the ``last`` targets go."""
        return np.minimum(np.maximum(actions, last - self._step), last + self._step)


class ManyJointActions:
    """:class:`JointActions` of many robots at once, equal bit for bit; finite actions only."""

    def __init__(self, settings: ControlSettings, n: int) -> None:
        self._one = JointActions(settings)
        self.clamped: np.ndarray = np.zeros(n, np.int64)  # values out of range since each robot's reset
        self._last: np.ndarray = np.zeros((n, len(self._one.scalars)), np.float32)

    def reset(self, robot: int, targets: np.ndarray) -> None:
        """Begins an episode of one robot, whose joints stand at ``targets`` (17,) rad or m."""
        self._one.reset(targets)
        self._last[robot], self.clamped[robot] = self._one.targets, 0

    def step(self, robots: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """What robots (m,) execute of ``actions`` (m, 17) float32: (m, 17) float32, their targets at once."""
        limited = self._one.limit(actions)
        self.clamped[robots] += (limited != actions).sum(axis=1)
        executed = self._last[robots] = self._one.follow(self._last[robots], limited)
        return executed


def make_actions(settings: ControlSettings, spec: mujoco.MjSpec) -> Actions:
    """The action mode that ``settings`` asks for; ``spec`` is the robot alone, which ``ee_delta`` copies."""
    if settings.mode == "joint":
        return JointActions(settings)
    from tandem_sim.h1.delta import DeltaActions  # mink takes half a second that joint targets do without

    return DeltaActions(settings, spec)


def downward(yaw: float) -> np.ndarray:
    """The quaternion (w, x, y, z) of a TCP that points down, its fingers opening along y for ``yaw`` 0 rad."""
    cos, sin = np.cos(yaw / 2) * np.sqrt(0.5), np.sin(yaw / 2) * np.sqrt(0.5)
    return np.array([0.0, cos - sin, cos + sin, 0.0])


def yaw_of(quat: np.ndarray) -> float:
    """The yaw in rad of a TCP that points more or less down, from its quaternion (w, x, y, z)."""
    axis = np.empty(3)
    mujoco.mju_rotVecQuat(axis, np.array([1.0, 0.0, 0.0]), quat)
    return float(np.arctan2(-axis[0], axis[1]))
