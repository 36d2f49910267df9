"""The press fit: bricks pressed together in the right place lock, and let go when pulled or peeled hard enough.

:class:`Snapping` is how anything steps a scene with bricks. A pair is free, seating (its weld leads it from where it
locked to the stud grid) or held. Only welds between bricks hold a connection: no outside force, no pose written.
"""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_sim.bricks import grid
from tandem_sim.bricks.glance import Glance
from tandem_sim.bricks.graph import Connection, Connections, Offset, offset_of
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.loads import Fit, Loads
from tandem_sim.bricks.near import Vicinity
from tandem_sim.bricks.parameters import PLATE_HEIGHT, SnapParameters
from tandem_sim.bricks.poses import Pose, inverse, matrix, relative, rotate, then
from tandem_sim.bricks.shapes import Brick, bricks_of, welds_of

CHUNK = 10  # substeps between two looks at what could happen
_RESTLESS_S = 0.1  # after a change everything is watched for so long
_KNOCK = 1.5  # a push counts for no more than this times what is needed, so that a knock locks nothing
_FACING = 0.9  # cosine between a contact's normal and the stud axis; others are bumps of walls
_NOTHING: np.ndarray = np.zeros(0, int)
_AT_EASE = 0.5  # a connection that bears more of its strength than this is watched


@dataclass
class _Joint:
    """A connection in the making or made."""

    edge: Connection
    pair: int
    weld: int
    start: Pose
    goal: Pose
    anchor: np.ndarray
    age: int = 0
    waiting: bool = False
    """Closes a loop: its weld comes when the rest of the loop has found its place."""
    overloaded: int = 0
    load: float = 0.0


