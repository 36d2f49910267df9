"""Measures what the press fit promises, on free bricks that a motorised carriage presses, pulls and peels.

Each function runs its own MuJoCo scenes and gives plain numbers; none of them is a result written down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import BRICK_HEIGHT, PITCH, BrickSize, SnapParameters
from tandem_sim.bricks.rig import FREE, WRIST, add_plunger, scene
from tandem_sim.bricks.shapes import KINDS, add_brick, prepare
from tandem_sim.bricks.snap import Snapping
from tandem_sim.bricks.stand import Error, Jumps, Pair, Stand, random_pair

AXES = ("x", "y", "z", "yaw", "tilt_x", "tilt_y", "force")
_GATES = {"x": "planar", "y": "planar", "z": "vertical", "yaw": "yaw", "tilt_x": "tilt", "tilt_y": "tilt"}
_TOO_FAR, _FORCE, _TOO_WEAK = 1.5, 1.2, 0.8
_ONE, _CORNER = BrickSize(1, 1), Seat(0, 0, 0)
_CENTRED = (  # one over the middle of the other, so that a pull at the upper one's middle is a pull alone
    Pair(_ONE, _ONE, _CORNER),
    Pair(_ONE, BrickSize(1, 3), Seat(0, -1, 0)),
    Pair(KINDS["1x2"], KINDS["1x2"], _CORNER),
    Pair(KINDS["2x2"], KINDS["2x2"], Seat(0, 0, 1)),
    Pair(KINDS["2x4"], KINDS["2x2"], Seat(0, 1, 0)),
    Pair(KINDS["1x4"], KINDS["1x4"], _CORNER),
    Pair(KINDS["2x3"], KINDS["2x3"], _CORNER),
    Pair(KINDS["2x4"], KINDS["2x4"], _CORNER),
    Pair(KINDS["baseplate 8x8"], KINDS["2x4"], Seat(3, 2, 0)),
)


def snap_false(count: int = 100, seed: int = 0, pitch: float = PITCH, axes: Sequence[str] = AXES) -> dict[str, int]:
    """How many of ``count`` random pairs ever lock although one thing alone is wrong, by that thing; 0 is wanted.

    1.5 times the tolerance in x, y, z, yaw or tilt about x or y, pressed with 1.2 times the force; or right, with 0.8
    times the force. Between bricks that are too far apart in z lies a spacer, which takes the force.
    """
    return {axis: _locked(axis, count, seed, pitch, SnapParameters()) for axis in axes}


def snap_control(count: int = 100, seed: int = 0, pitch: float = PITCH) -> dict[str, int]:
    """The presses of :func:`snap_false` with the one gate twice as wide, which all lock: nothing else was wrong.

    Without z, where no force reaches the bricks.
    """
    gates = SnapParameters()
    found = {}
    for axis, gate in _GATES.items():
        if axis != "z":
            found[axis] = _locked(axis, count, seed, pitch, replace(gates, **{gate: 2 * getattr(gates, gate)}))
    found["force"] = _locked("force", count, seed, pitch, replace(gates, press=gates.press / 2))
    return found


def _locked(axis: str, count: int, seed: int, pitch: float, parameters: SnapParameters) -> int:
    gates, rng, found = SnapParameters(), np.random.default_rng((seed, AXES.index(axis))), 0
    sizes = {name: getattr(gates, gate) for name, gate in _GATES.items()}
    for name in ("x", "y", "z"):
        sizes[name] *= pitch
    for _ in range(count):
        pair, sign = random_pair(rng), 1 if axis == "z" else int(rng.choice((-1, 1)))
        error = Error() if axis == "force" else Error(**{axis: sign * _TOO_FAR * sizes[axis]})
        stand = Stand(pair, error, pitch, parameters)
        stand.push((_TOO_WEAK if axis == "force" else _FORCE) * gates.press * pair.studs)
        found += stand.snapping.locked > 0
    return found


@dataclass(frozen=True)
class Presses:
    """What came of pressing in the right place."""

    count: int
    attached: int
    residual_mm: float
    """The worst, after the carriage has left."""
    jump_mm: float
    """The largest move of a free brick in one substep beyond its speed before."""


def snap_true(count: int = 100, seed: int = 0, pitch: float = PITCH, share: float = 0.5) -> Presses:
    """Presses ``count`` random pairs face on face with 1.2 times the force, by a wrist that yields.

    Errors in the stud plane and in yaw are drawn up to ``share`` of their tolerance. What counts as attached still is
    when the carriage has let go and left.
    """
    gates = SnapParameters()
    rng = np.random.default_rng((seed, len(AXES)))
    attached, residual, jump = 0, 0.0, 0.0
    for _ in range(count):
        pair = random_pair(rng)
        planar = share * gates.planar * pitch * rng.random() ** 0.5
        way, yaw = rng.uniform(0, 2 * math.pi), rng.uniform(-share, share) * gates.yaw
        stand = Stand(pair, Error(planar * math.cos(way), planar * math.sin(way), yaw=float(yaw)), pitch, wrist=WRIST)
        stand.push(_FORCE * gates.press * pair.studs)
        stand.leave()
        attached += stand.attached
        residual = max(residual, stand.residual_mm() if stand.attached else 0.0)
        jump = max(jump, stand.jumps.worst_mm)
    return Presses(count, attached, residual, jump)


@dataclass(frozen=True)
class Releases:
    """Measured over set, for each kind of load and pair."""

    pull: dict[str, float]
    peel: dict[str, float]
    jump_mm: float

    @property
    def worst(self) -> float:
        """The largest deviation from 1."""
        return max(abs(ratio - 1) for ratio in (*self.pull.values(), *self.peel.values()))


def snap_release(pitch: float = PITCH) -> Releases:
    """Pulls, and turns about both axes, attached pairs of 1 to 8 engaged studs until they let go.

    The set force is the studs' pull; the set torque that which the studs and the brick's weight hold against about the
    edge of the engaged rectangle.
    """
    pull, peel, jump = {}, {}, 0.0
    for pair in _CENTRED:
        name = f"{pair.upper.nx}x{pair.upper.ny} on {pair.lower.nx}x{pair.lower.ny}"
        strength = pair.studs * SnapParameters().pull
        stand = Stand(pair, pitch=pitch, wrist=WRIST, attached=True)
        pull[name] = (stand.load("z", 1.5 * strength) - stand.weight) / strength
        jump = max(jump, stand.jumps.worst_mm)
        turned = pair.upper.footprint(pair.seat.turns)
        sides = [min(a, b) * pitch for a, b in zip(turned, (pair.lower.nx, pair.lower.ny), strict=True)]
        for hinge, side in zip(("roll", "pitch"), reversed(sides), strict=True):
            stand = Stand(pair, pitch=pitch, wrist=FREE, attached=True)
            torque = (strength + stand.weight) * side / 2
            peel[f"{name}, {hinge}"] = stand.load(hinge, 1.5 * torque) / torque
            jump = max(jump, stand.jumps.worst_mm)
    return Releases(pull, peel, jump)


@dataclass(frozen=True)
class Tower:
    """What became of bricks stacked loosely, pressed together from above, and left alone."""

    joined: int
    """Connections after the press."""
    held: int
    """Connections at the end."""
    lean_mm: float
    """How far the top brick is at the end from straight above the lowest one, at the grid's height."""
    jump_mm: float

    @property
    def stands(self) -> bool:
        return self.joined == self.held and self.lean_mm < 1


