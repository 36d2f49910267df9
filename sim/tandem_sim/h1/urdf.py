"""The robot as URDF, for RViz, Foxglove and whatever else reads that: ``python -m tandem_sim.h1.urdf FOLDER [ROBOT]``.

Links are the model's bodies, with frames for the TCPs (``left_tcp``) and the cameras (``head_camera``, optical: z
forward, x right, y down). Joints, limits, masses and shapes are the model's. What URDF lacks is put together: a capsule
as a cylinder and two spheres; an ellipsoid becomes a sphere of the same volume.
"""

import struct
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.h1 import robot as h1
from tandem_sim.h1 import wrist
from tandem_sim.h1.links import matrix

ROOT = "world"
_OPTICAL = np.array([0.0, 1.0, 0.0, 0.0])  # half a turn about x: from MuJoCo's camera frame to ROS' optical one


def write_urdf(folder: Path, robot: str = h1.PRIMITIVES) -> Path:
    """Writes ``h1.urdf`` and, for a robot of meshes, ``meshes/*.stl`` into ``folder``; meshes are referred to by URI.

    Args:
        folder: is made where it is missing.
        robot: as of :func:`tandem_sim.h1.robot.robot_spec`.

    Returns:
        The path of the URDF.

    Raises:
        TandemError: as of ``robot_spec``; the folder cannot be written.
    """
    model = h1.robot_spec(robot).compile()
    path, meshes = folder / "h1.urdf", (folder / "meshes").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for mesh in range(model.nmesh):
            meshes.mkdir(exist_ok=True)
            (meshes / f"{model.mesh(mesh).name}.stl").write_bytes(_stl(model, mesh))
        path.write_text(to_urdf(model, meshes.as_uri()), encoding="utf-8")
    except OSError as error:
        raise TandemError(f"URDF: {folder} cannot be written: {error.strerror} (allowed: a folder)") from error
    return path


def to_urdf(model: mujoco.MjModel, meshes: str = "meshes") -> str:
    """The URDF of a compiled robot, as :func:`tandem_sim.h1.robot.robot_spec` makes it.

    Args:
        model: the robot alone.
        meshes: where ``<mesh name>.stl`` lie, a URI or a path.
    """
    root = ET.Element("robot", name="h1_tandem")
    ET.SubElement(root, "link", name=ROOT)
    for body in range(1, model.nbody):
        _add_body(root, model, body, meshes)
    for site in range(model.nsite):
        _add_frame(
            root,
            model,
            int(model.site_bodyid[site]),
            model.site(site).name,
            model.site_pos[site],
            model.site_quat[site],
        )
    for camera in range(model.ncam):
        turned = np.empty(4)
        mujoco.mju_mulQuat(turned, model.cam_quat[camera], _OPTICAL)
        name = f"{model.camera(camera).name}_camera"
        _add_frame(root, model, int(model.cam_bodyid[camera]), name, model.cam_pos[camera], turned)
    ET.indent(root)
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_body(root: ET.Element, model: mujoco.MjModel, body: int, meshes: str) -> None:
    name, parent = model.body(body).name, int(model.body_parentid[body])
    link = ET.SubElement(root, "link", name=name)
    inertial = ET.SubElement(link, "inertial")
    _add_origin(inertial, model.body_ipos[body] - _shift(model, body), model.body_iquat[body])
    ET.SubElement(inertial, "mass", value=_text(model.body_mass[body]))
    moments = dict.fromkeys(("ixy", "ixz", "iyz"), "0")
    moments |= zip(("ixx", "iyy", "izz"), map(_text, model.body_inertia[body]), strict=True)
    ET.SubElement(inertial, "inertia", moments)
    first = int(model.body_geomadr[body])
    for geom in range(first, first + int(model.body_geomnum[body])):
        if model.geom_group[geom] <= 2:
            _add_shapes(link, "visual", model, geom, meshes)
        if model.geom_contype[geom] or model.geom_conaffinity[geom]:
            _add_shapes(link, "collision", model, geom, meshes)
    joint = int(model.body_jntadr[body])
    element = ET.SubElement(root, "joint", name=model.joint(joint).name if joint >= 0 else f"{name}_fixed")
    moving = "prismatic" if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE else "revolute"
    element.set("type", "fixed" if joint < 0 else moving)
    turned = matrix(model.body_quat[body]) @ _shift(model, body)
    _add_origin(element, model.body_pos[body] + turned - _shift(model, parent), model.body_quat[body])
    ET.SubElement(element, "parent", link=model.body(parent).name if parent else ROOT)
    ET.SubElement(element, "child", link=name)
    if joint >= 0:
        _add_motion(element, model, joint)


def _shift(model: mujoco.MjModel, body: int) -> np.ndarray:
    """A URDF link's origin is its joint's anchor; this is where that lies in MuJoCo's body."""
    joint = int(model.body_jntadr[body])
    return model.jnt_pos[joint] if joint >= 0 else np.zeros(3)


