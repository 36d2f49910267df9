"""Measures what the press fit promises, on free bricks that a motorised carriage presses, pulls and peels.

Each function runs its own MuJoCo scenes and gives plain numbers; nothing in them is a result written down.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from tandem_sim.bricks import grid
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import PITCH, BrickSize, SnapParameters
from tandem_sim.bricks.poses import Pose, matrix, multiply, rotate
from tandem_sim.bricks.rig import FIRM, WRIST, Wrist, add_carriage, drive, scene
from tandem_sim.bricks.shapes import KINDS, add_brick, prepare, size_of
from tandem_sim.bricks.snap import Snapping

BRICKS = tuple(name for name, size in KINDS.items() if not size.plate)
AXES = ("x", "y", "z", "yaw", "tilt_x", "tilt_y", "force")
_TOO_FAR, _FORCE, _TOO_WEAK = 1.5, 1.2, 0.8
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

    lower: str
    upper: str
    seat: Seat
    stands: str
    """``fixed``: held fast; ``plate``: attached to a baseplate; ``loose``: lies free on the floor."""

    @property
    def studs(self) -> int:
        return grid.engaged(size_of(self.lower), size_of(self.upper), self.seat)


def random_pair(rng: np.random.Generator, plates: bool = True) -> Pair:
    """Any two sizes with any overlap of a stud or more."""
    lowers = list(KINDS) if plates else list(BRICKS)
    lower, upper = lowers[rng.integers(len(lowers))], BRICKS[rng.integers(len(BRICKS))]
    turns = int(rng.integers(4))
    wide, deep = size_of(upper).footprint(turns)
    i = int(rng.integers(1 - wide, size_of(lower).nx))
    j = int(rng.integers(1 - deep, size_of(lower).ny))
    stands = "fixed" if size_of(lower).plate else ("fixed", "plate", "loose")[rng.integers(3)]
    return Pair(lower, upper, Seat(i, j, turns), stands)


@dataclass(frozen=True)
class Error:
    """Misalignment at the middle of the engaged studs: m along the lower brick's axes, rad."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0


