"""Table, robot, bricks, lights and cameras as one compiled model, and where in it everything is.

A model is compiled once per process for each task and robot, and copied for each environment: what differs between
episodes (colours, light, friction, masses, camera poses) is written into the copy.
"""

import copy
from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

from tandem_sim.bricks.parameters import BRICK_HEIGHT, PLATE_HEIGHT, BrickSize
from tandem_sim.bricks.shapes import add_baseplate, add_brick, bricks_of, prepare
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.cameras import FOVY_DEG
from tandem_sim.h1.settings import CAMERAS, MAX_IMAGE_PX
from tandem_sim.h1.state import add_sensors
from tandem_sim.h1.unitree import PELVIS_HEIGHT

TABLE_TOP = PELVIS_HEIGHT + 0.10  # m above the floor
TABLE_HALF = (0.19, 0.50, 0.015)  # m
TABLE_X = 0.36  # m, of its middle
PLATE = "plate"

EYE, LOOKED_AT = (0.88, 0.0, 1.76), (0.27, 0.0, 1.16)  # m, of the camera ``front``
_TABLE_RGBA = (0.56, 0.53, 0.48, 1.0)
_FLOOR_RGBA = (0.30, 0.32, 0.35, 1.0)
_LEG_RGBA = (0.30, 0.30, 0.32, 1.0)

# ids of things in segmentation pictures; brick k has BRICK_ID + k
TABLE_ID, ROBOT_ID, PLATE_ID, BRICK_ID = 1, 2, 3, 10


@dataclass(frozen=True)
class Parts:
    """What a scene holds beside robot and table."""

    robot: str
    sizes: tuple[BrickSize, ...]  # by slot
    plate: BrickSize | None
    plate_at: tuple[float, float]  # m, of its middle
    pitch: float  # m


@dataclass(frozen=True, eq=False)
class Scene:
    """A compiled model and addresses in it. ``key`` stands for its structure."""

    key: Parts
    model: mujoco.MjModel  # not to be changed: copy it
    brick_qpos: int  # address of the first brick's pose; seven numbers a brick, slot after slot
    brick_dof: int  # address of the first brick's velocity; six numbers a brick
    tcp_sites: tuple[int, ...]  # left, right
    cameras: dict[str, int]
    brick_geoms: tuple[tuple[int, int], ...]  # box and studs by slot
    brick_bodies: tuple[int, ...]
    table_geom: int
    robot_geoms: np.ndarray  # ids
    segments: np.ndarray  # (ngeom,) uint16

    def copy(self) -> mujoco.MjModel:
        """A model of one's own."""
        return copy.copy(self.model)


def brick_name(slot: int) -> str:
    """The body of a brick."""
    return f"brick_{slot}"


@lru_cache(maxsize=16)
def build(parts: Parts) -> Scene:
    """Compiles the scene; raises TandemError if the robot cannot be had."""
    spec = h1.robot_spec(parts.robot)
    robot_bodies = {body.name for body in spec.bodies} - {"world"}
    _quality(spec)
    _room(spec)
    _front_camera(spec)
    colours = ((0.5, 0.5, 0.5, 1.0),) * len(parts.sizes)
    for slot, (size, colour) in enumerate(zip(parts.sizes, colours, strict=True)):
        away = (0.5, -0.4 + 0.1 * slot, TABLE_TOP + BRICK_HEIGHT * parts.pitch / 2)
        add_brick(spec, brick_name(slot), size, colour, parts.pitch, away)
    if parts.plate is not None:
        lies = (*parts.plate_at, TABLE_TOP + PLATE_HEIGHT * parts.pitch / 2)
        add_baseplate(spec, PLATE, parts.plate, pitch=parts.pitch, pos=lies)
    prepare(spec)
    add_sensors(spec)
    model = spec.compile()
    for name in CAMERAS:
        model.camera(name).fovy = FOVY_DEG[name]
    return _scene(parts, model, robot_bodies)


