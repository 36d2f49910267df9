"""A bench to measure press fits on: a carriage with a vice that holds a free brick by friction and is moved by motors.

The carriage has six joints about the middle of its brick: three slides and three hinges along the brick's own axes as
it begins, with a motor on each and a spring on all but z, so that a force of -z presses the brick down. Gravity is
taken off the carriage, not off the bricks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_sim.bricks.parameters import GAP, PITCH, BrickSize

SLIDES, HINGES = ("x", "y", "z"), ("roll", "pitch", "yaw")
_MASS, _INERTIA = 0.3, 3e-4  # kg, kg m2
_JAW = 0.006  # m thick
_STIFF = {"solref": [0.004, 1.0], "solimp": [0.99, 0.999, 0.0001, 0.5, 2.0]}


@dataclass(frozen=True)
class Wrist:
    """Springs of a carriage."""

    slide: float
    """Of x and y, N/m; z has none."""
    hinge: float
    """Of roll, pitch and yaw, Nm/rad."""


FIRM, WRIST, FREE = Wrist(2000, 60), Wrist(300, 3), Wrist(0, 0)


def scene(timestep: float = 0.002) -> mujoco.MjSpec:
    """An empty scene with the solver settings of the H1 environments."""
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep, option.integrator = timestep, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10
    return spec


def add_carriage(
    spec: mujoco.MjSpec,
    name: str,
    size: BrickSize,
    pos: Sequence[float],
    quat: Sequence[float] = (1, 0, 0, 0),
    pitch: float = PITCH,
    wrist: Wrist = FIRM,
) -> None:
    """Adds a carriage whose vice holds a brick of ``size`` that begins with the pose ``pos``, ``quat`` (the brick's).

    Args:
        wrist: its springs.
    """
    body = spec.worldbody.add_body(name=name, pos=list(pos), quat=list(quat), gravcomp=1)
    body.mass, body.inertia, body.ipos = _MASS, [_INERTIA] * 3, [0, 0, 0]
    body.explicitinertial = True
    for at, axis in enumerate((*SLIDES, *HINGES)):
        slide = at < 3
        spring = 0.0 if axis == "z" else wrist.slide if slide else wrist.hinge
        inert = _MASS if slide else _INERTIA
        body.add_joint(
            name=f"{name}/{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE if slide else mujoco.mjtJoint.mjJNT_HINGE,
            axis=np.eye(3)[at % 3].tolist(), stiffness=[spring, 0, 0],
            damping=[2 * (spring * inert) ** 0.5 if spring else 20.0 if slide else 0.002, 0, 0],
        )  # fmt: skip
        spec.add_actuator(
            name=f"{name}/{axis}", trntype=mujoco.mjtTrn.mjTRN_JOINT, target=f"{name}/{axis}"
        ).set_to_motor()
    half = np.array([size.nx - GAP, size.ny - GAP, size.height]) * pitch / 2
    for side, jaw in ((-1, "fixed"), (1, "moving")):
        holder = body
        if side == 1:
            holder = body.add_body(name=f"{name}/jaw", gravcomp=1)
            holder.add_joint(
                name=f"{name}/jaw", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[-1, 0, 0], damping=[100, 0, 0], armature=0.5
            )
            spec.add_actuator(
                name=f"{name}/jaw", trntype=mujoco.mjtTrn.mjTRN_JOINT, target=f"{name}/jaw"
            ).set_to_motor()
        holder.add_geom(
            name=f"{name}/{jaw}", type=mujoco.mjtGeom.mjGEOM_BOX, size=[_JAW / 2, half[1] * 0.9, half[2] * 0.6],
            pos=[side * (half[0] + _JAW / 2), 0, half[2] * 0.4], mass=0.02, friction=[2.0, 0.005, 0.0001], condim=3,
            priority=2, rgba=[0.3, 0.3, 0.35, 1], **_STIFF,
        )  # fmt: skip


def add_plunger(spec: mujoco.MjSpec, name: str, pos: Sequence[float], half: Sequence[float]) -> None:
    """Adds a flat plunger that a motor moves along z: ``pos`` is the middle of its face, ``half`` its half sides, m."""
    body = spec.worldbody.add_body(name=name, pos=list(pos), gravcomp=1)
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1], damping=[20, 0, 0])
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=[*half, 0.01], pos=[0, 0, 0.01], mass=_MASS, friction=[0, 0, 0], **_STIFF
    )
    _add_motor(spec, name)


def drive(model: mujoco.MjModel, data: mujoco.MjData, name: str, grip: float = 60.0, **forces: float) -> None:
    """Sets the motors of a carriage: ``grip`` of the vice, N; slides N, hinges Nm; the rest 0."""
    for axis in (*SLIDES, *HINGES):
        data.actuator(f"{name}/{axis}").ctrl[0] = forces.get(axis, 0.0)
    data.actuator(f"{name}/jaw").ctrl[0] = grip


def _add_motor(spec: mujoco.MjSpec, joint: str) -> None:
    spec.add_actuator(name=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint).set_to_motor()
