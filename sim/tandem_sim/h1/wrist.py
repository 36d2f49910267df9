"""The Tandem wrist and gripper, which each forearm of the H1 carries in place of Unitree's ball hand.

A wrist of three hinges (roll about the forearm, pitch, roll of the tool) and a parallel gripper of two fingers on one
drive. It is ours; only the flange is Unitree's: where its H1 with hands has the hand's joint, about the same axis with
nearly the same range (0.2605 m from the elbow, +-3.05 rad in ``h1_with_hand.xml``).

Our sizing, in the class of what can be bought: joints as the wrists of a UR3e (12 Nm, 360 degrees/s); 1.37 kg in all,
of which the gripper 0.72 kg, as a Franka Hand (0.73 kg, 80 mm, 70 N) or a Robotiq 2F-85 (0.9 kg, 85 mm, 20 to 235 N, up
to 150 mm/s); pads of rubber on ABS with a friction coefficient of 1.2. Moments of inertia are those of evenly filled
shapes.
"""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_sim.h1.links import Hinge, Vector

MOUNT: Vector = (0.2605, 0.0, -0.0185)  # m, of the flange, in Unitree's elbow frame: x runs along the forearm
PITCH_AXIS = 0.0745  # m from the flange: the housing between them encloses the ball hand that meshes may show
CRANK = 0.8  # rad that the hand is bent down at pitch 0, as it works on a table
TOOL_AXIS = 0.035  # m from the pitch axis
TCP = 0.095  # m from the tool's frame: between the pads
PALM = 0.04  # m from the tool's frame: where the fingers begin
TIP = 0.007  # m that the fingertips reach beyond the TCP
MAX_WIDTH = 0.07  # m between the pads when open
GRIP_FORCE = 45.0  # N of each finger, largest
GRIP_SPEED = 0.15  # m/s of the width
PAD_FRICTION = (1.2, 0.005, 0.0001)  # sliding, torsional (m), rolling (m)

SPEED = 2 * math.pi  # rad/s of each hinge
HINGES = (
    Hinge("wrist_roll", (1.0, 0.0, 0.0), -3.0, 3.0, torque=12.0, speed=SPEED, damping=0.2, armature=0.02),
    Hinge("wrist_pitch", (0.0, 1.0, 0.0), -1.6, 1.6, torque=12.0, speed=SPEED, damping=0.2, armature=0.02),
    Hinge("tool_roll", (1.0, 0.0, 0.0), -3.0, 3.0, torque=12.0, speed=SPEED, damping=0.2, armature=0.02),
)

_DARK: Vector = (0.16, 0.16, 0.17, 1.0)
_METAL: Vector = (0.48, 0.51, 0.56, 1.0)  # between a white and a black brick
_RUBBER: Vector = (0.3, 0.3, 0.32, 1.0)
_TO_TCP: Vector = (0.5, 0.5, 0.5, 0.5)  # turns the tool's (y, z, x) into the TCP's (x, y, z)
_ALONG_X: Vector = (0.7071068, 0.0, 0.7071068, 0.0)  # a cylinder's z along x
_ALONG_Y: Vector = (0.7071068, -0.7071068, 0.0, 0.0)  # a cylinder's z along y

_BOX, _CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER


@dataclass(frozen=True)
class Collisions:
    """The bits by which a body part collides, as MuJoCo's ``contype`` and ``conaffinity``."""

    contype: int
    conaffinity: int


def add_wrist(forearm: mujoco.MjsBody, arm: str, mount: tuple[Vector, Vector], collisions: Collisions) -> None:
    """Adds wrist, gripper, wrist camera and TCP site of ``arm`` ("left", "right") to the body ``forearm``.

    Args:
        forearm: the elbow's body.
        arm: prefix of all names.
        mount: position and quaternion of the wrist's frame in the forearm's own frame; x along the forearm.
        collisions: of all parts.
    """
    bits = {"contype": collisions.contype, "conaffinity": collisions.conaffinity}
    roll = _body(forearm, f"{arm}_wrist_roll_link", mount, 0.35, (0.0315, 0.0, 0.0), (2.5e-4, 2.4e-4, 2.4e-4))
    _hinge(roll, arm, HINGES[0])
    roll.add_geom(type=_CYLINDER, size=[0.038, 0.0315, 0], pos=[0.0315, 0, 0], quat=_ALONG_X, rgba=_DARK, **bits)

    pitch = _body(
        roll,
        f"{arm}_wrist_pitch_link",
        ((PITCH_AXIS, 0, 0), (math.cos(CRANK / 2), 0, math.sin(CRANK / 2), 0)),
        0.3,
        (0.0, 0.0, 0.0),
        (6.9e-5, 6.6e-5, 6.9e-5),
    )
    _hinge(pitch, arm, HINGES[1])
    pitch.add_geom(type=_CYLINDER, size=[0.021, 0.019, 0], quat=_ALONG_Y, rgba=_METAL, **bits)

    tool = _body(
        pitch, f"{arm}_tool_link", ((TOOL_AXIS, 0, 0), None), 0.6, (0.022, 0.0, 0.002), (5.3e-4, 1.2e-4, 5.2e-4)
    )
    _hinge(tool, arm, HINGES[2])
    tool.add_geom(type=_CYLINDER, size=[0.023, 0.01, 0], quat=_ALONG_X, rgba=_DARK, **bits)
    tool.add_geom(type=_BOX, size=[0.015, 0.052, 0.018], pos=[0.025, 0, 0], rgba=_METAL, **bits)
    tool.add_geom(
        type=_BOX, size=[0.008, 0.014, 0.007], pos=[0.012, 0, 0.068], rgba=_DARK, contype=0, conaffinity=0, mass=0
    )
    tool.add_geom(
        type=_BOX, size=[0.006, 0.006, 0.024], pos=[0.012, 0, 0.042], rgba=_DARK, contype=0, conaffinity=0, mass=0
    )
    tool.add_site(name=f"{arm}_tcp", pos=[TCP, 0, 0], quat=_TO_TCP, size=[0.004, 0, 0], group=4, rgba=[1, 0, 0, 1])
    _add_camera(tool, arm)
    for side, sign in (("a", 1.0), ("b", -1.0)):
        _add_finger(tool, f"{arm}_finger_{side}", sign, bits)


