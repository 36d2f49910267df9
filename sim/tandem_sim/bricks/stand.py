"""One trial: a brick on a stand, another one in a carriage above its seat, and what then happens to the two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import mujoco
import numpy as np

from tandem_sim.bricks import grid
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import PITCH, BrickSize, SnapParameters
from tandem_sim.bricks.poses import Pose, matrix, multiply, rotate
from tandem_sim.bricks.rig import FIRM, Wrist, add_carriage, drive, scene
from tandem_sim.bricks.shapes import KINDS, add_baseplate, add_brick, prepare
from tandem_sim.bricks.snap import Snapping

BRICKS = tuple(size for size in KINDS.values() if not size.plate)
_PLATE = KINDS["baseplate 8x8"]
_ON_PLATE = Seat(2, 2, 0)
_CLEAR = 0.0002  # m above contact where a press begins


@dataclass
class Jumps:
    """How far free bodies moved in one substep beyond their speed before it."""

    worst_mm: float = 0.0
    _place: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def step(self, snapping: Snapping, data: mujoco.MjData, substeps: int) -> None:
        """Steps one by one and looks at each."""
        free = [brick for brick in snapping.bricks if not brick.fixed]
        places = np.array([brick.qpos + np.arange(3) for brick in free], int)
        speeds = np.array([brick.dof + np.arange(3) for brick in free], int)
        for _ in range(substeps):
            before, speed = data.qpos[places], np.linalg.norm(data.qvel[speeds], axis=1)
            snapping.step(data, 1)
            moved = np.linalg.norm(data.qpos[places] - before, axis=1)
            self.worst_mm = max(self.worst_mm, 1e3 * float((moved - speed * snapping.model.opt.timestep).max()))


@dataclass(frozen=True)
class Pair:
    """What is pressed on what, where, and how the lower brick stands."""

    lower: BrickSize
    upper: BrickSize
    seat: Seat
    stands: str = "fixed"
    """``fixed``: held fast; ``plate``: attached to a baseplate; ``loose``: lies free on the floor."""

    @property
    def studs(self) -> int:
        return grid.engaged(self.lower, self.upper, self.seat)


def random_pair(rng: np.random.Generator) -> Pair:
    """Any two sizes with any overlap of a stud or more."""
    lowers = list(KINDS.values())
    lower, upper = lowers[rng.integers(len(lowers))], BRICKS[rng.integers(len(BRICKS))]
    turns = int(rng.integers(4))
    wide, deep = upper.footprint(turns)
    seat = Seat(int(rng.integers(1 - wide, lower.nx)), int(rng.integers(1 - deep, lower.ny)), turns)
    return Pair(lower, upper, seat, "fixed" if lower.plate else ("fixed", "plate", "loose")[rng.integers(3)])


@dataclass(frozen=True)
class Error:
    """Misalignment at the middle of the engaged studs: m along the lower brick's axes, rad."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0


