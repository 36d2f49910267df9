"""The Unitree H1 in numbers, drawn with primitives.

Kinematics, masses, inertias, joint limits, damping and rotor inertia are those that Unitree publishes in its MJCF of
the H1 (``h1.xml`` of unitree_ros and of MuJoCo Menagerie, BSD-3-Clause, Copyright (c) 2016-2023 HangZhou YuShu
TECHNOLOGY CO.,LTD. "Unitree Robotics"); torque and speed limits those of its URDF of the same robot. The shapes are
ours, made to the extents of its meshes.
"""

import math
from dataclasses import replace

from tandem_sim.h1.links import Hinge, Link, Shape, Vector

PELVIS_HEIGHT = 0.98  # m above the floor: where Unitree's standing pose puts it
ARMS = ("left", "right")
ARM_JOINTS = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")
UPPER_JOINTS = ("torso", *(f"{arm}_{joint}" for arm in ARMS for joint in ARM_JOINTS))
LEG_JOINTS = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")
STANDING = {"hip_pitch": -0.4, "knee": 0.8, "ankle": -0.4}  # rad, Unitree's "home" key; the others 0

DARK: Vector = (0.13, 0.13, 0.14, 1.0)
GREY: Vector = (0.42, 0.43, 0.45, 1.0)
VISOR: Vector = (0.03, 0.03, 0.04, 1.0)

_TILT = (0.976296, 0.216438, 0.0, 0.0)  # 25 degrees about x, of the shoulder's pitch axis
_LEVEL = (0.976296, -0.216438, 0.0, 0.0)
_Y = (0.7071068, -0.7071068, 0.0, 0.0)  # a cylinder's z along the link's y


def links() -> tuple[Link, ...]:
    """Every link of the H1, parents first; the legs fixed in the standing pose."""
    half = (*_LEFT_LEG, *_LEFT_ARM)
    return (_PELVIS, _TORSO, *half, *(_mirrored(link) for link in half))


def _leg(joint: str) -> Vector:
    """The orientation that fixes a leg's joint, all of which that bend turn about y, in the standing pose."""
    angle = STANDING.get(joint, 0.0)
    return (math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0)


def _mirrored(link: Link) -> Link:
    """The right side's link for the left side's."""

    def point(value: Vector) -> Vector:
        return (value[0], -value[1], value[2])

    def turn(value: Vector) -> Vector:
        return (value[0], -value[1], value[2], -value[3])

    def name(value: str) -> str:
        return value.replace("left", "right")

    joint = link.joint
    if joint is not None:
        swapped = joint.axis[1] == 0  # about x or z, left and right turn against each other
        low, high = (-joint.high, -joint.low) if swapped else (joint.low, joint.high)
        joint = replace(joint, name=name(joint.name), low=low, high=high)
    shapes = tuple(
        replace(
            shape,
            pos=point(shape.pos),
            quat=turn(shape.quat),
            between=shape.between and (point(shape.between[0]), point(shape.between[1])),
        )
        for shape in link.shapes
    )
    return replace(
        link,
        name=name(link.name),
        parent=name(link.parent),
        pos=point(link.pos),
        quat=turn(link.quat),
        com=point(link.com),
        inertia_quat=turn(link.inertia_quat),
        joint=joint,
        shapes=shapes,
        arm=name(link.arm),
    )


_PELVIS = Link(
    "pelvis",
    "",
    (0.0, 0.0, PELVIS_HEIGHT),
    (1.0, 0.0, 0.0, 0.0),
    mass=5.39,
    com=(-0.0002, 4e-05, -0.04522),
    inertia=(0.0490211, 0.0445821, 0.00824619),
    inertia_quat=(0.498303, 0.499454, -0.500496, 0.501741),
    shapes=(
        Shape("capsule", (0.058,), between=((0.0, -0.095, -0.035), (0.0, 0.095, -0.035)), rgba=DARK),
        Shape("cylinder", (0.06,), between=((0.0, 0.0875, -0.23), (0.0, 0.0875, -0.05)), rgba=GREY),
        Shape("cylinder", (0.06,), between=((0.0, -0.0875, -0.23), (0.0, -0.0875, -0.05)), rgba=GREY),
    ),
)