def tower(bricks: int = 10, seconds: float = 10.0, seed: int = 0, pitch: float = PITCH) -> Tower:
    """Stacks 2x4 bricks up to 0.4 mm and 2 degrees off on the floor, presses on the top one, and waits."""
    rng, size = np.random.default_rng((seed, len(AXES) + 1)), KINDS["2x4"]
    spec, height = scene(), BRICK_HEIGHT * pitch
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1])
    for level in range(bricks):
        x, y = rng.uniform(-0.025, 0.025, 2) * pitch
        half = rng.uniform(-1, 1) * math.radians(1)
        turn = (math.cos(half), 0.0, 0.0, math.sin(half))
        add_brick(spec, f"brick_{level}", size, "red", pitch, (x, y, (level + 0.5) * height), turn)
    add_plunger(spec, "plunger", (0, 0, bricks * height + 0.001), (size.nx * pitch / 2, size.ny * pitch / 2))
    prepare(spec)
    model = spec.compile()
    data, snapping, jumps = mujoco.MjData(model), Snapping(model), Jumps()
    snapping.reset(data)
    needed = _FORCE * SnapParameters().press * size.studs
    for force, lasts in ((0.0, 0.1), (-needed, 0.4), (5.0, 0.1)):
        data.ctrl[0] = force
        jumps.step(snapping, data, round(lasts / model.opt.timestep))
    joined = len(snapping.connections)
    snapping.step(data, round(seconds / model.opt.timestep))
    lowest, highest = data.qpos[snapping.bricks[0].qpos :][:3], data.qpos[snapping.bricks[-1].qpos :][:3]
    lean = 1e3 * float(np.linalg.norm(highest - lowest - (0, 0, (bricks - 1) * height)))
    return Tower(joined, len(snapping.connections), lean, jumps.worst_mm)
