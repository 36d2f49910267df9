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


@dataclass(frozen=True)
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
    anchor: tuple[float, float, float]
    """The middle of the rectangle in the second body's frame, m."""


class Loads:
    """Loads of a set of connections; made anew when the set changes."""

    def __init__(self, model: mujoco.MjModel, fits: Sequence[Fit]) -> None:
        self._model, self.fits = model, tuple(fits)
        self._welds = np.array([fit.weld for fit in fits], int)
        self._lower = np.array([fit.lower_body for fit in fits], int)
        self._sign = np.array([1.0 if fit.upper_is_second else -1.0 for fit in fits])
        self._strength = np.array([fit.strength for fit in fits])
        # |M| of the rows is 0.5 * torquescale * force, and 2 |M| / side is what counts
        self._levers = np.array([[1 / fit.sides[1], 1 / fit.sides[0]] for fit in fits]).reshape(-1, 2)
        self._rows = np.zeros((len(fits), 6), int)
        self._at: np.ndarray = np.full(len(fits), -1)

    def ratios(self, data: mujoco.MjData) -> np.ndarray:
        """Load over strength of each connection after the last substep, (n,); below 0 where it is pressed together."""
        if self._at.size == 0:
            return np.zeros(0)
        if self._at[0] < 0 or self._at[-1] >= data.nefc or (data.efc_id[self._at] != self._welds).any():
            self._locate(data)
        force = data.efc_force[self._rows]
        axis = data.xmat[self._lower, 2::3]
        tension = np.einsum("ij,ij->i", force[:, :3], axis) * self._sign
        bending = (np.abs(force[:, 3:5]) * self._levers).max(1)
        ratios = (tension + bending) / self._strength
        for at in np.flatnonzero(ratios > 1):  # the face between may bear part of it
            ratios[at] = self._with_contacts(data, at, force[at], axis[at])
        return ratios

    def _locate(self, data: mujoco.MjData) -> None:
        equality = np.flatnonzero(data.efc_type == mujoco.mjtConstraint.mjCNSTR_EQUALITY)
        ids = data.efc_id[equality]
        for at, weld in enumerate(self._welds):
            rows = equality[ids == weld]
            assert rows.size == 6, "a held connection has its weld active"
            self._rows[at] = rows
        self._at = self._rows[:, 0].copy()

    def _with_contacts(self, data: mujoco.MjData, at: int, force: np.ndarray, axis: np.ndarray) -> float:
        """The exact ratio of one connection, with the contacts between its two boxes."""
        fit = self.fits[at]
        turn = data.xmat[fit.second_body].reshape(3, 3)
        centre = data.xpos[fit.second_body] + turn @ fit.anchor
        on_upper = -force[:3] if fit.upper_is_second else force[:3].copy()
        moment = -0.5 * (turn @ force[3:]) * (1 if fit.upper_is_second else -1)
        upper_geom = fit.geoms[1]
        wrench = np.zeros(6)
        for number in np.flatnonzero((np.sort(data.contact.geom, 1) == sorted(fit.geoms)).all(1)):
            contact = data.contact[number]
            mujoco.mj_contactForce(self._model, data, number, wrench)
            push = contact.frame.reshape(3, 3).T @ wrench[:3] * (1 if contact.geom[1] == upper_geom else -1)
            on_upper += push
            moment += np.cross(contact.pos - centre, push)
        local = turn.T @ moment
        bending = max(2 * abs(local[0]) / fit.sides[1], 2 * abs(local[1]) / fit.sides[0])
        return float((-on_upper @ axis + bending) / fit.strength)
