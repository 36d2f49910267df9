"""Both arms under Cartesian command: what one control step should do, as an action of the world's mode.

A skill says each step where the grippers should go (:meth:`Arms.toward`) and how wide they should be
(:meth:`Arms.grip`); what it does not command holds. Motions are bounded in speed and acceleration, so that
demonstrations are smooth.
"""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_sim.h1 import robot as h1
from tandem_sim.h1.actions import ANGULAR_SPEED, LINEAR_SPEED
from tandem_sim.h1.delta import LEASH, DeltaActions, downward, yaw_of
from tandem_sim.h1.ik import ArmIK
from tandem_sim.h1.tasks.geometry import wrapped
from tandem_sim.h1.world import World, robot_alone

LEFT, RIGHT = 0, 1
BRAKING = 3.0  # m/s2 of an arm that is left to itself
TORSO_BACK = 0.5  # rad/s with which a torso that was turned turns back, in mode ``joint``


@dataclass(frozen=True)
class Pace:
    """How a motion goes."""

    speed: float = 0.36  # m/s
    acceleration: float = 1.6  # m/s2
    turning: float = 2.0  # rad/s
    turning_up: float = 9.0  # rad/s2


BRISK = Pace()
CALM = Pace(speed=0.12, acceleration=0.8, turning=1.0)


@dataclass(frozen=True)
class Goal:
    """Where a TCP should be; the gripper points down."""

    x: float  # m, world
    y: float
    z: float
    yaw: float  # rad, as of :func:`tandem_sim.h1.actions.downward`

    @property
    def place(self) -> np.ndarray:
        return np.array([self.x, self.y, self.z])

    def raised(self, by: float) -> "Goal":
        """The same, ``by`` m higher."""
        return Goal(self.x, self.y, self.z + by, self.yaw)