def _body(parent: mujoco.MjsBody, name: str, place: tuple, mass: float, com: Vector, inertia: Vector) -> mujoco.MjsBody:
    pos, quat = place
    return parent.add_body(
        name=name,
        pos=pos,
        quat=quat or (1, 0, 0, 0),
        mass=mass,
        ipos=com,
        inertia=inertia,
        explicitinertial=True,
        gravcomp=1,
    )


def _hinge(body: mujoco.MjsBody, arm: str, hinge: Hinge) -> None:
    add_hinge(body, hinge, f"{arm}_{hinge.name}")


def add_hinge(body: mujoco.MjsBody, hinge: Hinge, name: str) -> None:
    """Adds ``hinge`` to ``body``; gravity compensation counts against its torque."""
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=hinge.axis,
        pos=hinge.pos,
        limited=True,
        range=[hinge.low, hinge.high],
        damping=[hinge.damping, 0, 0],
        armature=hinge.armature,
        actfrclimited=True,
        actfrcrange=[-hinge.torque, hinge.torque],
        actgravcomp=True,
    )


def _add_finger(tool: mujoco.MjsBody, name: str, sign: float, bits: dict) -> None:
    finger = tool.add_body(
        name=f"{name}_link",
        pos=[PALM, 0, 0],
        mass=0.06,
        ipos=[0.03, sign * 0.006, 0],
        inertia=[6e-6, 2.2e-5, 2.2e-5],
        explicitinertial=True,
        gravcomp=1,
    )
    finger.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, sign, 0],
        limited=True,
        range=[0, MAX_WIDTH / 2],
        damping=[4.0, 0, 0],
        armature=0.1,
    )
    reach = (TCP + TIP - PALM) / 2  # half of what stands out of the palm
    finger.add_geom(type=_BOX, size=[reach, 0.003, 0.009], pos=[reach, sign * 0.006, 0], rgba=_METAL, **bits)
    finger.add_geom(
        name=f"{name}_pad",
        type=_BOX,
        size=[0.014, 0.0015, 0.008],
        pos=[2 * reach - 0.014, sign * 0.0015, 0],
        rgba=_RUBBER,
        friction=PAD_FRICTION,
        condim=4,
        priority=1,
        solref=[0.004, 1],
        solimp=[0.99, 0.999, 0.0001, 0.5, 2],
        **bits,
    )


def couple(spec: mujoco.MjSpec, arm: str) -> None:
    """Puts both fingers of ``arm`` on one drive: a tendon as long as the width, and an equality too stiff to creep."""
    tendon = spec.add_tendon(name=f"{arm}_grip")
    tendon.wrap_joint(f"{arm}_finger_a", 1.0)
    tendon.wrap_joint(f"{arm}_finger_b", 1.0)
    spec.add_equality(
        name=f"{arm}_fingers",
        type=mujoco.mjtEq.mjEQ_JOINT,
        name1=f"{arm}_finger_a",
        name2=f"{arm}_finger_b",
        data=[0, 1, *[0] * 10],
        solref=[0.004, 1],
        solimp=[0.99, 0.999, 0.0001, 0.5, 2],
    )


def _add_camera(tool: mujoco.MjsBody, arm: str) -> None:
    """A camera on the tool that looks along the fingers at the TCP; up in its picture is away from the robot."""
    eye, target = np.array([0.02, 0.0, 0.07]), np.array([TCP + 0.03, 0.0, 0.008])
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.array([0.0, -1.0, 0.0])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, np.cross(back, right), back]).ravel())
    tool.add_camera(name=f"{arm}_wrist", pos=eye, quat=quat, fovy=75)
