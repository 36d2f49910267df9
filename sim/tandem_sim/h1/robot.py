"""H1 + Tandem wrist and gripper as a MuJoCo model, and what everything else needs to know of it.

``robot_spec`` gives the robot alone: pelvis fixed, legs fixed in the standing pose, 15 hinges and two grippers, a
servo for each under the name of its action, TCP sites, cameras ``head``, ``left_wrist`` and ``right_wrist``. A scene is
made by adding to the returned spec.

The servos are MuJoCo's PID actuators: each has two inputs (position, velocity) in ``data.ctrl`` and two activation
states (the setpoint, which moves at a bounded rate, and the integral; a grip has no integral). Whoever commands them
does so through :class:`tandem_sim.h1.control.Servo`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from tandem_sim.h1 import unitree, wrist
from tandem_sim.h1.links import UPRIGHT, Hinge, Link, Shape, Surface, Vector, vector
from tandem_sim.h1.loading import links_of, menagerie_links
from tandem_sim.h1.unitree import ARMS

PRIMITIVES = "primitives"
MENAGERIE = "menagerie"

TIMESTEP = 0.002  # s

_ARM_JOINTS = (*unitree.ARM_JOINTS, "wrist_roll", "wrist_pitch", "tool_roll")
JOINTS: tuple[str, ...] = ("torso", *(f"{arm}_{joint}" for arm in ARMS for joint in _ARM_JOINTS))  # 15 hinges
ACTIONS: tuple[str, ...] = (
    "torso",
    *(f"{arm}_{part}" for arm in ARMS for part in (*_ARM_JOINTS, "grip")),
)  # 17, the order of joint targets and of the model's actuators
GRIPS = tuple(ACTIONS.index(f"{arm}_grip") for arm in ARMS)  # where the grips are among ACTIONS
HINGE_ACTIONS = tuple(index for index in range(len(ACTIONS)) if index not in GRIPS)  # where JOINTS are

# Elbows out, grippers open, pointing down at (0.30, +-0.18, 1.22) m, fingers opening to the side.
_HOME_ARM = {
    "shoulder_pitch": -0.5149,
    "shoulder_roll": 1.0416,
    "shoulder_yaw": -0.5906,
    "elbow": -0.7473,
    "wrist_roll": -1.2047,
    "wrist_pitch": 0.9967,
    "tool_roll": -1.1819,
    "grip": wrist.MAX_WIDTH,
}

# contype and conaffinity bits: 1 is the world (bricks, table), which collides with all of them
_LEFT, _RIGHT, _TRUNK = 2, 4, 8
COLLISIONS = {
    "left": wrist.Collisions(_LEFT, 1 | _RIGHT | _TRUNK),
    "right": wrist.Collisions(_RIGHT, 1 | _LEFT | _TRUNK),
    "": wrist.Collisions(_TRUNK, 1),
}

# Near Unitree's place of the head's D435 camera, just outside of our visor; turned down to the table (ours)
HEAD_CAMERA = (0.13, 0.0, 0.69317)  # m, in the torso's frame
HEAD_PITCH = 1.20  # rad down from level
HEAD_FOVY = 58.0  # degrees, as of a D435's depth image


@dataclass(frozen=True)
class Limits:
    """Bounds of the 17 actions, arrays (17,) in rad or m, of position and of speed per second, and torque or force."""

    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    effort: np.ndarray


def _hinges() -> dict[str, Hinge]:
    found = {link.joint.name: link.joint for link in unitree.links() if link.joint is not None}
    found |= {f"{arm}_{hinge.name}": hinge for arm in ARMS for hinge in wrist.HINGES}
    return found


def _limits() -> Limits:
    hinges = _hinges()
    grip = Hinge("grip", (0, 1, 0), 0.0, wrist.MAX_WIDTH, wrist.GRIP_FORCE, wrist.GRIP_SPEED)
    rows = [hinges.get(name, grip) for name in ACTIONS]
    return Limits(
        low=np.array([row.low for row in rows]),
        high=np.array([row.high for row in rows]),
        speed=np.array([row.speed for row in rows]),
        effort=np.array([row.torque for row in rows]),
    )


limits: Limits = _limits()


def _home() -> np.ndarray:
    home = np.zeros(len(ACTIONS))
    for index, name in enumerate(ACTIONS):
        arm, _, part = name.partition("_")
        if part:
            mirrored = arm == "right" and part in ("shoulder_roll", "shoulder_yaw", "wrist_roll", "tool_roll")
            home[index] = -_HOME_ARM[part] if mirrored else _HOME_ARM[part]
    home.flags.writeable = False
    return home


HOME: np.ndarray = _home()  # (17,) posture at the begin of an episode


def robot_spec(robot: str = PRIMITIVES) -> mujoco.MjSpec:
    """The robot alone, ready for a scene to be added.

    Args:
        robot: ``primitives``, ``menagerie`` (real meshes through the package ``mujoco_menagerie``) or the path of an
            H1's MJCF file.

    Raises:
        TandemError: the menagerie cannot be reached; a file that cannot be read, or lacks a joint.
    """
    spec = mujoco.MjSpec()
    spec.modelname = "h1_tandem"
    _set_options(spec)
    for link in _links(robot):
        _add_link(spec, link)
        if link.name == "torso_link":
            _add_head_camera(spec, link)
        elif link.name.endswith("_elbow_link"):
            place = _within(link, wrist.MOUNT, UPRIGHT)
            wrist.add_wrist(spec.body(link.name), link.arm, place, COLLISIONS[link.arm])
    for arm in ARMS:
        wrist.couple(spec, arm)
    _add_servos(spec)
    return spec


def _links(robot: str) -> tuple[Link, ...]:
    if robot == PRIMITIVES:
        return unitree.links()
    return menagerie_links() if robot == MENAGERIE else links_of(Path(robot))


def _set_options(spec: mujoco.MjSpec) -> None:
    """The physics that the whole scene is stepped with."""
    option = spec.option
    option.timestep = TIMESTEP
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10
    spec.compiler.degree = False
    spec.compiler.autolimits = True


def _add_link(spec: mujoco.MjSpec, link: Link) -> None:
    parent = spec.body(link.parent) if link.parent else spec.worldbody
    assert parent is not None, link.parent
    body = parent.add_body(
        name=link.name,
        pos=link.pos,
        quat=link.quat,
        mass=link.mass,
        ipos=link.com,
        inertia=link.inertia,
        iquat=link.inertia_quat,
        explicitinertial=True,
        gravcomp=1,
    )
    if link.joint is not None:
        wrist.add_hinge(body, link.joint, link.joint.name)
    for shape in link.shapes:
        _add_shape(body, shape, COLLISIONS[link.arm])
    for surface in link.surfaces:
        _add_surface(spec, body, surface)


_KINDS = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
}


def _add_shape(body: mujoco.MjsBody, shape: Shape, collisions: wrist.Collisions) -> None:
    size = [*shape.size, 0.0, 0.0][:3]
    place: dict[str, Any] = {"pos": shape.pos, "quat": shape.quat}
    if shape.between:
        place = {"fromto": [*shape.between[0], *shape.between[1]]}
    body.add_geom(
        type=_KINDS[shape.kind],
        size=size,
        rgba=shape.rgba,
        contype=collisions.contype if shape.collides else 0,
        conaffinity=collisions.conaffinity if shape.collides else 0,
        group=2 if shape.seen else 3,
        **place,
    )


def _add_surface(spec: mujoco.MjSpec, body: mujoco.MjsBody, surface: Surface) -> None:
    spec.add_mesh(
        name=surface.name,
        uservert=surface.vertices.ravel(),
        userface=surface.faces.ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # a thin plate has no volume
    )
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH, meshname=surface.name, rgba=surface.rgba, contype=0, conaffinity=0, group=2
    )


def _within(link: Link, pos: Vector, quat: Vector) -> tuple[Vector, Vector]:
    """A pose in Unitree's frame of a link, in the link's own frame."""
    place, turned = np.empty(3), np.empty(4)
    mujoco.mju_rotVecQuat(place, np.array(pos), np.array(link.frame_quat))
    mujoco.mju_mulQuat(turned, np.array(link.frame_quat), np.array(quat))
    return vector(place + np.array(link.frame_pos)), vector(turned)


def _add_head_camera(spec: mujoco.MjSpec, torso: Link) -> None:
    """A camera in the head that looks down at the table."""
    sin, cos = np.sin(HEAD_PITCH), np.cos(HEAD_PITCH)
    right, up, back = [0.0, -1.0, 0.0], [sin, 0.0, cos], [-cos, 0.0, sin]
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, up, back]).ravel())
    pos, turned = _within(torso, HEAD_CAMERA, vector(quat))
    spec.body(torso.name).add_camera(name="head", pos=pos, quat=turned, fovy=HEAD_FOVY)


@dataclass(frozen=True)
class Gains:
    """Of one servo: torque = stiffness * error + damping * error of speed + integral * error over time."""

    stiffness: float  # Nm/rad, or N/m
    damping: float  # Nm s/rad, or N s/m
    integral: float  # Nm/(rad s)


# Ours: a natural frequency near 50 rad/s at each joint's inertia in the working posture, and an integral that takes
# up a lasting load in about 0.2 s.
GAINS = {
    "torso": Gains(3000.0, 200.0, 12000.0),
    "shoulder_pitch": Gains(1000.0, 45.0, 5000.0),
    "shoulder_roll": Gains(1000.0, 45.0, 5000.0),
    "shoulder_yaw": Gains(600.0, 25.0, 3000.0),
    "elbow": Gains(600.0, 25.0, 3000.0),
    "wrist_roll": Gains(200.0, 5.0, 1000.0),
    "wrist_pitch": Gains(200.0, 5.0, 1000.0),
    "tool_roll": Gains(120.0, 3.0, 600.0),
    "grip": Gains(2500.0, 30.0, 0.0),
}
INTEGRAL_SHARE = 0.5  # of a joint's torque that the integral may take: it winds up no further


def _add_servos(spec: mujoco.MjSpec) -> None:
    for index, name in enumerate(ACTIONS):
        gains = GAINS[name if name == "torso" else name.partition("_")[2]]
        gripping = index in GRIPS
        actuator = spec.add_actuator(
            name=name,
            target=name,
            trntype=mujoco.mjtTrn.mjTRN_TENDON if gripping else mujoco.mjtTrn.mjTRN_JOINT,
        )
        actuator.set_to_pid(
            kp=gains.stiffness,
            kv=gains.damping,
            ki=gains.integral,
            imax=INTEGRAL_SHARE * limits.effort[index] / gains.integral if gains.integral else 0.0,
            slewmax=limits.speed[index],
        )
        actuator.forcelimited = True
        actuator.forcerange = [-limits.effort[index], limits.effort[index]]
        actuator.ctrllimited = True
        actuator.ctrlrange = [0.0, wrist.MAX_WIDTH] if gripping else spec.joint(name).range
