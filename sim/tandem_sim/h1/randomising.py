"""What differs between episodes beside the layout: colours always, and what the settings let vary."""

import mujoco
import numpy as np

from tandem_sim.bricks.shapes import COLOURS
from tandem_sim.h1.scene import Scene
from tandem_sim.h1.settings import SUBSTEP_S, Randomise
from tandem_sim.h1.tasks.base import Layout

# at strength 1
LIGHT_RAD, LIGHT_SHARE = np.radians(30.0), 0.30
COLOUR = 0.08
CAMERA_M, CAMERA_RAD, CAMERA_FOV_SHARE = 0.015, np.radians(1.5), 0.03
FRICTION_SHARE = 0.25
MASS_SHARE = 0.25
LATENCY_S = 0.010


class Randomiser:
    """Writes an episode's draws into a copy of the scene's model.

    Args:
        scene: with the model as it is without any draw.
        model: the copy.
        strengths: how much of each kind.
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, strengths: Randomise) -> None:
        self._scene, self._model, self._strengths = scene, model, strengths
        self._moving = [camera for camera in scene.cameras.values()]
        bricks = list(scene.brick_bodies)
        pads = [g for g in scene.robot_geoms if model.geom(int(g)).name.endswith("_pad")]
        self._gripped = np.array([box for box, _ in scene.brick_geoms] + pads, int)
        self._bodies = np.array(bricks, int)

    def apply(self, rng: np.random.Generator, layout: Layout) -> int:
        """A new episode's; each kind draws alike whether or not the others are wanted.

        Returns:
            How many substeps the drives are late.
        """
        drawers = rng.spawn(6)
        self._paint(layout)
        if not self._strengths.any:
            return 0
        model, base, strengths = self._model, self._scene.model, self._strengths
        for rng_of, strength, draw in zip(
            drawers,
            (strengths.light, strengths.colour, strengths.camera, strengths.friction, strengths.mass),
            (self._light, self._colour, self._cameras, self._friction, self._mass),
            strict=False,
        ):
            if strength:
                draw(rng_of, strength, model, base)
        most = strengths.latency * LATENCY_S / SUBSTEP_S
        return int(drawers[5].integers(0, int(most) + 1)) if strengths.latency else 0

    def _paint(self, layout: Layout) -> None:
        rgba = self._model.geom_rgba
        for (box, studs), colour in zip(self._scene.brick_geoms, layout.colours, strict=True):
            rgba[box] = rgba[studs] = COLOURS[colour]

    def _light(self, rng: np.random.Generator, strength: float, model: mujoco.MjModel, base: mujoco.MjModel) -> None:
        sun = base.light("sun").id
        model.light_dir[sun] = _tilted(rng, base.light_dir[sun], strength * LIGHT_RAD)
        model.light_diffuse[sun] = base.light_diffuse[sun] * _share(rng, strength * LIGHT_SHARE)
        model.vis.headlight.ambient[:] = base.vis.headlight.ambient * _share(rng, strength * LIGHT_SHARE)

    def _colour(self, rng: np.random.Generator, strength: float, model: mujoco.MjModel, base: mujoco.MjModel) -> None:
        geoms = [self._scene.table_geom, *self._scene.robot_geoms]
        model.geom_rgba[geoms] = base.geom_rgba[geoms]
        for group in ([self._scene.table_geom], list(self._scene.robot_geoms), *map(list, self._scene.brick_geoms)):
            shift = rng.uniform(-1.0, 1.0, 3) * strength * COLOUR
            model.geom_rgba[group, :3] = np.clip(model.geom_rgba[group, :3] + shift, 0.0, 1.0)

    def _cameras(self, rng: np.random.Generator, strength: float, model: mujoco.MjModel, base: mujoco.MjModel) -> None:
        for camera in self._moving:
            model.cam_pos[camera] = base.cam_pos[camera] + rng.uniform(-1.0, 1.0, 3) * strength * CAMERA_M
            turn, quat = np.zeros(4), np.zeros(4)
            spin = rng.uniform(-1.0, 1.0, 3) * strength * CAMERA_RAD
            angle = float(np.linalg.norm(spin))
            mujoco.mju_axisAngle2Quat(turn, spin / max(angle, 1e-12), angle)
            mujoco.mju_mulQuat(quat, base.cam_quat[camera], turn)
            model.cam_quat[camera] = quat
            model.cam_fovy[camera] = base.cam_fovy[camera] * _share(rng, strength * CAMERA_FOV_SHARE)

    def _friction(self, rng: np.random.Generator, strength: float, model: mujoco.MjModel, base: mujoco.MjModel) -> None:
        for geom in self._gripped:
            model.geom_friction[geom] = base.geom_friction[geom] * _share(rng, strength * FRICTION_SHARE)

    def _mass(self, rng: np.random.Generator, strength: float, model: mujoco.MjModel, base: mujoco.MjModel) -> None:
        for body in self._bodies:
            share = _share(rng, strength * MASS_SHARE)
            model.body_mass[body] = base.body_mass[body] * share
            model.body_inertia[body] = base.body_inertia[body] * share
        mujoco.mj_setConst(model, mujoco.MjData(model))  # what follows from masses; stale, it makes the physics explode


def _share(rng: np.random.Generator, most: float) -> float:
    """A factor within ``most`` of 1, never below a tenth."""
    return max(1.0 + float(rng.uniform(-most, most)), 0.1)


def _tilted(rng: np.random.Generator, direction: np.ndarray, most: float) -> np.ndarray:
    """The direction turned by up to ``most`` rad about a level axis."""
    axis = rng.normal(size=3)
    axis[2] = 0.0
    axis /= np.linalg.norm(axis)
    turn, turned = np.zeros(4), np.zeros(3)
    mujoco.mju_axisAngle2Quat(turn, axis, float(rng.uniform(0.0, most)))
    mujoco.mju_rotVecQuat(turned, direction, turn)
    return turned