_TORSO = Link(
    "torso_link",
    "pelvis",
    (0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0),
    mass=17.789,
    com=(0.000489, 0.002797, 0.20484),
    inertia=(0.487315, 0.409628, 0.127837),
    inertia_quat=(0.999989, -0.00130808, -0.00282289, -0.00349105),
    joint=Hinge("torso", (0.0, 0.0, 1.0), -2.35, 2.35, torque=200.0, speed=23.0),
    shapes=(
        Shape("box", (0.071, 0.1, 0.235), pos=(0.0, 0.0, 0.24), rgba=DARK, collides=True),
        Shape("box", (0.003, 0.07, 0.05), pos=(0.071, 0.0, 0.36), rgba=GREY),
        Shape("capsule", (0.05,), between=((0.0, -0.12, 0.43), (0.0, 0.12, 0.43)), rgba=DARK),
        Shape("capsule", (0.016,), between=((-0.025, 0.0, 0.47), (0.01, 0.05, 0.6)), rgba=GREY),
        Shape("capsule", (0.016,), between=((-0.025, 0.0, 0.47), (0.01, -0.05, 0.6)), rgba=GREY),
        Shape("capsule", (0.074,), between=((0.02, 0.0, 0.678), (0.045, 0.0, 0.672)), rgba=DARK),
        Shape("capsule", (0.05,), between=((0.07, 0.0, 0.605), (0.068, 0.0, 0.67)), rgba=VISOR),
    ),
)

_LEFT_LEG = (
    Link(
        "left_hip_yaw_link",
        "pelvis",
        (0.0, 0.0875, -0.1742),
        _leg("hip_yaw"),
        mass=2.244,
        com=(-0.04923, 0.0001, 0.0072),
        inertia=(0.00304494, 0.00296885, 0.00189201),
        inertia_quat=(0.69699, 0.219193, 0.233287, 0.641667),
        shapes=(Shape("cylinder", (0.058,), between=((-0.09, 0.0, 0.0), (0.05, 0.0, 0.0)), rgba=DARK),),
    ),
    Link(
        "left_hip_roll_link",
        "left_hip_yaw_link",
        (0.039468, 0.0, 0.0),
        _leg("hip_roll"),
        mass=2.232,
        com=(-0.0058, -0.00319, -9e-05),
        inertia=(0.00243264, 0.00225325, 0.00205492),
        inertia_quat=(0.0438242, 0.70721, -0.0729075, 0.701867),
        shapes=(Shape("cylinder", (0.056,), between=((0.0, -0.05, 0.0), (0.0, 0.055, 0.0)), rgba=GREY),),
    ),
    Link(
        "left_hip_pitch_link",
        "left_hip_roll_link",
        (0.0, 0.11536, 0.0),
        _leg("hip_pitch"),
        mass=4.152,
        com=(0.00746, -0.02346, -0.08193),
        inertia=(0.0829503, 0.0821457, 0.00510909),
        inertia_quat=(0.979828, 0.0513522, -0.0169854, -0.192382),
        shapes=(
            Shape("cylinder", (0.06,), between=((0.0, -0.09, 0.0), (0.0, 0.025, 0.0)), rgba=GREY),
            Shape("capsule", (0.055,), between=((0.0, -0.01, -0.03), (0.0, 0.0, -0.37)), rgba=DARK),
        ),
    ),
    Link(
        "left_knee_link",
        "left_hip_pitch_link",
        (0.0, 0.0, -0.4),
        _leg("knee"),
        mass=1.721,
        com=(-0.00136, -0.00512, -0.1384),
        inertia=(0.0125237, 0.0123104, 0.0019428),
        inertia_quat=(0.626132, -0.034227, -0.0416277, 0.777852),
        shapes=(
            Shape("cylinder", (0.05,), between=((0.0, -0.045, 0.0), (0.0, 0.035, 0.0)), rgba=GREY),
            Shape("capsule", (0.042,), between=((0.0, 0.0, -0.03), (0.0, 0.0, -0.36)), rgba=DARK),
        ),
    ),
    Link(
        "left_ankle_link",
        "left_knee_link",
        (0.0, 0.0, -0.4),
        _leg("ankle"),
        mass=0.552448,
        com=(0.048568, 0.0, -0.045609),
        inertia=(0.00362, 0.00355701, 0.000149987),
        inertia_quat=(0.489385, 0.510394, 0.510394, 0.489385),
        shapes=(
            Shape("box", (0.15, 0.03, 0.014), pos=(0.05, 0.0, -0.055), rgba=DARK),
            Shape("box", (0.03, 0.015, 0.035), pos=(0.0, 0.0, -0.02), rgba=GREY),
        ),
    ),
)