class Snapping:
    """Press fits of one model and one of its data at a time.

    Args:
        model: a compiled model with welds from :func:`.shapes.prepare`. Its ``eq_data`` is written, so each data that
            is stepped at the same time needs a model of its own.
        exhaustive: look at every pair after every substep. Changes nothing but the time that it takes.

    Raises:
        TandemError: bricks without welds, or a time step too long for their stiffness.
    """

    def __init__(
        self, model: mujoco.MjModel, parameters: SnapParameters | None = None, exhaustive: bool = False
    ) -> None:
        self.model, self.parameters = model, parameters or SnapParameters()
        self.bricks = bricks_of(model)
        self._exhaustive = exhaustive
        self._places = {brick.name: at for at, brick in enumerate(self.bricks)}
        welds = welds_of(model, self.bricks)
        if self.bricks and model.opt.timestep > 0.002 + 1e-9:
            raise TandemError(f"snapping: time step {model.opt.timestep:g} s (allowed: up to 0.002)")
        self._check_welds(welds)
        self._pairs = np.array(list(welds), int).reshape(-1, 2)
        self._welds = list(welds.values())
        self._numbers = {pair: number for number, pair in enumerate(welds)}
        self._brick_of_geom = np.full(model.ngeom, -1)
        for at, brick in enumerate(self.bricks):
            self._brick_of_geom[brick.geom] = at
        self._vicinity = Vicinity(model, self.bricks, self._pairs, self.parameters)
        self._glance = Glance(model, self.bricks, self._pairs, self.parameters)
        self._elliptic = model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
        timestep = model.opt.timestep
        self._hold = max(1, round(self.parameters.hold / timestep))
        self._ramp = max(1, round(self.parameters.ramp / timestep))
        self._overload = max(1, round(self.parameters.overload / timestep))
        self._cooldown = round(self.parameters.cooldown / timestep)
        self._restless = round(_RESTLESS_S / timestep)
        self._clear()

    def _check_welds(self, welds: dict[tuple[int, int], int]) -> None:
        for a, first in enumerate(self.bricks):
            for b in range(a + 1, len(self.bricks)):
                second = self.bricks[b]
                joinable = not (first.size.plate and second.size.plate) and not (first.fixed and second.fixed)
                if joinable and (a, b) not in welds:
                    raise TandemError(
                        f"snapping: bricks '{first.name}' and '{second.name}' have no weld (allowed: prepare(spec) "
                        "after the last brick)"
                    )

    def _clear(self) -> None:
        self._joints: dict[int, _Joint] = {}
        self._felt: dict[int, float] = {}
        self._cold: dict[int, int] = {}
        self._now = 0
        self._watch_until = 0
        self._loads: Loads | None = None
        self._graph: Connections | None = None
        self._aligned: tuple = ()
        self._joined = np.zeros(len(self._pairs), bool)

    # what others ask

    @property
    def connections(self) -> Connections:
        """Who is attached to whom now; a new object after each change, the same one in between."""
        if self._graph is None:
            edges = tuple(sorted(joint.edge for joint in self._joints.values()))
            self._graph = Connections({brick.name: brick.size for brick in self.bricks}, edges, self._aligned)
        return self._graph

    @property
    def settled(self) -> bool:
        """Whether no connection is on its way to its seat."""
        return all(joint.age >= self._ramp and not joint.waiting for joint in self._joints.values())

    def load(self, a: str, b: str) -> float:
        """What the connection of two bricks bears, as a part of what it holds; 0 where there is none."""
        number = self._number(a, b)
        return self._joints[number].load if number in self._joints else 0.0

    def misfit(self, data: mujoco.MjData, lower: str, upper: str) -> grid.Misfit:
        """How far ``upper`` is from the nearest seat on ``lower``."""
        below, above = self._brick(lower), self._brick(upper)
        place, turn = self._relative(data, below, above)
        return grid.nearest(below.size, above.size, below.pitch, place.tolist(), matrix(turn).tolist())

    def pose_in(self, data: mujoco.MjData, a: str, b: str) -> Pose:
        """Where ``b`` is in ``a``'s frame: place (3,), m, and quaternion (4,)."""
        return self._relative(data, self._brick(a), self._brick(b))

    # what moves time

    def reset(self, data: mujoco.MjData) -> None:
        """Takes everything apart; call it after ``mj_resetData`` and after poses were written."""
        self._clear()
        data.eq_active[self._welds] = 0
        mujoco.mj_kinematics(self.model, data)
        self._aligned = self._find_aligned(data)

    def attach(self, data: mujoco.MjData, lower: str, upper: str, i: int = 0, j: int = 0, turns: int = 0) -> None:
        """Begins assembled: moves ``upper`` to the seat on ``lower`` and holds it there. At a reset only.

        Raises:
            TandemError: unknown bricks, no stud engaged, already attached, ``upper`` stands fast or is a plate.
        """
        below, above = self._brick(lower), self._brick(upper)
        seat = Seat(i, j, turns % 4)
        studs = grid.engaged(below.size, above.size, seat)
        where = f"attach '{upper}' on '{lower}' at ({i}, {j}), {turns} quarter turns"
        if above.size.plate or lower == upper:
            raise TandemError(f"{where}: '{upper}' cannot sit on it (allowed: another brick that is no plate)")
        if not studs:
            raise TandemError(f"{where}: no stud is engaged (allowed: an overlap of a stud or more)")
        if self._number(lower, upper) in self._joints:
            raise TandemError(f"{where}: they are attached already (allowed: once)")
        edge = Connection(lower, upper, seat, studs)
        if not self._agrees(edge):
            raise TandemError(f"{where}: its studs do not meet (allowed: where the rest of the assembly lets it)")
        self._move(data, below, above, seat)
        self._join(data, edge, ramp=False)

    def step(self, data: mujoco.MjData, substeps: int) -> None:
        """Advances physics by ``substeps`` times ``mj_step``, with the snap rules checked."""
        left = substeps
        while left > 0:
            chunk = min(left, CHUNK)
            live = self._live(data, chunk)
            if live.size == 0:
                mujoco.mj_step(self.model, data, chunk)
                self._now += chunk
            else:
                self._walk(data, chunk, live)
            left -= chunk

    def idle(self, qpos: np.ndarray, qvel: np.ndarray, substeps: int) -> bool:
        """Whether surely nothing locks or lets go within the next substeps (10 at most), for whoever steps otherwise.

        Args:
            qpos: positions of the whole model, (nq,).
            qvel: velocities of the whole model, (nv,).
            substeps: how far ahead.
        """
        if self._exhaustive or self._joints or self._now < self._watch_until:
            return False
        return self._glance.clear(qpos, qvel, substeps)

    def idled(self, substeps: int) -> None:
        """Takes note that an :meth:`idle` scene was stepped by other means."""
        self._now += substeps
        self._felt.clear()

    # inside a step

    def _live(self, data: mujoco.MjData, substeps: int) -> np.ndarray:
        if self._exhaustive or self._now < self._watch_until or any(j.load > _AT_EASE for j in self._joints.values()):
            return np.arange(len(self._pairs))
        if not self._joints and self._glance.clear(data.qpos, data.qvel, substeps):
            self._felt.clear()
            return _NOTHING
        live = self._vicinity.look(data, substeps, self._joined)
        for number in [number for number in self._felt if number not in self._vicinity.near]:
            del self._felt[number]
        return live

    def _walk(self, data: mujoco.MjData, substeps: int, live: np.ndarray) -> None:
        watched = np.zeros((len(self.bricks) + 1, len(self.bricks) + 1), bool)  # the last one: no brick
        watched[self._pairs[live, 0], self._pairs[live, 1]] = True
        watched |= watched.T
        for _ in range(substeps):
            mujoco.mj_step(self.model, data)
            self._now += 1
            if self._joints:
                self._lead(data)
                self._let_go(data)
            self._press(data, watched)

    def _lead(self, data: mujoco.MjData) -> None:
        """Moves the goals of seating welds on, and closes loops whose other welds have arrived."""
        changed = False
        for joint in self._joints.values():
            if joint.waiting and not self._seating(joint.edge.lower):
                joint.waiting, joint.start = False, self._relative_of(data, joint.pair)
                data.eq_active[joint.weld] = 1
                changed = True
            if not joint.waiting and joint.age < self._ramp:
                joint.age += 1
                self._aim(joint)
                changed = changed or joint.age == self._ramp
        if changed:
            self._loads = None

    def _let_go(self, data: mujoco.MjData) -> None:
        """Takes apart what has borne more than it holds for long enough."""
        if self._loads is None:
            self._held = [joint for joint in self._joints.values() if not joint.waiting and joint.age >= self._ramp]
            self._loads = Loads(self.model, [self._fit(joint) for joint in self._held])
            return  # the forces of this substep are from before the change
        for joint, load in zip(self._held, self._loads.ratios(data).tolist(), strict=True):
            joint.load = load
            joint.overloaded = joint.overloaded + 1 if load > 1 else 0
            if joint.overloaded >= self._overload:
                self._part(data, joint)

    def _press(self, data: mujoco.MjData, watched: np.ndarray) -> None:
        """Feels how hard free pairs are pressed together, and locks those pressed long enough in the right place."""
        pushes = self._pushes(data, watched)
        for number in [number for number in self._felt if number not in pushes and watched[tuple(self._pairs[number])]]:
            del self._felt[number]
        for number, force in pushes.items():
            fit = self._fitting(data, number)
            if fit is None:
                self._felt.pop(number, None)
                continue
            needed = self.parameters.press * fit.studs
            felt = self._felt.get(number, 0.0)
            felt += (min(force, _KNOCK * needed) - felt) / self._hold
            self._felt[number] = felt
            if felt >= needed and self._agrees(fit):
                del self._felt[number]
                self._join(data, fit, ramp=True)

    def _pushes(self, data: mujoco.MjData, watched: np.ndarray) -> dict[int, float]:
        """Contact normal force along the stud axis, N, of each watched free pair that is pressed now or was felt."""
        if not data.ncon:
            return {}
        contacts = data.contact
        bricks = self._brick_of_geom[contacts.geom]
        found = np.flatnonzero(watched[bricks[:, 0], bricks[:, 1]])
        if not found.size:
            return {}
        forces: dict[int, float] = {}
        wrench = np.zeros(6)
        rows, normals = contacts.efc_address[found].tolist(), contacts.frame[found, :3]
        for at, (contact, (a, b)) in enumerate(zip(found.tolist(), bricks[found].tolist(), strict=True)):
            number = self._numbers.get((a, b) if a < b else (b, a))
            if number is None or rows[at] < 0 or number in self._joints or self._cold.get(number, 0) > self._now:
                continue
            along = abs(float(normals[at] @ data.xmat[self.bricks[a].body, 2::3]))
            if along < _FACING:
                continue
            if self._elliptic:
                force = float(data.efc_force[rows[at]])
            else:
                mujoco.mj_contactForce(self.model, data, contact, wrench)
                force = float(wrench[0])
            forces[number] = forces.get(number, 0.0) + force * along
        least = self.parameters.press
        return {number: forces[number] for number in sorted(forces) if forces[number] >= least or number in self._felt}

    def _fitting(self, data: mujoco.MjData, number: int) -> Connection | None:
        """The connection that a pressed pair would make, if it lies within the gates."""
        a, b = (self.bricks[at] for at in self._pairs[number].tolist())
        turn_a, turn_b = data.xmat[a.body].reshape(3, 3), data.xmat[b.body].reshape(3, 3)
        apart = data.xpos[b.body] - data.xpos[a.body]
        lower, upper = (a, b) if float(apart @ turn_a[:, 2]) > 0 else (b, a)
        if upper.size.plate:
            return None
        if lower is b:
            turn_a, turn_b, apart = turn_b, turn_a, -apart
        offset, turn = (apart @ turn_a).tolist(), (turn_a.T @ turn_b).tolist()
        misfit = grid.nearest(lower.size, upper.size, lower.pitch, offset, turn)
        fits = misfit.within(self.parameters, lower.pitch)
        return Connection(lower.name, upper.name, misfit.seat, misfit.studs) if fits else None

    def _agrees(self, edge: Connection) -> bool:
        """Whether the studs of what already hangs together line up with the new connection."""
        held = self.connections.offset(edge.lower, edge.upper)
        if held is not None:
            below, above = self._brick(edge.lower), self._brick(edge.upper)
            return held == offset_of(below.size, above.size, edge.seat)
        return not (self._anchored(edge.lower) and self._anchored(edge.upper))

    def _anchored(self, name: str) -> bool:
        return any(self._brick(other).fixed for other in self.connections.component(name))

    # making and breaking

    def _join(self, data: mujoco.MjData, edge: Connection, ramp: bool) -> None:
        number = self._number(edge.lower, edge.upper)
        below, above = self._brick(edge.lower), self._brick(edge.upper)
        place = np.array(grid.position(below.size, above.size, edge.seat, below.pitch))
        turn = np.array(grid.quaternion(edge.seat.turns))
        meeting = grid.middle(below.size, above.size, edge.seat, below.pitch)
        if below is self.bricks[self._pairs[number][0]]:
            goal, anchor = (place, turn), np.array(grid.to_upper(meeting, place.tolist(), edge.seat.turns))
        else:
            goal, anchor = inverse((place, turn)), np.array(meeting)
        start = self._relative_of(data, number)
        if float(start[1] @ goal[1]) < 0:
            goal = (goal[0], -goal[1])
        closes = ramp and self.connections.offset(edge.lower, edge.upper) is not None
        joint = _Joint(edge, number, self._welds[number], start, goal, anchor, 0 if ramp else self._ramp, closes)
        self._joints[number] = joint
        self._aim(joint)
        data.eq_active[joint.weld] = not closes
        self._changed(number, True)

    def _move(self, data: mujoco.MjData, below: Brick, above: Brick, seat: Seat) -> None:
        """Puts the upper brick, and all that hangs on it, where the seat is."""
        if self.connections.offset(below.name, above.name) is not None:
            return
        place = np.array(grid.position(below.size, above.size, seat, below.pitch))
        goal: Pose = place, np.array(grid.quaternion(seat.turns))
        if self._anchored(above.name):
            below, above, goal = above, below, inverse(goal)
        parts = [self._brick(name) for name in self.connections.component(above.name)]
        now, goal = self._pose(data, above), then(self._pose(data, below), goal)
        for part in parts:
            place, turn = then(goal, relative(now, self._pose(data, part)))
            data.qpos[part.qpos : part.qpos + 3] = place
            data.qpos[part.qpos + 3 : part.qpos + 7] = turn

    def _part(self, data: mujoco.MjData, joint: _Joint) -> None:
        del self._joints[joint.pair]
        data.eq_active[joint.weld] = 0
        self._cold[joint.pair] = self._now + self._cooldown
        self._changed(joint.pair, False)

    def _changed(self, number: int, joined: bool) -> None:
        self._joined[number] = joined
        self._graph = self._loads = None
        self._watch_until = self._now + self._restless

    def _aim(self, joint: _Joint) -> None:
        """Writes the weld's pose: on the way from where the pair locked to the grid, without a jerk."""
        part = joint.age / self._ramp
        part = part * part * (3 - 2 * part)
        place = joint.start[0] + part * (joint.goal[0] - joint.start[0])
        turn = joint.start[1] + part * (joint.goal[1] - joint.start[1])
        turn /= np.sqrt(turn @ turn)
        row = self.model.eq_data[joint.weld]
        row[:3] = joint.anchor
        row[3:6] = place + rotate(turn, joint.anchor)
        row[6:10] = turn
        row[10] = 1.0

    def _fit(self, joint: _Joint) -> Fit:
        b = self.bricks[self._pairs[joint.pair][1]]
        below, above = self._brick(joint.edge.lower), self._brick(joint.edge.upper)
        columns, rows = grid.covered(below.size, above.size, joint.edge.seat)
        sides = len(columns) * below.pitch, len(rows) * below.pitch
        if above is b and joint.edge.seat.turns % 2:
            sides = sides[1], sides[0]
        strength = joint.edge.studs * self.parameters.pull
        anchor = tuple(joint.anchor.tolist())
        return Fit(joint.weld, below.body, b.body, above is b, sides, strength, (below.geom, above.geom), anchor)

    def _seating(self, name: str) -> bool:
        parts = set(self.connections.component(name))
        return any(j.age < self._ramp and not j.waiting and j.edge.lower in parts for j in self._joints.values())

    # poses

    def _brick(self, name: str) -> Brick:
        if name not in self._places:
            raise unknown("snapping: brick", name, self._places)
        return self.bricks[self._places[name]]

    def _number(self, a: str, b: str) -> int:
        first, second = sorted((self._places[self._brick(a).name], self._places[self._brick(b).name]))
        if (first, second) not in self._numbers:
            raise TandemError(f"snapping: '{a}' and '{b}' can never be joined (allowed: two bricks, one of them free)")
        return self._numbers[first, second]

    def _pose(self, data: mujoco.MjData, brick: Brick) -> Pose:
        if brick.fixed:
            return data.xpos[brick.body].copy(), data.xquat[brick.body].copy()
        pose = data.qpos[brick.qpos : brick.qpos + 7]
        return pose[:3].copy(), pose[3:] / np.sqrt(pose[3:] @ pose[3:])

    def _relative(self, data: mujoco.MjData, a: Brick, b: Brick) -> Pose:
        """Of b in a's frame."""
        return relative(self._pose(data, a), self._pose(data, b))

    def _relative_of(self, data: mujoco.MjData, number: int) -> Pose:
        a, b = self._pairs[number]
        return self._relative(data, self.bricks[a], self.bricks[b])

    def _find_aligned(self, data: mujoco.MjData) -> tuple:
        """Offsets between bricks that stand fast on one common stud grid."""
        found = []
        fast = [brick for brick in self.bricks if brick.fixed]
        for at, a in enumerate(fast):
            for b in fast[at + 1 :]:
                offset = _grid_offset(a, b, self._relative(data, a, b))
                if offset is not None:
                    found.append((a.name, b.name, offset))
        return tuple(found)


def _grid_offset(a: Brick, b: Brick, pose: Pose) -> Offset | None:
    """The whole number of half pitches, half plates and quarter turns between two bricks, if it is one."""
    place, turn = pose
    axes = matrix(turn)
    turns = round(math.atan2(axes[1, 0], axes[0, 0]) / (math.pi / 2))
    steps = np.array([a.pitch / 2, a.pitch / 2, PLATE_HEIGHT * a.pitch / 2])
    whole = np.round(place / steps)
    off = np.abs(place - whole * steps).max() + np.abs(axes - matrix(grid.quaternion(turns))).max() * a.pitch
    return Offset(int(whole[0]), int(whole[1]), int(whole[2]), turns % 4) if off < 1e-3 * a.pitch else None
