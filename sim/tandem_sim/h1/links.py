"""What a robot body is made of, as plain numbers: the common ground of the H1 of primitives and of one from a file."""

from dataclasses import dataclass, field

import mujoco
import numpy as np

Vector = tuple[float, ...]
UPRIGHT: Vector = (1.0, 0.0, 0.0, 0.0)


def vector(values: np.ndarray) -> Vector:
    """An array as plain numbers."""
    return tuple(float(value) for value in values)


def matrix(quat: Vector | np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of a quaternion (w, x, y, z)."""
    flat = np.empty(9)
    mujoco.mju_quat2Mat(flat, np.array(quat, float))
    return flat.reshape(3, 3)


@dataclass(frozen=True)
class Hinge:
    """A hinge joint through its link's origin (or ``pos``)."""

    name: str
    axis: Vector  # in the link's frame
    low: float  # rad
    high: float  # rad
    torque: float  # Nm, largest
    speed: float  # rad/s, largest
    damping: float = 1.0  # Nm s/rad
    armature: float = 0.1  # kg m2, the rotor's inertia at the joint
    pos: Vector = (0.0, 0.0, 0.0)  # m, in the link's frame


@dataclass(frozen=True)
class Shape:
    """One geometric primitive in its link's frame.

    ``size``: half extents of a box; radius and half length (along z) of a cylinder or capsule; radius of a sphere;
    radii of an ellipsoid. ``between`` places a capsule or cylinder by its two ends instead of ``pos`` and ``quat``;
    then only the radius is read from ``size``.
    """

    kind: str  # box, cylinder, capsule, sphere, ellipsoid
    size: Vector  # m
    pos: Vector = (0.0, 0.0, 0.0)  # m
    quat: Vector = UPRIGHT
    between: tuple[Vector, Vector] | None = None
    rgba: Vector = (0.2, 0.2, 0.22, 1.0)
    collides: bool = False  # with the table, bricks, the torso and the other arm
    seen: bool = True


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh in its link's frame, only to be seen."""

    name: str
    vertices: np.ndarray  # (V, 3) float, m
    faces: np.ndarray  # (F, 3) int
    rgba: Vector


@dataclass(frozen=True, eq=False)
class Link:
    """One rigid body and the joint that moves it against its parent."""

    name: str
    parent: str  # "" for the pelvis
    pos: Vector  # m, in the parent's frame
    quat: Vector  # in the parent's frame
    mass: float  # kg
    com: Vector  # m, in the link's frame
    inertia: Vector  # kg m2, principal, about the centre of mass
    inertia_quat: Vector  # of the principal axes, in the link's frame
    joint: Hinge | None = None  # None: fixed
    shapes: tuple[Shape, ...] = ()
    surfaces: tuple[Surface, ...] = ()
    frame_pos: Vector = (0.0, 0.0, 0.0)  # m, of Unitree's frame of this link within the link's own frame
    frame_quat: Vector = UPRIGHT
    arm: str = field(default="")  # "left", "right" or ""