_LEFT_ARM = (
    Link(
        "left_shoulder_pitch_link",
        "torso_link",
        (0.0055, 0.15535, 0.42999),
        _TILT,
        mass=1.033,
        com=(0.005045, 0.053657, -0.015715),
        inertia=(0.00129936, 0.000987113, 0.000858198),
        inertia_quat=(0.814858, 0.579236, -0.0201072, -0.00936488),
        joint=Hinge("left_shoulder_pitch", (0.0, 1.0, 0.0), -2.87, 2.87, torque=40.0, speed=9.0),
        shapes=(Shape("cylinder", (0.04,), between=((0.0, 0.0, -0.005), (0.0, 0.085, -0.012)), rgba=GREY),),
        arm="left",
    ),
    Link(
        "left_shoulder_roll_link",
        "left_shoulder_pitch_link",
        (-0.0055, 0.0565, -0.0165),
        _LEVEL,
        mass=0.793,
        com=(0.000679, 0.00115, -0.094076),
        inertia=(0.00170388, 0.00158256, 0.00100336),
        inertia_quat=(0.732491, 0.00917179, 0.0766656, 0.676384),
        joint=Hinge("left_shoulder_roll", (1.0, 0.0, 0.0), -0.34, 3.11, torque=40.0, speed=9.0),
        shapes=(Shape("capsule", (0.046,), between=((0.0, 0.0, 0.0), (0.0, 0.0, -0.1)), rgba=DARK),),
        arm="left",
    ),
    Link(
        "left_shoulder_yaw_link",
        "left_shoulder_roll_link",
        (0.0, 0.0, -0.1343),
        (1.0, 0.0, 0.0, 0.0),
        mass=0.839,
        com=(0.01365, 0.002767, -0.16266),
        inertia=(0.00408038, 0.00370367, 0.000622687),
        inertia_quat=(0.703042, -0.0331229, -0.0473362, 0.708798),
        joint=Hinge("left_shoulder_yaw", (0.0, 0.0, 1.0), -1.3, 4.45, torque=18.0, speed=20.0),
        shapes=(
            Shape("capsule", (0.032,), between=((0.0, 0.0, -0.03), (0.012, 0.0, -0.19)), rgba=DARK, collides=True),
            Shape("cylinder", (0.042, 0.033), pos=(0.0185, 0.0, -0.198), quat=_Y, rgba=GREY),
        ),
        arm="left",
    ),
    Link(
        "left_elbow_link",
        "left_shoulder_yaw_link",
        (0.0185, 0.0, -0.198),
        (1.0, 0.0, 0.0, 0.0),
        mass=0.669,
        com=(0.15908, -0.000144, -0.015776),
        inertia=(0.00601829, 0.00600579, 0.000408305),
        inertia_quat=(0.0765232, 0.720327, 0.0853116, 0.684102),
        joint=Hinge("left_elbow", (0.0, 1.0, 0.0), -1.25, 2.61, torque=18.0, speed=20.0),
        shapes=(
            Shape("capsule", (0.029,), between=((0.02, 0.0, -0.012), (0.24, 0.0, -0.0185)), rgba=DARK, collides=True),
        ),
        arm="left",
    ),
)