class Stand:
    """One scene: a lower brick, and an upper one in a carriage just above its seat, with an error.

    Args:
        attached: the two begin attached.
        wrist: springs of the carriage.
    """

    def __init__(
        self,
        pair: Pair,
        error: Error | None = None,
        pitch: float = PITCH,
        parameters: SnapParameters | None = None,
        wrist: Wrist = FIRM,
        attached: bool = False,
    ) -> None:
        self.pair, self.pitch, error = pair, pitch, error or Error()
        spec = scene()
        base = self._add_lower(spec)
        place, turn = self._pose(base, error, 0.0 if attached else _CLEAR)
        add_brick(spec, "upper", pair.upper, "red", pitch, place.tolist(), turn.tolist())
        add_carriage(spec, "carriage", pair.upper, place.tolist(), turn.tolist(), pitch, wrist)
        if error.z:
            self._add_spacer(spec, base, error.z)
        prepare(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.snapping = Snapping(self.model, parameters)
        self.snapping.reset(self.data)
        if pair.stands == "plate":
            self.snapping.attach(self.data, "plate", "lower", _ON_PLATE.i, _ON_PLATE.j)
        if attached:
            self.snapping.attach(self.data, "lower", "upper", pair.seat.i, pair.seat.j, pair.seat.turns)
        mujoco.mj_forward(self.model, self.data)
        self.jumps = Jumps()
        self.weight = float(self.model.body("upper").mass[0]) * -float(self.model.opt.gravity[2])
        """Of the upper brick, N."""

    def _add_lower(self, spec: mujoco.MjSpec) -> np.ndarray:
        stands, lower, pitch = self.pair.stands, self.pair.lower, self.pitch
        place = np.array([0.0, 0.0, lower.height * pitch / 2])
        if stands == "plate":
            under = np.array([0.0, 0.0, -_PLATE.height * pitch / 2])
            add_baseplate(spec, "plate", _PLATE, pitch=pitch, pos=under.tolist())
            place = under + grid.position(_PLATE, lower, _ON_PLATE, pitch)
        if stands == "loose":
            spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1])
        add_brick(spec, "lower", lower, "blue", pitch, place.tolist(), fixed=stands == "fixed")
        return place

    def _pose(self, base: np.ndarray, error: Error, clear: float) -> Pose:
        """The upper brick's pose above contact, turned about the middle of the engaged studs."""
        lower, upper, seat = self.pair.lower, self.pair.upper, self.pair.seat
        middle = np.array(grid.middle(lower, upper, seat, self.pitch))
        seated, straight = seat.pose(lower, upper, self.pitch)
        turn = np.array([1.0, 0, 0, 0])
        for axis, angle in enumerate((error.tilt_x, error.tilt_y, error.yaw)):
            turn = multiply([math.cos(angle / 2), *(math.sin(angle / 2) * np.eye(3)[axis])], turn)
        place = middle + rotate(turn, seated - middle) + (error.x, error.y, error.z)
        turn = multiply(turn, straight)
        lift = max(0.0, _reach(lower, upper, place, matrix(turn), self.pitch))
        return base + place + (0, 0, lift + clear), turn

    def _add_spacer(self, spec: mujoco.MjSpec, base: np.ndarray, thick: float) -> None:
        """Something between the bricks, so that the force goes through it."""
        columns, rows = grid.covered(self.pair.lower, self.pair.upper, self.pair.seat)
        size = [len(columns) * self.pitch * 0.4, len(rows) * self.pitch * 0.4, (thick - 2e-5) / 2]
        x, y, z = base + grid.middle(self.pair.lower, self.pair.upper, self.pair.seat, self.pitch)
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=[x, y, z + thick / 2])

    def push(self, force: float, seconds: float = 0.3) -> None:
        """Grips, then presses with ``force`` N on the interface, reached halfway through the time."""
        steps = round(seconds / self.model.opt.timestep)
        for step in range(steps):
            part = min(1.0, max(0.0, 4 * step / steps - 1))
            grip = self._grip() * min(1.0, (8 * step + 8) / steps)
            drive(self.model, self.data, "carriage", grip, z=self.weight - part * force)
            self.jumps.step(self.snapping, self.data, 1)

    def leave(self, seconds: float = 0.4) -> None:
        """Opens the vice, moves it up and away, and waits."""
        steps = round(seconds / self.model.opt.timestep)
        for step in range(steps):
            drive(self.model, self.data, "carriage", -6.0, z=0.0 if step < steps // 4 else 8.0)
            self.jumps.step(self.snapping, self.data, 1)

    def load(self, axis: str, most: float, seconds: float = 0.8) -> float:
        """Grips, then loads an attached pair along a slide (N) or hinge (Nm) from 0 to ``most`` until it lets go.

        Returns:
            The carriage's force or torque at that moment; infinity if it holds.
        """
        settle, steps = 50, round(seconds / self.model.opt.timestep)
        for step in range(settle + steps):
            force = most * max(0, step - settle) / steps
            drive(self.model, self.data, "carriage", self._grip() * min(1.0, step / settle), **{axis: force})
            self.jumps.step(self.snapping, self.data, 1)
            if self.snapping.connections.between("lower", "upper") is None:
                return force
        return math.inf

    def _grip(self) -> float:
        return 80.0 * (self.pitch / PITCH) ** 1.5

    @property
    def attached(self) -> bool:
        """Whether the upper brick sits on the lower one where it was meant to."""
        edge = self.snapping.connections.between("lower", "upper")
        return edge is not None and edge.seat == self.pair.seat and edge.lower == "lower"

    def residual_mm(self) -> float:
        """The largest distance of a corner of the upper brick from where the grid has it."""
        place, turn = self.snapping.pose_in(self.data, "lower", "upper")
        goal, straight = self.pair.seat.pose(self.pair.lower, self.pair.upper, self.pitch)
        corners = np.array(list(_corners(self.pair.upper))) * self.pitch
        off = place + corners @ matrix(turn).T - goal - corners @ matrix(straight).T
        return 1e3 * float(np.linalg.norm(off, axis=1).max())


def _corners(size: BrickSize) -> Iterator[tuple[float, float, float]]:
    for x in (-0.5, 0.5):
        for y in (-0.5, 0.5):
            for z in (-0.5, 0.5):
                yield x * size.nx, y * size.ny, z * size.height


def _reach(lower: BrickSize, upper: BrickSize, place: np.ndarray, axes: np.ndarray, pitch: float) -> float:
    """How deep the upper brick would reach into the lower one's top, where it is above it, m."""
    half = np.array([upper.nx, upper.ny]) * pitch / 2
    steps = np.linspace(-1, 1, 9)
    underside = np.array([[x * half[0], y * half[1], -upper.height * pitch / 2] for x in steps for y in steps])
    points = place + underside @ axes.T
    over = (np.abs(points[:, 0]) <= lower.nx * pitch / 2) & (np.abs(points[:, 1]) <= lower.ny * pitch / 2)
    return float((lower.height * pitch / 2 - points[over, 2]).max()) if over.any() else 0.0
