"""The press fit: bricks pressed together in the right place lock, and let go when pulled or peeled hard enough.

:class:`Snapping` is how anything steps a scene with bricks. A pair is free, seating (its weld leads it from where it
locked to the stud grid) or held. Only welds between bricks hold a connection: no outside force, no pose written.

Contacts and loads are looked at every 10 substeps; once a pair is pressed half as hard as it takes, a connection bears
half of what it holds, or one is seating, after every substep. So bricks that lie about cost next to nothing.
"""

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_sim.bricks import grid
from tandem_sim.bricks.glance import Glance
from tandem_sim.bricks.graph import Connection, Connections, Offset, grid_offset, offset_of
from tandem_sim.bricks.grid import Misfit, Seat
from tandem_sim.bricks.joints import Joint, join
from tandem_sim.bricks.loads import Loads
from tandem_sim.bricks.parameters import SnapParameters
from tandem_sim.bricks.poses import Pose, inverse, matrix, pose_of, relative, then
from tandem_sim.bricks.pressing import Pressing
from tandem_sim.bricks.shapes import Brick, bricks_of, welds_of

CHUNK = 10  # substeps between two looks at a scene in which nothing is going on
_STIRRED = 0.5  # of the force that locks one stud, or of what a connection holds: from there on after every substep
_KNOCK = 1.5  # no more than this times the needed force counts, so that a knock locks nothing
_MOST_TIMESTEP = 0.002  # s; the welds are stiffer than a longer one could follow


