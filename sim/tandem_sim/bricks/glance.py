"""The quick look before :mod:`.near`: whether no pair of free bricks can lock within the next substeps.

For a handful of bricks, plain numbers are several times faster than arrays. The margins are those of :mod:`.near`.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from tandem_sim.bricks.near import ALIGNED, SLACK_ACCELERATION
from tandem_sim.bricks.parameters import SnapParameters
from tandem_sim.bricks.shapes import Brick

MOST_PAIRS = 40  # above this many, arrays are faster


class Glance:
    """Looks at the bricks of one model.

    Args:
        model: the model.
        bricks: all of it.
        pairs: (pairs, 2) that can lock, by their places in ``bricks``.
        parameters: for the height at which a pair locks.
    """

    def __init__(
        self, model: mujoco.MjModel, bricks: Sequence[Brick], pairs: np.ndarray, parameters: SnapParameters
    ) -> None:
        pitch = bricks[0].pitch if bricks else 0.0
        half = [(b.size.nx * pitch / 2, b.size.ny * pitch / 2, b.size.height * pitch / 2) for b in bricks]
        radius = [math.hypot(x, y) for x, y, _ in half]
        self._timestep = model.opt.timestep
        self._vertical = parameters.vertical * pitch
        self._pairs = [(a, b, half[a][2] + half[b][2], radius[a] + radius[b]) for a, b in pairs.tolist()]
        free = [brick for brick in bricks if not brick.fixed]
        order = free + [brick for brick in bricks if brick.fixed]
        rows = {brick.name: row for row, brick in enumerate(order)}
        self._rows = [rows[brick.name] for brick in bricks]
        self._qpos = np.array([brick.qpos + np.arange(7) for brick in free], int).reshape(-1, 7)
        self._dofs = np.array([brick.dof + np.arange(3) for brick in free], int).reshape(-1, 3)
        bodies = [brick.body for brick in order[len(free) :]]
        self._fixed = [[*model.body_pos[body].tolist(), *model.body_quat[body].tolist()] for body in bodies]
        self._at_rest = [[0.0, 0.0, 0.0] for _ in bodies]
        self._fits = len(self._pairs) <= MOST_PAIRS and not model.body_parentid[bodies].any()

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
        axes = [_axis(pose) for pose in poses]
        time = substeps * self._timestep
        slack = 0.5 * SLACK_ACCELERATION * time * time
        rows, vertical = self._rows, self._vertical
        for first, second, seat, across in self._pairs:
            a, b = rows[first], rows[second]
            pose, other = poses[a], poses[b]
            x, y, z = other[0] - pose[0], other[1] - pose[1], other[2] - pose[2]
            distance = x * x + y * y + z * z
            va, vb = speeds[a], speeds[b]
            vx, vy, vz = vb[0] - va[0], vb[1] - va[1], vb[2] - va[2]
            margin = math.sqrt(vx * vx + vy * vy + vz * vz) * time + slack
            near, reach = vertical + margin, across + margin
            if distance >= seat * seat + reach * reach + 2 * seat * near + near * near:
                continue
            up, down = axes[a], axes[b]
            if up[0] * down[0] + up[1] * down[1] + up[2] * down[2] <= ALIGNED:
                continue
            over = up[0] * x + up[1] * y + up[2] * z
            under = -(down[0] * x + down[1] * y + down[2] * z)
            if abs(over - seat) < near or abs(under - seat) < near:
                return False
        return True


def _axis(pose: Sequence[float]) -> tuple[float, float, float]:
    """The stud axis of a pose (x, y, z, quaternion w, x, y, z)."""
    w, x, y, z = pose[3:7]
    return (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