def _add_motion(element: ET.Element, model: mujoco.MjModel, joint: int) -> None:
    ET.SubElement(element, "axis", xyz=_text(model.jnt_axis[joint]))
    name = model.joint(joint).name
    low, high = model.jnt_range[joint]
    if name in h1.ACTIONS:
        row = h1.ACTIONS.index(name)
        effort, speed = h1.limits.effort[row], h1.limits.speed[row]
    else:  # a finger moves by half of the width
        effort, speed = wrist.GRIP_FORCE, wrist.GRIP_SPEED / 2
    ET.SubElement(element, "limit", lower=_text(low), upper=_text(high), effort=_text(effort), velocity=_text(speed))
    ET.SubElement(element, "dynamics", damping=_text(model.dof_damping[model.jnt_dofadr[joint]]))
    if name.endswith("_finger_b"):
        ET.SubElement(element, "mimic", joint=name.removesuffix("b") + "a", multiplier="1", offset="0")


def _add_frame(
    root: ET.Element, model: mujoco.MjModel, body: int, name: str, pos: np.ndarray, quat: np.ndarray
) -> None:
    ET.SubElement(root, "link", name=name)
    element = ET.SubElement(root, "joint", name=f"{name}_fixed", type="fixed")
    _add_origin(element, pos - _shift(model, body), quat)
    ET.SubElement(element, "parent", link=model.body(body).name)
    ET.SubElement(element, "child", link=name)


def _add_shapes(link: ET.Element, tag: str, model: mujoco.MjModel, geom: int, meshes: str) -> None:
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    pos = model.geom_pos[geom] - _shift(model, int(model.geom_bodyid[geom]))
    quat, rgba = model.geom_quat[geom], model.geom_rgba[geom]

    def add(shape: str, sizes: dict[str, str], at: np.ndarray = pos, turned: np.ndarray = quat) -> None:
        element = ET.SubElement(link, tag)
        _add_origin(element, at, turned)
        ET.SubElement(ET.SubElement(element, "geometry"), shape, sizes)
        if tag == "visual":
            colour = ET.SubElement(element, "material", name="rgba_" + "_".join(f"{value:.3f}" for value in rgba))
            ET.SubElement(colour, "color", rgba=_text(rgba))

    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        add("box", {"size": _text(2 * size)})
    elif kind in (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE):
        add("cylinder", {"radius": _text(size[0]), "length": _text(2 * size[1])})
        if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
            end = matrix(quat) @ np.array([0, 0, size[1]])
            add("sphere", {"radius": _text(size[0])}, pos + end)
            add("sphere", {"radius": _text(size[0])}, pos - end)
    elif kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        add("mesh", {"filename": f"{meshes}/{model.mesh(mesh).name}.stl"})
    else:
        radius = np.cbrt(size.prod()) if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID else size[0]
        add("sphere", {"radius": _text(radius)})


def _add_origin(element: ET.Element, pos: np.ndarray, quat: np.ndarray) -> None:
    ET.SubElement(element, "origin", xyz=_text(pos), rpy=_text(_roll_pitch_yaw(matrix(quat))))


def _roll_pitch_yaw(rotation: np.ndarray) -> np.ndarray:
    """Angles about the fixed x, y, z axes, as URDF wants them."""
    pitch = np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    if np.hypot(rotation[0, 0], rotation[1, 0]) < 1e-9:  # straight up or down: roll and yaw turn about the same axis
        return np.array([0.0, pitch, np.arctan2(-rotation[0, 1], rotation[1, 1])])
    roll = np.arctan2(rotation[2, 1], rotation[2, 2])
    return np.array([roll, pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])


def _text(values: float | np.ndarray) -> str:
    return " ".join(f"{float(value):.9g}" for value in np.atleast_1d(values))


def _stl(model: mujoco.MjModel, mesh: int) -> bytes:
    """Binary STL of a mesh."""
    first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    begin, many = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    corners = model.mesh_vert[first : first + count][model.mesh_face[begin : begin + many]]  # (F, 3, 3)
    rows = np.zeros(many, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["normal"] = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(rows["normal"], axis=1, keepdims=True)
    np.divide(rows["normal"], lengths, out=rows["normal"], where=lengths > 0)
    rows["corners"] = corners
    return b"\0" * 80 + struct.pack("<I", many) + rows.tobytes()


def main(arguments: list[str]) -> int:
    """Writes the URDF into the folder ``arguments[0]``, of the robot ``arguments[1]`` if there is one; exit status."""
    if len(arguments) not in (1, 2) or arguments[0].startswith("-"):
        print(f"usage: python -m {__spec__.name if __spec__ else __name__} FOLDER [ROBOT]", file=sys.stderr)
        return 2
    try:
        print(write_urdf(Path(arguments[0]), *arguments[1:]))
    except TandemError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