class Snapping:
    """Press fits of one model and one of its data at a time.

    Args:
        model: a compiled model with welds from :func:`.shapes.prepare`. Its ``eq_data`` is written, so each data that
            is stepped at the same time needs a model of its own.

    Raises:
        TandemError: bricks without welds, or a time step too long for their stiffness.
    """

    def __init__(self, model: mujoco.MjModel, parameters: SnapParameters | None = None) -> None:
        self.model, self.parameters = model, parameters or SnapParameters()
        self.bricks = bricks_of(model)
        self._places = {brick.name: at for at, brick in enumerate(self.bricks)}
        welds = welds_of(model, self.bricks)
        self._check(welds)
        self._pairs, self._welds = list(welds), list(welds.values())
        self._numbers = {pair: number for number, pair in enumerate(self._pairs)}
        self._pressing = Pressing(model, self.bricks, self._pairs, self.parameters)
        self._glance = Glance(model, self.bricks, self._pairs, self.parameters)
        timestep = model.opt.timestep
        self._hold = max(1, round(self.parameters.hold / timestep))
        self._ramp = max(1, round(self.parameters.ramp / timestep))
        self._overload = max(1, round(self.parameters.overload / timestep))
        self._cooldown = round(self.parameters.cooldown / timestep)
        self._aligned: tuple[tuple[str, str, Offset], ...] = ()
        self._clear()

    def _check(self, welds: dict[tuple[int, int], int]) -> None:
        if self.bricks and self.model.opt.timestep > _MOST_TIMESTEP * (1 + 1e-9):
            raise TandemError(
                f"snapping: time step {self.model.opt.timestep:g} s (allowed: up to {_MOST_TIMESTEP:g} s)"
            )
        for a, first in enumerate(self.bricks):
            for b, second in enumerate(self.bricks[a + 1 :], a + 1):
                joinable = not (first.size.plate and second.size.plate) and not (first.fixed and second.fixed)
                if joinable and (a, b) not in welds:
                    raise TandemError(
                        f"snapping: bricks '{first.name}' and '{second.name}' have no weld (allowed: prepare(spec) "
                        "after the last brick)"
                    )

    def _clear(self) -> None:
        self._joints: dict[int, Joint] = {}
        self._felt: dict[int, float] = {}
        self._cold: dict[int, int] = {}
        self._loads: Loads | None = None
        self._held: list[Joint] = []
        self._seating: list[Joint] = []
        self._strained = False
        self._graph: Connections | None = None
        self._now = 0
        self.alert = False
        """Whether something is going on that is followed substep by substep."""
        self.locked = self.released = 0
        """How often pairs locked and let go since the reset."""

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
        return not self._seating

    def load(self, data: mujoco.MjData, a: str, b: str) -> float:
        """What the connection of two bricks bore in the last substep, as a part of what it holds.

        Below 0 where it is pressed together; 0 without a connection, and until it is seated.
        """
        number = self._number(a, b)
        if self._loads is None or all(joint.pair != number for joint in self._held):
            return 0.0
        return self._loads.ratios(data)[[joint.pair for joint in self._held].index(number)]

    def pose_in(self, data: mujoco.MjData, a: str, b: str) -> Pose:
        """Where ``b`` is in ``a``'s frame: place (3,), m, and quaternion (4,)."""
        return relative(pose_of(data, self._brick(a)), pose_of(data, self._brick(b)))

    def misfit(self, data: mujoco.MjData, lower: str, upper: str) -> Misfit:
        """How far ``upper`` is from the nearest seat on ``lower``."""
        below, above = self._brick(lower), self._brick(upper)
        place, turn = self.pose_in(data, lower, upper)
        return grid.nearest(below.size, above.size, below.pitch, place.tolist(), matrix(turn).tolist())

    # how an episode begins

    def reset(self, data: mujoco.MjData) -> None:
        """Takes everything apart; call it after ``mj_resetData`` and after poses were written."""
        self._clear()
        data.eq_active[self._welds] = 0
        mujoco.mj_kinematics(self.model, data)
        self._aligned = self._find_aligned(data)

    def attach(self, data: mujoco.MjData, lower: str, upper: str, i: int = 0, j: int = 0, turns: int = 0) -> None:
        """Begins assembled: moves ``upper`` and what hangs on it to the seat on ``lower`` and holds it. At resets only.

        Raises:
            TandemError: unknown bricks, no stud engaged, attached already, a plate on top, or studs that do not meet
                because of what both are attached to.
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
        self._join(data, edge, seated=True)

    # what moves time

    def step(self, data: mujoco.MjData, substeps: int) -> None:
        """Advances physics by ``substeps`` times ``mj_step``, with the snap rules checked."""
        while substeps > 0:
            chunk = min(substeps, CHUNK - self._now % CHUNK)
            if self.alert:
                self._walk(data, chunk)
            else:
                mujoco.mj_step(self.model, data, chunk)
                self._now += chunk
                if self._now % CHUNK == 0 and (self._joints or data.ncon):
                    self._look(data, every=True)
            substeps -= chunk

    def idle(self, qpos: np.ndarray, qvel: np.ndarray, substeps: int) -> bool:
        """Whether surely nothing locks or lets go within the next substeps, for whoever steps otherwise.

        Args:
            qpos: positions of the whole model, (nq,).
            qvel: velocities of the whole model, (nv,).
            substeps: how far ahead, 10 at most.
        """
        return self.calm and self._glance.clear(qpos, qvel, substeps)

    def idle_many(self, qpos: np.ndarray, qvel: np.ndarray, substeps: int, calm: np.ndarray) -> np.ndarray:
        """:meth:`idle` of many data of this model's structure, by how far bricks are apart alone, bool (n,).

        Args:
            qpos: positions, (n, nq).
            qvel: velocities, (n, nv).
            substeps: how far ahead, 10 at most.
            calm: of which :attr:`calm` holds, bool (n,).
        """
        return calm & self._glance.far(qpos, qvel, substeps)

    @property
    def calm(self) -> bool:
        """Whether nothing is attached and nothing under way."""
        return not (self.alert or self._joints)

    def idled(self, substeps: int) -> None:
        """Takes note that an :meth:`idle` scene was stepped by other means."""
        self._now += substeps

    # inside a step

    def _walk(self, data: mujoco.MjData, substeps: int) -> None:
        """Steps and follows what is going on, substep by substep."""
        for _ in range(substeps):
            mujoco.mj_step(self.model, data)
            self._now += 1
            if self._seating:
                self._lead(data)
            self._look(data, every=self._now % CHUNK == 0)

    def _look(self, data: mujoco.MjData, every: bool) -> None:
        """Looks at loads and contacts; at those of ``every`` free pair, or of those only that are being pressed."""
        self.alert = False
        if self._joints:
            self._let_go(data)
        if every or self._felt:
            self._feel(data, every)
        self.alert = self.alert or bool(self._felt or self._seating)

    def _lead(self, data: mujoco.MjData) -> None:
        """Moves the goals of seating welds on, and closes loops whose other welds have arrived."""
        for joint in list(self._seating):
            if joint.waiting:
                parts = self.connections.component(joint.edge.lower)
                if all(other.waiting or other.edge.lower not in parts for other in self._seating):
                    joint.waiting, joint.start = False, self._pose_of_pair(data, joint.pair)
                    joint.aim(self.model, self._ramp)
                    data.eq_active[joint.weld] = 1
                continue
            joint.age += 1
            joint.aim(self.model, self._ramp)
            if joint.age == self._ramp:
                self._seating.remove(joint)
                self._loads = None

    def _let_go(self, data: mujoco.MjData) -> None:
        """Takes apart what has borne more than it holds for long enough."""
        if self._loads is None:
            self._held = [joint for joint in self._joints.values() if joint not in self._seating]
            self._loads = Loads(self.model, [joint.fit(self.parameters.pull) for joint in self._held])
            self.alert = True
            return  # the forces of this substep are from before the change
        if self._loads.bound(data) < _STIRRED and not self._strained:
            return
        self._strained = False
        for joint, load in zip(self._held, self._loads.ratios(data), strict=True):
            joint.overloaded = joint.overloaded + 1 if load > 1 else 0
            self._strained = self._strained or load > 1
            self.alert = self.alert or load > _STIRRED
            if joint.overloaded >= self._overload:
                self._part(data, joint)

    def _feel(self, data: mujoco.MjData, every: bool) -> None:
        """Feels how hard free pairs are pressed together, and locks those pressed long enough in the right place."""
        touching = self._pressing.touching(data)
        for number in [number for number in self._felt if number not in touching]:
            del self._felt[number]
        for number, contacts in touching.items():
            felt = self._felt.get(number)
            if number in self._joints or not (every or felt is not None) or self._cold.get(number, 0) > self._now:
                continue
            self._press(data, number, self._pressing.force(data, number, contacts), felt or 0.0)

    def _press(self, data: mujoco.MjData, number: int, force: float, felt: float) -> None:
        least = _STIRRED * self.parameters.press
        fit = self._pressing.fitting(data, number) if max(force, felt) >= least else None
        if fit is None or max(force, felt) < least * fit.studs:
            self._felt.pop(number, None)
            return
        needed = self.parameters.press * fit.studs
        felt += (min(force, _KNOCK * needed) - felt) / self._hold
        self._felt[number] = felt
        if felt >= needed and self._agrees(fit):
            del self._felt[number]
            self._join(data, fit)

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

    def _join(self, data: mujoco.MjData, edge: Connection, seated: bool = False) -> None:
        number = self._number(edge.lower, edge.upper)
        closes = not seated and self.connections.offset(edge.lower, edge.upper) is not None
        first, second = (self.bricks[at] for at in self._pairs[number])
        now, age = self._pose_of_pair(data, number), self._ramp if seated else 0
        joint = join(edge, number, self._welds[number], (first, second), now, age, closes)
        joint.aim(self.model, self._ramp)
        data.eq_active[joint.weld] = not closes
        self._joints[number] = joint
        if not seated:
            self._seating.append(joint)
        self.locked += not seated
        self._changed()

    def _part(self, data: mujoco.MjData, joint: Joint) -> None:
        del self._joints[joint.pair]
        self._strained = False
        data.eq_active[joint.weld] = 0
        self._cold[joint.pair] = self._now + self._cooldown
        self.released += 1
        self._changed()

    def _changed(self) -> None:
        self._graph = self._loads = None
        self.alert = True

    def _move(self, data: mujoco.MjData, below: Brick, above: Brick, seat: Seat) -> None:
        """Puts the upper brick, and all that hangs on it, where the seat is; the lower one where the upper is held."""
        if self.connections.offset(below.name, above.name) is not None:
            return
        goal = seat.pose(below.size, above.size, below.pitch)
        if self._anchored(above.name):
            below, above, goal = above, below, inverse(goal)
        parts = [self._brick(name) for name in self.connections.component(above.name)]
        now, goal = pose_of(data, above), then(pose_of(data, below), goal)
        for part in parts:
            place, turn = then(goal, relative(now, pose_of(data, part)))
            data.qpos[part.qpos : part.qpos + 3] = place
            data.qpos[part.qpos + 3 : part.qpos + 7] = turn

    def _brick(self, name: str) -> Brick:
        if name not in self._places:
            raise unknown("snapping: brick", name, self._places)
        return self.bricks[self._places[name]]

    def _number(self, a: str, b: str) -> int:
        first, second = sorted((self._places[self._brick(a).name], self._places[self._brick(b).name]))
        if (first, second) not in self._numbers:
            raise TandemError(f"snapping: '{a}' and '{b}' can never be joined (allowed: two bricks, one of them free)")
        return self._numbers[first, second]

    def _pose_of_pair(self, data: mujoco.MjData, number: int) -> Pose:
        first, second = (self.bricks[at] for at in self._pairs[number])
        return relative(pose_of(data, first), pose_of(data, second))

    def _find_aligned(self, data: mujoco.MjData) -> tuple[tuple[str, str, Offset], ...]:
        """Offsets between bricks that stand fast on one common stud grid."""
        found = []
        fast = [brick for brick in self.bricks if brick.fixed]
        for at, a in enumerate(fast):
            for b in fast[at + 1 :]:
                offset = grid_offset(relative(pose_of(data, a), pose_of(data, b)), a.pitch)
                if offset is not None:
                    found.append((a.name, b.name, offset))
        return tuple(found)