class Arms:
    """Makes the actions of one world.

    In mode ``ee_delta`` the TCPs' targets are the environment's own. In mode ``joint`` they are kept here, and the
    inverse kinematics that the environment uses for the other mode makes joint targets of them.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        settings = world.settings
        self.period = 1 / settings.rate_hz
        self._sites = world.scene.tcp_sites
        self._delta = world.actions if isinstance(world.actions, DeltaActions) else None
        self._ik: ArmIK | None = None
        if self._delta is None:
            hinges = list(h1.HINGE_ACTIONS)
            self._ik = ArmIK(robot_alone(settings.robot), settings.rate_hz, h1.HOME[hinges])
        self._low = np.array([scalar.low for scalar in world.actions.scalars], np.float32)
        self._high = np.array([scalar.high for scalar in world.actions.scalars], np.float32)
        self.reset()

    def reset(self) -> None:
        """Begins an episode."""
        self._poses = np.zeros((2, 7))
        self._speed, self._turning = np.zeros((2, 3)), np.zeros(2)
        self._known = False
        self.widths = self.world.actions.targets[list(h1.GRIPS)].copy()
        self.observe()

    # what is

    def observe(self) -> None:
        """Takes in where the targets are now; called at the begin of a step."""
        if self._delta is not None:
            self._poses = self._delta.poses
        else:
            assert self._ik is not None
            reached = self._ik.poses(self.world.actions.targets[list(h1.HINGE_ACTIONS)])
            for arm in (LEFT, RIGHT):
                if not self._known or not _near(self._poses[arm], reached[arm]):
                    self._poses[arm] = reached[arm]  # somebody else acted
            self._known = True
        self._move, self._turn = np.zeros((2, 3)), np.zeros(2)
        self._moved = [False, False]

    def target(self, arm: int) -> Goal:
        """Where a TCP is commanded to."""
        pose = self._poses[arm]
        x, y, z = pose[:3].tolist()
        return Goal(x, y, z, yaw_of(pose[3:]))

    def tcp(self, arm: int) -> Goal:
        """Where a TCP is."""
        data, site = self.world.data, self._sites[arm]
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, data.site_xmat[site])
        x, y, z = data.site_xpos[site].tolist()
        return Goal(x, y, z, yaw_of(quat))

    def width(self, arm: int) -> float:
        """Between the pads, m."""
        return float(self.world.data.sensor(f"state/{h1.ARMS[arm]}_grip/width").data[0])

    def force(self, arm: int) -> float:
        """What each finger presses inwards with, N."""
        return -float(self.world.data.sensor(f"state/{h1.ARMS[arm]}_grip/force").data[0])

    # what should be

    def toward(self, arm: int, goal: Goal, pace: Pace = BRISK, across: float = 1.0) -> None:
        """Commands this step of a motion of the target to ``goal``, speeding up and braking smoothly.

        The way across the table, the way up or down and the turn run beside each other, each at its own speed.

        Args:
            across: share of the speed across, 0 to 1.
        """
        dt, limit = self.period, 0.98 * LINEAR_SPEED
        away = goal.place - self._poses[arm][:3]
        speed = self._speed[arm]
        for part, share in ((slice(0, 2), across), (slice(2, 3), 0.8)):
            distance = float(np.sqrt(away[part] @ away[part]))
            most = min(pace.speed * share, _braking(distance, pace.acceleration, dt))
            wanted = away[part] * (most / distance) if distance > 1e-9 else np.zeros_like(away[part])
            change = wanted - speed[part]
            size, step = float(np.sqrt(change @ change)), pace.acceleration * dt
            if size > step and distance > step * dt:
                wanted = speed[part] + change * (step / size)
            speed[part] = np.clip(wanted, -limit, limit)
        self._move[arm] = speed * dt
        self._turn_to(arm, goal.yaw, pace)
        self._moved[arm] = True

    def grip(self, arm: int, width: float) -> None:
        """Commands a width, m; it stays until another one is commanded."""
        self.widths[arm] = min(max(width, 0.0), float(h1.limits.high[h1.GRIPS[arm]]))

    def action(self) -> np.ndarray:
        """The step's action, (A,) float32 within limits."""
        for arm in (LEFT, RIGHT):
            if not self._moved[arm]:
                self._stop(arm)
        action = self._deltas() if self._delta is not None else self._joints()
        return np.clip(action.astype(np.float32), self._low, self._high)

    def _stop(self, arm: int) -> None:
        """Brakes what nobody commands."""
        speed, step = self._speed[arm], BRAKING * self.period
        size = float(np.sqrt(speed @ speed))
        speed *= max(1 - step / size, 0.0) if size else 0.0
        self._turning[arm] = 0.0
        self._move[arm] = speed * self.period

    def _turn_to(self, arm: int, yaw: float, pace: Pace) -> None:
        dt = self.period
        away = wrapped(yaw) - yaw_of(self._poses[arm][3:])  # not the short way round, which leads through the stops
        speed = min(pace.turning, ANGULAR_SPEED * 0.98, _braking(abs(away), pace.turning_up, dt))
        wanted = math.copysign(speed, away)
        most = pace.turning_up * dt
        if speed * dt < abs(away):
            wanted = self._turning[arm] + min(max(wanted - self._turning[arm], -most), most)
        self._turning[arm] = wanted
        self._turn[arm] = wanted * dt

    def _deltas(self) -> np.ndarray:
        parts = []
        full = self.world.settings.rotation == "full"
        for arm in (LEFT, RIGHT):
            turn = self._rotation(arm) if full else self._turn[arm : arm + 1]
            parts += [self._move[arm], turn, self.widths[arm : arm + 1]]
        return np.concatenate(parts)

    def _rotation(self, arm: int) -> np.ndarray:
        """The rotation vector of this step: the turn, and a share of what the gripper is off pointing down."""
        if not self._moved[arm]:
            return np.zeros(3)
        pose = self._poses[arm][3:]
        wanted = downward(yaw_of(pose) + self._turn[arm])
        back, error, spin = np.empty(4), np.empty(4), np.empty(3)
        mujoco.mju_negQuat(back, pose)
        mujoco.mju_mulQuat(error, wanted, back)
        mujoco.mju_quat2Vel(spin, error, 1.0)
        return spin

    def _joints(self) -> np.ndarray:
        """Joint targets for the next step of both targets."""
        assert self._ik is not None
        for arm in (LEFT, RIGHT):
            self._poses[arm, :3] += self._move[arm]
            if self._moved[arm]:
                self._poses[arm, 3:] = downward(yaw_of(self._poses[arm, 3:]) + self._turn[arm])
        action = self.world.actions.targets
        hinges = list(h1.HINGE_ACTIONS)
        back = TORSO_BACK * self.period  # the inverse kinematics leaves the torso where it is
        action[0] += min(max(h1.HOME[0] - action[0], -back), back)
        action[hinges] = self._ik.solve(action[hinges], self._poses[LEFT], self._poses[RIGHT])
        action[list(h1.GRIPS)] = self.widths
        return action


def _braking(distance: float, acceleration: float, dt: float) -> float:
    """The speed from which it comes to rest within the distance, braking a little less hard than it may."""
    return min(math.sqrt(1.4 * acceleration * distance), distance / dt)


def _near(pose: np.ndarray, reached: np.ndarray) -> bool:
    ahead = pose[:3] - reached[:3]
    turned = 2 * math.acos(min(1.0, abs(float(pose[3:] @ reached[3:]))))
    return float(ahead @ ahead) < LEASH**2 and turned < 0.3
