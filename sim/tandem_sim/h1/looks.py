"""How the bodies of a compiled model look, as plain shapes and triangle meshes."""

import mujoco
import numpy as np

from tandem_sim.h1.links import Shape, Surface, Vector, matrix, vector

_KINDS = {
    mujoco.mjtGeom.mjGEOM_SPHERE: "sphere",
    mujoco.mjtGeom.mjGEOM_CAPSULE: "capsule",
    mujoco.mjtGeom.mjGEOM_ELLIPSOID: "ellipsoid",
    mujoco.mjtGeom.mjGEOM_CYLINDER: "cylinder",
    mujoco.mjtGeom.mjGEOM_BOX: "box",
}
_SHOWN_GROUPS = 2  # MuJoCo's viewers show geom groups 0 to 2 unless told otherwise


def shapes(model: mujoco.MjModel, body: int) -> tuple[Shape, ...]:
    """The primitives that show ``body``, in its frame."""
    found = []
    for geom in _shown(model, body):
        kind = _KINDS.get(mujoco.mjtGeom(model.geom_type[geom]))
        if kind is not None:
            place = vector(model.geom_pos[geom]), vector(model.geom_quat[geom])
            found.append(Shape(kind, vector(model.geom_size[geom]), *place, rgba=_rgba(model, geom)))
    return tuple(found)


def surfaces(model: mujoco.MjModel, body: int, name: str) -> tuple[Surface, ...]:
    """The meshes that show ``body``, in its frame; their names begin with ``name``."""
    found: list[Surface] = []
    for geom in _shown(model, body):
        if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        mesh = int(model.geom_dataid[geom])
        first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        vertices = model.mesh_vert[first : first + count] @ matrix(model.geom_quat[geom]).T + model.geom_pos[geom]
        begin, many = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        faces: np.ndarray = model.mesh_face[begin : begin + many].copy()
        found.append(Surface(f"{name}_mesh_{len(found)}", vertices, faces, _rgba(model, geom)))
    return tuple(found)


def _shown(model: mujoco.MjModel, body: int) -> list[int]:
    """The geoms that show a body: those of the groups that viewers show, or all if it has none there."""
    first = int(model.body_geomadr[body])
    geoms = range(first, first + int(model.body_geomnum[body]))
    visible = [geom for geom in geoms if _rgba(model, geom)[3] > 0]
    return [geom for geom in visible if model.geom_group[geom] <= _SHOWN_GROUPS] or visible


def _rgba(model: mujoco.MjModel, geom: int) -> Vector:
    material = model.geom_matid[geom]
    return vector(model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom])
