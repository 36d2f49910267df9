"""Which free bricks press on each other along their studs, how hard, and whether in the right place."""

from collections.abc import Collection, Sequence

import mujoco
import numpy as np

from tandem_sim.bricks import grid
from tandem_sim.bricks.graph import Connection
from tandem_sim.bricks.parameters import SnapParameters
from tandem_sim.bricks.shapes import Brick

_FACING = 0.9  # cosine between a contact's normal and the stud axis; others are bumps of walls


class Pressing:
    """Reads contacts between the bricks of one model.

    Args:
        pairs: the pairs that can ever be joined, as places in ``bricks``, lower place first.
    """

    def __init__(
        self, model: mujoco.MjModel, bricks: Sequence[Brick], pairs: Sequence[tuple[int, int]], gates: SnapParameters
    ) -> None:
        self._model, self._bricks, self._pairs, self._gates = model, bricks, pairs, gates
        self._elliptic = model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
        self._wrench = np.zeros(6)
        self._numbers: dict[tuple[int, int], int] = {}
        for number, (a, b) in enumerate(pairs):
            first, second = bricks[a].geom, bricks[b].geom
            self._numbers[first, second] = self._numbers[second, first] = number

    def touching(self, data: mujoco.MjData) -> dict[int, list[int]]:
        """The contacts of each pair that touches, by the pair's number, ascending."""
        found: dict[int, list[int]] = {}
        geoms = list(map(tuple, data.contact.geom.tolist()))
        if self._numbers.keys().isdisjoint(geoms):
            return found
        for contact, both in enumerate(geoms):
            number = self._numbers.get(both)
            if number is not None:
                found.setdefault(number, []).append(contact)
        return dict(sorted(found.items()))

    def force(self, data: mujoco.MjData, number: int, contacts: Collection[int]) -> float:
        """The contact normal force of a pair along the studs, N."""
        axis = data.xmat[self._bricks[self._pairs[number][0]].body, 2::3]
        total = 0.0
        for at in contacts:
            contact = data.contact[at]
            along = abs(float(contact.frame[:3] @ axis))
            if along < _FACING or contact.efc_address < 0:
                continue
            if self._elliptic:
                total += along * float(data.efc_force[contact.efc_address])
            else:
                mujoco.mj_contactForce(self._model, data, at, self._wrench)
                total += along * float(self._wrench[0])
        return total

    def fitting(self, data: mujoco.MjData, number: int) -> Connection | None:
        """The connection that a pair would make where it is, if it lies within the gates."""
        a, b = (self._bricks[at] for at in self._pairs[number])
        turn_a, turn_b = data.xmat[a.body].reshape(3, 3), data.xmat[b.body].reshape(3, 3)
        apart = data.xpos[b.body] - data.xpos[a.body]
        if float(apart @ turn_a[:, 2]) < 0:
            a, b, turn_a, turn_b, apart = b, a, turn_b, turn_a, -apart
        if b.size.plate:
            return None
        offset, turn = (apart @ turn_a).tolist(), (turn_a.T @ turn_b).tolist()
        misfit = grid.nearest(a.size, b.size, a.pitch, offset, turn)
        fits = misfit.within(self._gates, a.pitch)
        return Connection(a.name, b.name, misfit.seat, misfit.studs) if fits else None