class Press:
    """One scene: a lower brick, an upper one in a carriage above its seat with an error, and what then happens."""

    def __init__(
        self,
        pair: Pair,
        error: Error,
        pitch: float = PITCH,
        parameters: SnapParameters | None = None,
        wrist: Wrist = FIRM,
    ) -> None:
        self.pair, self.pitch = pair, pitch
        lower, upper = size_of(pair.lower), size_of(pair.upper)
        spec = scene()
        base = self._add_lower(spec, lower)
        pose = self._pose(base, lower, upper, error)
        add_brick(spec, "upper", upper, "red", pitch, pose[0].tolist(), pose[1].tolist())
        add_carriage(spec, "carriage", upper, pose[0].tolist(), pose[1].tolist(), pitch, wrist)
        if error.z:
            self._add_spacer(spec, base, lower, upper, error.z)
        prepare(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.snapping = Snapping(self.model, parameters)
        self.snapping.reset(self.data)
        if pair.stands == "plate":
            self.snapping.attach(self.data, "plate", "lower", 2, 2)
        mujoco.mj_forward(self.model, self.data)
        self.jumps = Jumps()
        self.weight = float(self.model.body("upper").mass[0]) * 9.81

    def _add_lower(self, spec: mujoco.MjSpec, lower: BrickSize) -> Pose:
        stands, half = self.pair.stands, lower.height * self.pitch / 2
        place = np.array([0.0, 0.0, half])
        if stands == "plate":
            add_brick(spec, "plate", "baseplate 8x8", "green", self.pitch, (0, 0, -0.2 * self.pitch), fixed=True)
            x, y, z = grid.position(size_of("baseplate 8x8"), lower, Seat(2, 2, 0), self.pitch)
            place = np.array([x, y, z - 0.2 * self.pitch])
        if stands == "loose":
            spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1])
        add_brick(spec, "lower", lower, "blue", self.pitch, place.tolist(), fixed=stands == "fixed")
        return place, np.array([1.0, 0, 0, 0])

    def _pose(self, base: Pose, lower: BrickSize, upper: BrickSize, error: Error) -> Pose:
        """The upper brick's pose just above contact, turned about the middle of the engaged studs."""
        seat = self.pair.seat
        middle = np.array(grid.middle(lower, upper, seat, self.pitch))
        arm = np.array(grid.position(lower, upper, seat, self.pitch)) - middle
        turn = np.array([1.0, 0, 0, 0])
        for axis, angle in enumerate((error.tilt_x, error.tilt_y, error.yaw)):
            turn = multiply([math.cos(angle / 2), *(math.sin(angle / 2) * np.eye(3)[axis])], turn)
        place = middle + rotate(turn, arm) + (error.x, error.y, error.z)
        turn = multiply(turn, grid.quaternion(seat.turns))
        lift = _lift(lower, upper, place, matrix(turn), self.pitch)
        return base[0] + place + (0, 0, max(0.0, lift) + _CLEAR), turn

    def _add_spacer(self, spec: mujoco.MjSpec, base: Pose, lower: BrickSize, upper: BrickSize, z: float) -> None:
        """Something thin between the bricks, so that the force goes through it."""
        columns, rows = grid.covered(lower, upper, self.pair.seat)
        size = [len(columns) * self.pitch * 0.4, len(rows) * self.pitch * 0.4, (z - 2e-5) / 2]
        middle = np.array(grid.middle(lower, upper, self.pair.seat, self.pitch)) + base[0]
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=[*middle[:2], middle[2] + z / 2])

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
            drive(self.model, self.data, "carriage", -3.0, z=0.0 if step < steps // 4 else 8.0)
            self.jumps.step(self.snapping, self.data, 1)

    def _grip(self) -> float:
        return 80.0 * (self.pitch / PITCH) ** 1.5

    @property
    def attached(self) -> bool:
        """Whether the upper brick sits on the lower one where it was meant to."""
        edge = self.snapping.connections.between("lower", "upper")
        return edge is not None and edge.seat == self.pair.seat and edge.lower == "lower"

    def residual_mm(self) -> float:
        """The largest distance of a corner of the upper brick from where the grid has it."""
        lower, upper = size_of(self.pair.lower), size_of(self.pair.upper)
        place, turn = self.snapping.pose_in(self.data, "lower", "upper")
        goal = np.array(grid.position(lower, upper, self.pair.seat, self.pitch))
        straight = matrix(grid.quaternion(self.pair.seat.turns))
        corners = np.array(list(_corners(upper))) * self.pitch
        off = place + corners @ matrix(turn).T - goal - corners @ straight.T
        return 1e3 * float(np.linalg.norm(off, axis=1).max())


def _corners(size: BrickSize) -> Iterator[tuple[float, float, float]]:
    for x in (-0.5, 0.5):
        for y in (-0.5, 0.5):
            for z in (-0.5, 0.5):
                yield x * size.nx, y * size.ny, z * size.height


def _lift(lower: BrickSize, upper: BrickSize, place: np.ndarray, axes: np.ndarray, pitch: float) -> float:
    """How far the upper brick would reach into the lower one's top, where it is above it, m."""
    half = np.array([upper.nx, upper.ny]) * pitch / 2
    steps = np.linspace(-1, 1, 9)
    underside = np.array([[x * half[0], y * half[1], -upper.height * pitch / 2] for x in steps for y in steps])
    points = place + underside @ axes.T
    over = (np.abs(points[:, 0]) <= lower.nx * pitch / 2) & (np.abs(points[:, 1]) <= lower.ny * pitch / 2)
    return float((lower.height * pitch / 2 - points[over, 2]).max()) if over.any() else 0.0


# The rows


def _errors(axis: str, parameters: SnapParameters, pitch: float, sign: int) -> Error:
    """1.5 times the tolerance in one axis alone."""
    limits = {
        "x": parameters.planar * pitch, "y": parameters.planar * pitch, "z": parameters.vertical * pitch,
        "yaw": parameters.yaw, "tilt_x": parameters.tilt, "tilt_y": parameters.tilt,
    }  # fmt: skip
    if axis == "force":
        return Error()
    return Error(**{axis: (1 if axis == "z" else sign) * _TOO_FAR * limits[axis]})


def snap_false(count: int = 100, seed: int = 0, pitch: float = PITCH, axes: Sequence[str] = AXES) -> dict[str, int]:
    """How many of ``count`` random pairs attach although one thing alone is wrong, by that thing.

    1.5 times the tolerance in x, y, z, yaw or tilt about x or y, pressed with 1.2 times the force; or right, with 0.8
    times the force. 0 is wanted everywhere.
    """
    parameters, found = SnapParameters(), {}
    for axis in axes:
        rng = np.random.default_rng((seed, 1, AXES.index(axis)))
        found[axis] = 0
        for _ in range(count):
            pair, sign = random_pair(rng), int(rng.choice((-1, 1)))
            press = Press(pair, _errors(axis, parameters, pitch, sign), pitch)
            press.push((_TOO_WEAK if axis == "force" else _FORCE) * parameters.press * pair.studs)
            found[axis] += press.snapping.connections.between("lower", "upper") is not None
    return found


@dataclass(frozen=True)
class Presses:
    """What came of pressing in the right place."""

    count: int
    attached: int
    residual_mm: float
    """The worst after the carriage has left."""
    jump_mm: float
    """The largest move of a free brick in one substep beyond its speed before."""


def snap_true(count: int = 100, seed: int = 0, pitch: float = PITCH, share: float = 0.5) -> Presses:
    """Presses ``count`` random pairs face on face with 1.2 times the force, by a wrist that yields.

    Errors in the stud plane and in yaw are drawn up to ``share`` of their tolerance.
    """
    parameters = SnapParameters()
    rng = np.random.default_rng((seed, 2))
    attached, residual, jump = 0, 0.0, 0.0
    for _ in range(count):
        pair = random_pair(rng)
        planar = share * parameters.planar * pitch * rng.random() ** 0.5
        way, yaw = rng.uniform(0, 2 * math.pi), rng.uniform(-share, share) * parameters.yaw
        press = Press(pair, Error(planar * math.cos(way), planar * math.sin(way), yaw=float(yaw)), pitch, wrist=WRIST)
        press.push(_FORCE * parameters.press * pair.studs)
        press.leave()
        attached += press.attached
        jump = max(jump, press.jumps.worst_mm)
        if press.attached:
            residual = max(residual, press.residual_mm())
    return Presses(count, attached, residual, jump)