def _quality(spec: mujoco.MjSpec) -> None:
    visual = spec.visual
    visual.quality.offsamples = 0
    visual.quality.numslices, visual.quality.numstacks = 8, 4  # of spheres, capsules and cylinders
    visual.quality.numquads = 1
    visual.global_.offwidth = visual.global_.offheight = MAX_IMAGE_PX
    visual.headlight.ambient = (0.42, 0.42, 0.42)
    visual.headlight.diffuse = (0.0, 0.0, 0.0)  # MuJoCo aims it by the camera of the picture before
    visual.headlight.specular = (0.0, 0.0, 0.0)
    visual.map.znear, visual.map.zfar = 0.01, 10.0
    spec.stat.extent, spec.stat.center = 1.0, (0.3, 0.0, 1.1)


def _room(spec: mujoco.MjSpec) -> None:
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world = spec.worldbody
    world.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=(-0.35, 0.25, -1.0), castshadow=False,
        diffuse=(0.62, 0.62, 0.60), specular=(0.05, 0.05, 0.05), ambient=(0, 0, 0),
    )  # fmt: skip
    world.add_light(
        name="fill", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=(-0.7, -0.3, -0.6), castshadow=False,
        diffuse=(0.15, 0.15, 0.15), specular=(0, 0, 0), ambient=(0, 0, 0),
    )  # fmt: skip
    world.add_geom(name="floor", type=plane, size=(3, 3, 0.1), rgba=_FLOOR_RGBA)
    middle = (TABLE_X, 0.0, TABLE_TOP - TABLE_HALF[2])
    world.add_geom(name="table", type=box, size=TABLE_HALF, pos=middle, rgba=_TABLE_RGBA, friction=(0.6, 0.005, 0.0001))
    tall = (TABLE_TOP - 2 * TABLE_HALF[2]) / 2
    for side in (-1, 1):
        world.add_geom(
            name=f"table_leg_{side}", type=box, size=(0.02, 0.02, tall), pos=(TABLE_X + 0.17, side * 0.5, tall),
            rgba=_LEG_RGBA, contype=0, conaffinity=0,
        )  # fmt: skip


def _front_camera(spec: mujoco.MjSpec) -> None:
    eye, target = np.array(EYE), np.array(LOOKED_AT)
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, np.cross(back, right), back]).ravel())
    spec.worldbody.add_camera(name="front", pos=EYE, quat=quat, fovy=FOVY_DEG["front"])


def _scene(parts: Parts, model: mujoco.MjModel, robot_bodies: set[str]) -> Scene:
    bricks = [brick for brick in bricks_of(model) if not brick.fixed]
    assert [brick.name for brick in bricks] == [brick_name(slot) for slot in range(len(parts.sizes))]
    assert [brick.qpos - bricks[0].qpos for brick in bricks] == [7 * slot for slot in range(len(bricks))]
    assert [brick.dof - bricks[0].dof for brick in bricks] == [6 * slot for slot in range(len(bricks))]
    robot_ids = [model.body(name).id for name in sorted(robot_bodies)]
    robot_geoms = np.flatnonzero(np.isin(model.geom_bodyid, robot_ids))
    segments = np.zeros(model.ngeom, np.uint16)
    segments[robot_geoms] = ROBOT_ID
    for geom in range(model.ngeom):
        if model.geom(geom).name.startswith("table"):
            segments[geom] = TABLE_ID
    for slot, brick in enumerate(bricks):
        segments[model.geom_bodyid == brick.body] = BRICK_ID + slot
    if parts.plate is not None:
        segments[model.geom_bodyid == model.body(PLATE).id] = PLATE_ID
    return Scene(
        key=parts,
        model=model,
        brick_qpos=bricks[0].qpos,
        brick_dof=bricks[0].dof,
        tcp_sites=tuple(model.site(f"{arm}_tcp").id for arm in h1.ARMS),
        cameras={name: model.camera(name).id for name in CAMERAS},
        brick_geoms=tuple((brick.geom, model.geom(f"{brick.name}/studs").id) for brick in bricks),
        brick_bodies=tuple(brick.body for brick in bricks),
        table_geom=model.geom("table").id,
        robot_geoms=robot_geoms,
        segments=segments,
    )
