"""Bricks as MuJoCo bodies: a solid box that collides, studs that are only seen, and the welds of all pairs.

What a model says about its bricks it carries itself, in one custom numeric ``brick/<name>`` a brick; :func:`bricks_of`
reads them back from any compiled model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_sim.bricks.parameters import (
    GAP,
    LEGO_PITCH,
    PITCH,
    SEAM,
    STUD_DIAMETER,
    STUD_HEIGHT,
    BrickSize,
)

KINDS: dict[str, BrickSize] = {
    **{f"{nx}x{ny}": BrickSize(nx, ny) for nx, ny in ((1, 2), (1, 4), (2, 2), (2, 3), (2, 4))},
    "baseplate 8x8": BrickSize(8, 8, plate=True),
    "baseplate 16x16": BrickSize(16, 16, plate=True),
}
COLOURS: dict[str, tuple[float, float, float, float]] = {
    "red": (0.80, 0.05, 0.05, 1),
    "blue": (0.05, 0.20, 0.80, 1),
    "green": (0.05, 0.50, 0.12, 1),
    "yellow": (0.98, 0.82, 0.05, 1),
    "orange": (0.98, 0.42, 0.02, 1),
    "white": (0.95, 0.95, 0.95, 1),
    "black": (0.06, 0.06, 0.07, 1),
    "purple": (0.45, 0.10, 0.60, 1),
}
PLATE_COLOUR = (0.55, 0.57, 0.58, 1.0)
FRICTION = (0.5, 0.005, 0.0001)  # slide, spin (m), roll (m); ABS on ABS slides at 0.4 to 0.5; ours
_MASSES = {(1, 2): 0.81, (1, 4): 1.57, (2, 2): 1.15, (2, 3): 1.66, (2, 4): 2.16}  # g at LEGO's scale; BrickSim, who
# weighed them; 2x3 is the mean of its neighbours
# Stiff: with MuJoCo's own values 3 N drive a gram-scale brick through another; much stiffer, contacts rattle.
_SOLREF, _SOLIMP = (0.01, 1.0), (0.999, 0.9999, 0.0001, 0.5, 2.0)
_WELD_SOLREF, _WELD_SOLIMP = (0.004, 1.0), (0.9999, 0.9999, 0.001, 0.5, 2.0)
_PREFIX, _WELD = "brick/", "snap/"


@dataclass(frozen=True)
class Brick:
    """A brick of a compiled model."""

    name: str
    size: BrickSize
    pitch: float
    body: int
    geom: int
    qpos: int
    """First of its seven positions (place, quaternion); -1 for one that stands fast."""
    dof: int
    """First of its six velocities; -1 for one that stands fast."""

    @property
    def fixed(self) -> bool:
        return self.qpos < 0


def size_of(name: str) -> BrickSize:
    """The size by name; raises TandemError for an unknown one."""
    if name not in KINDS:
        raise unknown("brick size", str(name), KINDS)
    return KINDS[name]


def rgba_of(colour: str | Sequence[float], where: str = "brick") -> tuple[float, ...]:
    """The colour by name, or four numbers from 0 to 1 as they are; raises TandemError for anything else."""
    if isinstance(colour, str):
        if colour not in COLOURS:
            raise unknown("brick colour", colour, COLOURS)
        return COLOURS[colour]
    rgba = tuple(colour)
    if len(rgba) != 4 or not all(0 <= part <= 1 for part in rgba):
        raise TandemError(f"{where}: colour {rgba} (allowed: a name, or four numbers from 0 to 1)")
    return rgba


def mass(size: BrickSize, pitch: float = PITCH) -> float:
    """Mass of the ABS part, kg: LEGO's, by the cube of the scale; plates by BrickSim's fit."""
    if not size.plate and tuple(sorted((size.nx, size.ny))) in _MASSES:
        grams = _MASSES[min(size.nx, size.ny), max(size.nx, size.ny)]
    elif size.plate:
        grams = 0.10937 * size.studs + 0.05671 * (size.nx + size.ny) - 0.02207
    else:
        grams = 0.1523 * size.studs + 0.2498 * (size.nx + size.ny) - 0.2485
    return grams / 1000 * (pitch / LEGO_PITCH) ** 3


def add_brick(
    spec: mujoco.MjSpec,
    name: str,
    size: str | BrickSize,
    colour: str | Sequence[float],
    pitch: float = PITCH,
    pos: Sequence[float] = (0, 0, 0),
    quat: Sequence[float] = (1, 0, 0, 0),
    fixed: bool = False,
) -> None:
    """Adds a brick: body ``name``, its box ``<name>/box`` and studs ``<name>/studs``, a free joint unless ``fixed``.

    Args:
        size: one of :data:`KINDS` or a size of your own.
        colour: one of :data:`COLOURS` or red, green, blue, alpha from 0 to 1.
        pitch: m between studs.
        pos: the middle of the box (studs not counted), m.

    Raises:
        TandemError: unknown size or colour, a name that is taken, a pitch beyond 4 to 64 mm, or unlike other bricks'.
    """
    where = f"brick '{name}'"
    shape = size_of(size) if isinstance(size, str) else size
    rgba = rgba_of(colour, where)
    if not name or "/" in name or spec.body(name) is not None:
        raise TandemError(f"{where}: the name is taken or no name (allowed: a new one without '/')")
    if not (isinstance(pitch, int | float) and 0.004 <= pitch <= 0.064):
        raise TandemError(f"{where}: pitch {pitch} m (allowed: 0.004 to 0.064)")
    others = {float(other.data[2]) for other in spec.numerics if other.name.startswith(_PREFIX)}
    if others - {float(pitch)}:
        raise TandemError(f"{where}: pitch {pitch:g} m beside {others.pop():g} m (allowed: one pitch in a scene)")
    half = [
        (shape.nx - GAP) * pitch / 2,
        (shape.ny - GAP) * pitch / 2,
        (shape.height - SEAM) * pitch / 2,
    ]
    body = spec.worldbody.add_body(name=name, pos=list(pos), quat=list(quat))
    if not fixed:
        body.add_freejoint(name=name)
    body.add_geom(
        name=f"{name}/box", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, mass=mass(shape, pitch), rgba=list(rgba),
        friction=list(FRICTION), condim=3, priority=1, solref=list(_SOLREF), solimp=list(_SOLIMP),
    )  # fmt: skip
    body.add_geom(
        name=f"{name}/studs", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=_studs(spec, shape, pitch), mass=0,
        contype=0, conaffinity=0, group=2, rgba=list(rgba),
    )  # fmt: skip
    spec.add_numeric(name=_PREFIX + name, data=[shape.nx, shape.ny, pitch, float(shape.plate)])


def add_baseplate(
    spec: mujoco.MjSpec,
    name: str,
    size: str | BrickSize = "baseplate 8x8",
    colour: str | Sequence[float] = PLATE_COLOUR,
    pitch: float = PITCH,
    pos: Sequence[float] = (0, 0, 0),
    quat: Sequence[float] = (1, 0, 0, 0),
    fixed: bool = True,
) -> None:
    """Adds a baseplate, held fast to the world unless told otherwise; arguments and errors as :func:`add_brick`."""
    add_brick(spec, name, size, colour, pitch, pos, quat, fixed)


def prepare(spec: mujoco.MjSpec) -> None:
    """Allocates an inactive weld for each pair of bricks that can ever be joined; once, before compiling."""
    found = [(item.name.removeprefix(_PREFIX), item.data) for item in spec.numerics if item.name.startswith(_PREFIX)]
    loose = {name for name, _ in found if spec.body(name).joints}
    for at, (name, data) in enumerate(found):
        for other, other_data in found[at + 1 :]:
            if (data[3] and other_data[3]) or not {name, other} & loose:
                continue
            spec.add_equality(
                name=f"{_WELD}{name}/{other}", type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY,
                name1=name, name2=other, active=False, solref=list(_WELD_SOLREF), solimp=list(_WELD_SOLIMP),
            )  # fmt: skip


def bricks_of(model: mujoco.MjModel) -> tuple[Brick, ...]:
    """The bricks of a compiled model, in the order in which they were added."""
    found = []
    for at in range(model.nnumeric):
        numeric = model.numeric(at)
        if not numeric.name.startswith(_PREFIX):
            continue
        name = numeric.name.removeprefix(_PREFIX)
        nx, ny, pitch, plate = numeric.data
        body = model.body(name)
        free = int(body.jntnum[0]) > 0
        joint = int(body.jntadr[0])
        size = BrickSize(int(nx), int(ny), bool(plate))
        qpos, dof = (int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])) if free else (-1, -1)
        found.append(Brick(name, size, float(pitch), int(body.id), model.geom(f"{name}/box").id, qpos, dof))
    return tuple(found)


def paint(model: mujoco.MjModel, name: str, colour: str | Sequence[float]) -> None:
    """Gives a brick of a compiled model another colour; errors as :func:`add_brick`."""
    rgba = rgba_of(colour, f"brick '{name}'")
    for part in ("box", "studs"):
        model.geom(f"{name}/{part}").rgba[:] = rgba


def welds_of(model: mujoco.MjModel, bricks: Sequence[Brick]) -> dict[tuple[int, int], int]:
    """The equality of each pair of bricks, by their places in ``bricks``, first body first."""
    place = {brick.name: at for at, brick in enumerate(bricks)}
    found = {}
    for at in range(model.neq):
        name = model.equality(at).name
        if name.startswith(_WELD):
            first, second = name.removeprefix(_WELD).split("/")
            found[place[first], place[second]] = at
    return found


def _studs(spec: mujoco.MjSpec, size: BrickSize, pitch: float, sides: int = 8) -> str:
    """The mesh of all studs of a size, made on first use: one thing to draw instead of up to 256."""
    name = f"studs {size.nx}x{size.ny}{' plate' if size.plate else ''} {pitch:g}"
    if spec.mesh(name) is not None:
        return name
    angles = (np.arange(sides) + 0.5) * (2 * math.pi / sides)
    ring = STUD_DIAMETER / 2 / math.cos(math.pi / sides) ** 0.5 * np.stack([np.cos(angles), np.sin(angles)], 1)
    foot, top = size.height / 2 - 0.02, size.height / 2 + STUD_HEIGHT
    one = np.concatenate([np.c_[ring, np.full(sides, foot)], np.c_[ring, np.full(sides, top)], [[0, 0, top]]])
    faces = []
    for side in range(sides):
        after = (side + 1) % sides
        faces += [[side, after, sides + after], [side, sides + after, sides + side]]
        faces += [[sides + side, sides + after, 2 * sides]]
    cells = np.array(
        [[i + 0.5 - size.nx / 2, j + 0.5 - size.ny / 2, 0] for i in range(size.nx) for j in range(size.ny)]
    )
    vertices = (one[None] + cells[:, None]) * pitch
    triangles = np.array(faces)[None] + len(one) * np.arange(len(cells))[:, None, None]
    mesh = spec.add_mesh(name=name, uservert=vertices.ravel().tolist(), userface=triangles.ravel().tolist())
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    return name
