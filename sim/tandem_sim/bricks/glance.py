"""Whether surely nothing locks within the next substeps: for whoever steps bricks without looking at their contacts.

A pair can only lock where one lies above the other, closer than what both move meanwhile. For a handful of bricks,
plain numbers are several times faster than arrays.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from tandem_sim.bricks.parameters import SnapParameters
from tandem_sim.bricks.poses import matrix
from tandem_sim.bricks.shapes import Brick

_SLACK_ACCELERATION = 60.0  # m/s2 that two bricks may gain on each other meanwhile; an arm gives less than 30
_ALIGNED = 0.9  # cosine between stud axes; the gates ask far more, the rest is room to turn
_MOST_PAIRS = 40  # more take longer than looking at the contacts


class Glance:
    """Looks at the bricks of one model.

    Args:
        model: the model.
        bricks: all of it.
        pairs: that can lock, by their places in ``bricks``.
        parameters: for the height at which a pair locks.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        bricks: Sequence[Brick],
        pairs: Sequence[tuple[int, int]],
        parameters: SnapParameters,
    ) -> None:
        pitch = bricks[0].pitch if bricks else 0.0
        self._half = [(b.size.nx * pitch / 2, b.size.ny * pitch / 2, b.size.height * pitch / 2) for b in bricks]
        self._radius = [math.hypot(x, y) for x, y, _ in self._half]
        self._timestep = model.opt.timestep
        self._vertical = parameters.vertical * pitch
        half, radius = self._half, self._radius
        self._pairs = [(a, b, half[a][2] + half[b][2], radius[a] + radius[b]) for a, b in pairs]
        free = [brick for brick in bricks if not brick.fixed]
        order = free + [brick for brick in bricks if brick.fixed]
        rows = {brick.name: row for row, brick in enumerate(order)}
        self._rows = [rows[brick.name] for brick in bricks]
        self._qpos = np.array([brick.qpos + np.arange(7) for brick in free], int).reshape(-1, 7)
        self._dofs = np.array([brick.dof + np.arange(3) for brick in free], int).reshape(-1, 3)
        bodies = [brick.body for brick in order[len(free) :]]
        self._fixed = [[*model.body_pos[body].tolist(), *model.body_quat[body].tolist()] for body in bodies]
        self._at_rest = [[0.0, 0.0, 0.0] for _ in bodies]
        self._first = np.array([self._rows[first] for first, *_ in self._pairs], int)
        self._second = np.array([self._rows[second] for _, second, *_ in self._pairs], int)
        self._seat, self._across = np.array([part[2:] for part in self._pairs]).reshape(-1, 2).T.copy()
        self._fits = len(self._pairs) <= _MOST_PAIRS and not model.body_parentid[bodies].any()

    def clear(self, qpos: np.ndarray, qvel: np.ndarray, substeps: int) -> bool:
        """Whether surely nothing locks; False only says that it has to be looked at.

        Args:
            qpos: positions of the whole model, (nq,).
            qvel: velocities of the whole model, (nv,).
            substeps: how far ahead.
        """
        if not self._fits:
            return False
        poses = qpos[self._qpos].tolist() + self._fixed
        speeds = qvel[self._dofs].tolist() + self._at_rest
        time = substeps * self._timestep
        slack = 0.5 * _SLACK_ACCELERATION * time * time
        rows, vertical = self._rows, self._vertical
        for first, second, seat, across in self._pairs:
            a, b = rows[first], rows[second]
            pose, other = poses[a], poses[b]
            x, y, z = other[0] - pose[0], other[1] - pose[1], other[2] - pose[2]
            va, vb = speeds[a], speeds[b]
            vx, vy, vz = vb[0] - va[0], vb[1] - va[1], vb[2] - va[2]
            margin = math.sqrt(vx * vx + vy * vy + vz * vz) * time + slack
            near, reach = vertical + margin, across + margin
            if x * x + y * y + z * z >= seat * seat + reach * reach + 2 * seat * near + near * near:
                continue
            if self._above(pose, other, (x, y, z), first, second, margin):
                return False
            if self._above(other, pose, (-x, -y, -z), second, first, margin):
                return False
        return True

    def far(self, qpos: np.ndarray, qvel: np.ndarray, substeps: int) -> np.ndarray:
        """Of many scenes at once: in which no two bricks are near enough, however they lie, bool (n,).

        Args:
            qpos: positions, (n, nq).
            qvel: velocities, (n, nv).
            substeps: how far ahead.
        """
        if not self._fits:
            return np.zeros(len(qpos), np.bool_)
        places, speeds = qpos[:, self._qpos[:, :3]], qvel[:, self._dofs]
        if self._fixed:
            fixed = np.broadcast_to(np.array(self._fixed)[:, :3], (len(qpos), len(self._fixed), 3))
            places = np.concatenate([places, fixed], axis=1)
            speeds = np.concatenate([speeds, np.zeros(fixed.shape)], axis=1)
        apart = places[:, self._second] - places[:, self._first]
        closing = speeds[:, self._second] - speeds[:, self._first]
        time = substeps * self._timestep
        margin = np.sqrt((closing * closing).sum(-1)) * time + 0.5 * _SLACK_ACCELERATION * time * time
        near, reach, seat = self._vertical + margin, self._across + margin, self._seat
        # a little more than `clear` asks for: sums of arrays round otherwise
        most = (seat * seat + reach * reach + 2 * seat * near + near * near) * (1 + 1e-9)
        return ((apart * apart).sum(-1) >= most).all(axis=1)

    def _above(
        self, low: Sequence[float], high: Sequence[float], apart: Sequence[float], lower: int, upper: int, margin: float
    ) -> bool:
        """Whether one brick could lie on the other, from their poses (x, y, z, quaternion) and ``apart``, all world."""
        axes, up = matrix(low[3:7]), matrix(high[3:7])[:, 2]
        if float(axes[:, 2] @ up) <= _ALIGNED:
            return False
        x, y, z = (apart @ axes).tolist()
        half, radius = self._half[lower], self._radius[upper]
        if abs(x) > half[0] + radius + margin or abs(y) > half[1] + radius + margin:
            return False
        return abs(z - half[2] - self._half[upper][2]) < self._vertical + margin
