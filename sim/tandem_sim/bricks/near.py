"""Which pairs of bricks could lock or let go within the next substeps, so that nothing else need be looked at.

A pair of free bricks can only lock where one lies above the other, closer than what both move meanwhile; what lies
still with nothing that moves near it stays as it is. All margins are on the safe side, so that skipping changes no bit.
"""

from collections.abc import Iterable, Sequence

import mujoco
import numpy as np

from tandem_sim.bricks.parameters import SnapParameters
from tandem_sim.bricks.shapes import Brick

SLACK_ACCELERATION = 60.0  # m/s2 that two bricks may gain on each other between two looks; an arm gives less than 30
_REACH = 0.05  # m that a hand may come nearer between two looks: 2.5 m/s for 20 ms
_STILL, _STILL_TURNING = 0.02, 0.5  # m/s, rad/s
ALIGNED = 0.9  # cosine between stud axes; the gates ask far more, the rest is room to turn


class Vicinity:
    """Looks at the bricks of one model; keeps nothing of its data but scratch."""

    def __init__(
        self, model: mujoco.MjModel, bricks: Sequence[Brick], pairs: np.ndarray, parameters: SnapParameters
    ) -> None:
        pitch = bricks[0].pitch if bricks else 0.0
        half = np.array([[brick.size.nx, brick.size.ny, brick.size.height] for brick in bricks]) * pitch / 2
        self._first, self._second = pairs[:, 0], pairs[:, 1]
        self._pairs = pairs
        self._seat = half[self._first, 2] + half[self._second, 2]
        self._across = np.hypot(half[:, 0], half[:, 1])[pairs].sum(1)
        self._vertical = parameters.vertical * pitch
        self._size = np.linalg.norm(half, axis=1)
        self._free = np.array([at for at, brick in enumerate(bricks) if not brick.fixed], int)
        self._fixed = np.array([at for at, brick in enumerate(bricks) if brick.fixed], int)
        self._fixed_bodies = np.array([bricks[at].body for at in self._fixed], int)
        self._qpos = np.array([bricks[at].qpos + np.arange(7) for at in self._free], int).reshape(-1, 7)
        self._dofs = np.array([bricks[at].dof + np.arange(6) for at in self._free], int).reshape(-1, 6)
        self._place = np.zeros((len(bricks), 3))
        self._axis = np.zeros((len(bricks), 3))
        self._speed = np.zeros((len(bricks), 6))
        self._others = _others(model, bricks)
        self._others_size = model.geom_rbound[self._others]
        self._model = model
        self.near: set[int] = set()
        """The free pairs of the last look of which one lies above the other."""

    def look(self, data: mujoco.MjData, substeps: int, joined: np.ndarray) -> np.ndarray:
        """The pairs that could lock or let go within ``substeps``.

        Args:
            joined: which pairs are connected, bool (pairs,).

        Returns:
            Their numbers, ascending.
        """
        self._read(data)
        apart = self._place[self._second] - self._place[self._first]
        distance = np.einsum("ij,ij->i", apart, apart)
        time = substeps * self._model.opt.timestep
        roughly = self._across + self._seat + (0.5 * SLACK_ACCELERATION * time + 4.0) * time
        candidates = np.flatnonzero((distance < roughly * roughly) & ~joined)
        if candidates.size:
            candidates = candidates[self._facing(candidates, apart[candidates], distance[candidates], time)]
        held = np.flatnonzero(joined)
        self.near = set(candidates.tolist())
        if not candidates.size and not held.size:
            return candidates
        return self._stirred(data, np.union1d(candidates, held))

    def _read(self, data: mujoco.MjData) -> None:
        poses = data.qpos[self._qpos]
        self._place[self._free] = poses[:, :3]
        w, x, y, z = poses[:, 3], poses[:, 4], poses[:, 5], poses[:, 6]
        self._axis[self._free] = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
        self._speed[self._free] = data.qvel[self._dofs]
        if self._fixed.size:
            self._place[self._fixed] = data.xpos[self._fixed_bodies]
            self._axis[self._fixed] = data.xmat[self._fixed_bodies, 2::3]

    def _facing(self, chosen: np.ndarray, apart: np.ndarray, distance: np.ndarray, time: float) -> np.ndarray:
        """Of the chosen pairs: those of which one lies above the other, near its seat."""
        first, second = self._first[chosen], self._second[chosen]
        up, down = self._axis[first], self._axis[second]
        closing = self._speed[second, :3] - self._speed[first, :3]
        margin = np.sqrt(np.einsum("ij,ij->i", closing, closing)) * time + 0.5 * SLACK_ACCELERATION * time * time
        seat, near = self._seat[chosen], self._vertical + margin
        over = np.einsum("ij,ij->i", up, apart)
        under = -np.einsum("ij,ij->i", down, apart)
        above = (np.abs(over - seat) < near) | (np.abs(under - seat) < near)
        reach = self._across[chosen] + margin
        beside = distance - seat * seat < reach * reach + 2 * seat * near + near * near
        return np.flatnonzero(above & beside & (np.einsum("ij,ij->i", up, down) > ALIGNED))

    def _stirred(self, data: mujoco.MjData, chosen: np.ndarray) -> np.ndarray:
        """Of the chosen pairs: those that move, that something else could touch, or that lean on such."""
        pairs = self._pairs[chosen]
        moving = (np.abs(self._speed[:, :3]).max(1) > _STILL) | (np.abs(self._speed[:, 3:]).max(1) > _STILL_TURNING)
        if self._others.size:
            among = np.unique(pairs)
            gaps = self._place[among][:, None] - data.geom_xpos[self._others][None]
            reach = self._size[among][:, None] + self._others_size[None] + _REACH
            moving[among] |= (np.einsum("ijk,ijk->ij", gaps, gaps) < reach * reach).any(1)
        moving[self._fixed] = False
        return chosen[_spread(moving, pairs, set(self._fixed.tolist()))]


def _spread(moving: np.ndarray, pairs: np.ndarray, fixed: set[int]) -> np.ndarray:
    """Which pairs hang together, by other pairs, with a brick that moves; through one that stands fast nothing goes."""
    stirred = set(np.flatnonzero(moving).tolist())
    listed: Iterable[tuple[int, int]] = [(int(a), int(b)) for a, b in pairs]
    grew = bool(stirred)
    while grew:
        grew = False
        for a, b in listed:
            if (a in stirred) != (b in stirred) and not {a, b} & fixed:
                stirred |= {a, b}
                grew = True
    return np.array([at for at, (a, b) in enumerate(listed) if a in stirred or b in stirred], int)


def _others(model: mujoco.MjModel, bricks: Sequence[Brick]) -> np.ndarray:
    """Collidable geoms that move and are no bricks: hands, arms, carriages."""
    mine = {brick.body for brick in bricks}
    return np.array(
        [
            geom
            for geom in range(model.ngeom)
            if (model.geom_contype[geom] or model.geom_conaffinity[geom])
            and int(model.geom_bodyid[geom]) not in mine
            and model.body_weldid[model.geom_bodyid[geom]] != 0
        ],
        int,
    )
