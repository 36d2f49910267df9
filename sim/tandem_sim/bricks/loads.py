"""What connections bear, from the forces of their welds.

A stud holds up to ``pull`` along its axis; the face between two bricks only pushes. For such a fit the plastic limit is
exact and simple: the opening motions that the face allows are combinations of tilting about one of the four edges of
the engaged rectangle, so it holds as long as it holds against each of them, which for a tension T along the studs
and moments Mx, My about the rectangle's middle (sides a along x and b along y, n studs) reads

    T + 2 |My| / a <= n pull    and    T + 2 |Mx| / b <= n pull.

Sliding and turning about the stud axis break nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np


@dataclass(frozen=True, eq=False)
class Fit:
    """What the sum over one connection needs: its weld, which side is the lower one, and the engaged rectangle."""

    weld: int
    lower_body: int
    second_body: int
    upper_is_second: bool
    sides: tuple[float, float]
    """m along the second body's x and y."""
    strength: float
    """N: studs times pull."""
    geoms: tuple[int, int]
    """Of the lower and the upper brick."""
    anchor: np.ndarray
    """The middle of the rectangle in the second body's frame, m."""


class Loads:
    """Loads of a set of connections; made anew when the set changes.

    A weld has six rows in the solver: force on the first body along the world's axes, N, and twice the moment on it
    along the second body's axes, Nm (at a torque scale of 1).
    """

    def __init__(self, model: mujoco.MjModel, fits: Sequence[Fit]) -> None:
        self._model, self.fits = model, tuple(fits)
        self._rows = np.zeros((len(fits), 6), int)
        self._equalities = -1
        # per row: an upper bound of its part in the load over the strength
        most = [[1, 1, 1, 1 / fit.sides[1], 1 / fit.sides[0], 0] for fit in fits]
        self._most = np.array(most).reshape(-1, 6) / np.array([[fit.strength] for fit in fits]).reshape(-1, 1)

    def bound(self, data: mujoco.MjData) -> float:
        """No connection bears a larger part of its strength than this in the last substep."""
        if not self.fits:
            return 0.0
        if data.ne != self._equalities:
            self._locate(data)
        return float((np.abs(data.efc_force[self._rows]) * self._most).sum(1).max())

    def ratios(self, data: mujoco.MjData) -> list[float]:
        """Load over strength of each connection in the last substep; below 0 where it is pressed together."""
        if self.fits and data.ne != self._equalities:
            self._locate(data)
        found = []
        for fit, rows in zip(self.fits, self._rows, strict=True):
            x, y, z, mx, my, _ = data.efc_force[rows].tolist()
            axis = data.xmat[fit.lower_body, 2::3].tolist()
            tension = x * axis[0] + y * axis[1] + z * axis[2]
            bending = max(abs(mx) / fit.sides[1], abs(my) / fit.sides[0])
            ratio = ((tension if fit.upper_is_second else -tension) + bending) / fit.strength
            found.append(ratio if ratio <= 1 else self._with_contacts(data, fit, rows))  # the face may bear a part
        return found

    def _locate(self, data: mujoco.MjData) -> None:
        equality = np.flatnonzero(data.efc_type == mujoco.mjtConstraint.mjCNSTR_EQUALITY)
        ids = data.efc_id[equality]
        for at, fit in enumerate(self.fits):
            rows = equality[ids == fit.weld]
            assert rows.size == 6, "a held connection has its weld active"
            self._rows[at] = rows
        self._equalities = data.ne

    def _with_contacts(self, data: mujoco.MjData, fit: Fit, rows: np.ndarray) -> float:
        """The exact ratio of one connection, with the contacts between its two boxes."""
        force = data.efc_force[rows]
        turn = data.xmat[fit.second_body].reshape(3, 3)
        centre = data.xpos[fit.second_body] + turn @ fit.anchor
        side = -1 if fit.upper_is_second else 1  # the rows act on the first body
        on_upper = side * force[:3]
        moment = side * 0.5 * (turn @ force[3:])
        wrench = np.zeros(6)
        for number in np.flatnonzero((np.sort(data.contact.geom, 1) == sorted(fit.geoms)).all(1)):
            contact = data.contact[number]
            mujoco.mj_contactForce(self._model, data, number, wrench)
            push = contact.frame.reshape(3, 3).T @ wrench[:3] * (1 if contact.geom[1] == fit.geoms[1] else -1)
            on_upper += push
            moment += np.cross(contact.pos - centre, push)
        local = turn.T @ moment
        bending = max(2 * abs(local[0]) / fit.sides[1], 2 * abs(local[1]) / fit.sides[0])
        return float((-on_upper @ data.xmat[fit.lower_body, 2::3] + bending) / fit.strength)
