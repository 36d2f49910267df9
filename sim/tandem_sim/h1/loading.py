"""An H1 from an MJCF file, as the same plain links that the H1 of primitives is made of.

Kinematics, masses and looks are the file's. Names, joint limits, torques and all that collides are those of
:mod:`tandem_sim.h1.unitree`, so that every H1 has the same contract and the same contacts.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.h1 import looks, unitree
from tandem_sim.h1.links import UPRIGHT, Hinge, Link, Shape, Vector, matrix, vector
from tandem_sim.h1.mjcf import compile_body
from tandem_sim.h1.unitree import LEG_JOINTS, PELVIS_HEIGHT, STANDING, UPPER_JOINTS

MENAGERIE_NAME = "unitree_h1"
LEAST_MASS = 0.01  # kg of a moving link
MAX_BODIES = 200
MAX_GEOMS = 1000
MAX_FACES = 1_000_000
SAME_PLACE = 0.25  # m that a joint may lie away from where Unitree has it
SAME_AXIS = 0.7  # cosine of the angle by which its axis may differ, 45 degrees

_FREE, _HINGE = mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_HINGE


def menagerie_links() -> tuple[Link, ...]:
    """The H1 of MuJoCo Menagerie, with its meshes; downloaded once unless ``MENAGERIE_ROOT`` names a checkout.

    Raises:
        TandemError: neither is to be had; says what to set.
    """
    root = os.environ.get("MENAGERIE_ROOT")
    help_line = "set MENAGERIE_ROOT to a checkout of mujoco_menagerie, or give robot=<path to an H1 MJCF>"
    if root:
        path = Path(root) / MENAGERIE_NAME / "h1.xml"
        if not path.is_file():
            raise TandemError(
                f"H1: robot 'menagerie': MENAGERIE_ROOT is {root}, which has no {path.name} ({help_line})"
            )
        return links_of(path)
    try:
        import mujoco_menagerie
    except ImportError as error:
        raise TandemError(
            f"H1: robot 'menagerie': mujoco_menagerie is not installed (install it; {help_line})"
        ) from error
    try:
        path = mujoco_menagerie.get(MENAGERIE_NAME).xml("h1")
    except (mujoco_menagerie.MenagerieError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TandemError(f"H1: robot 'menagerie' cannot be had: {reason} ({help_line})") from error
    return links_of(path)


def links_of(path: Path) -> tuple[Link, ...]:
    """The links of the H1 in the MJCF file ``path``, parents first, the legs fixed in the standing pose.

    Raises:
        TandemError: it cannot be read, or is no H1: a joint is missing, or not where an H1 has it.
    """
    return _Reader(compile_body(path, f"H1 robot {path}"), f"H1 robot {path}").links()


class _Reader:
    """Takes links out of a compiled model that stands at zero, its legs in the standing pose."""

    def __init__(self, model: mujoco.MjModel, where: str) -> None:
        if model.nbody > MAX_BODIES or model.ngeom > MAX_GEOMS or model.nmeshface > MAX_FACES:
            came = f"{model.nbody} bodies, {model.ngeom} shapes, {model.nmeshface} triangles"
            raise TandemError(f"{where}: {came} (allowed: {MAX_BODIES}, {MAX_GEOMS}, {MAX_FACES})")
        self._where = where
        self._model, self._data = model, mujoco.MjData(model)
        self._joints = self._named_joints()
        self._published = {link.name: link for link in unitree.links()}
        self._link_of = {link.joint.name: link for link in self._published.values() if link.joint is not None}
        self._owner = {int(model.jnt_bodyid[self._joints[name]]): name for name in UPPER_JOINTS}
        self._pose()
        self._root = int(model.body_parentid[model.jnt_bodyid[self._joints["torso"]]])  # 0: merged with the world
        self._turn = self._data.xmat[self._root].reshape(3, 3)  # of the pelvis in the file's world
        self._frames = self._published_frames()
        self._check_tree()

    def links(self) -> tuple[Link, ...]:
        found: list[Link] = []
        names: dict[int, str] = {}
        for body in range(self._root, self._model.nbody):
            parent = int(self._model.body_parentid[body])
            if body != self._root and (parent not in names or (parent == 0 and not self._is_ours(body))):
                continue  # not of the robot, or a hand
            name = self._name(body)
            found.append(self._link(body, name, "" if body == self._root else names[parent]))
            if not name.endswith("_elbow_link"):  # what a forearm carries gives way to the Tandem wrist
                names[body] = name
        return self._ordered(found)

    def _ordered(self, links: list[Link]) -> tuple[Link, ...]:
        """As the H1 of primitives has them, further parts last: then the joints of every H1 have the same order."""
        by_name = {link.name: link for link in links}
        done: dict[str, Link] = {}

        def put(link: Link) -> None:
            if link.name not in done:
                if link.parent:
                    put(by_name[link.parent])
                done[link.name] = link

        for name in (*self._published, *by_name):
            if name in by_name:
                put(by_name[name])
        return tuple(done.values())

    def _named_joints(self) -> dict[str, int]:
        """Joints by Unitree's names without ``_joint``."""
        model = self._model
        found = {model.joint(index).name.removesuffix("_joint"): index for index in range(model.njnt)}
        for name in UPPER_JOINTS:
            if name not in found:
                raise TandemError(
                    f"{self._where}: no joint '{name}' or '{name}_joint' (needed: {', '.join(UPPER_JOINTS)})"
                )
            if model.jnt_type[found[name]] != _HINGE:
                raise TandemError(f"{self._where}: joint '{name}' is no hinge (allowed: hinges)")
        return found

    def _pose(self) -> None:
        """Everything at zero, the legs standing, so that joints that are not kept can be frozen as they are."""
        model, data = self._model, self._data
        for joint in range(model.njnt):
            if model.jnt_type[joint] not in (_FREE, mujoco.mjtJoint.mjJNT_BALL):
                low, high = model.jnt_range[joint] if model.jnt_limited[joint] else (-np.inf, np.inf)
                data.qpos[model.jnt_qposadr[joint]] = np.clip(0.0, low, high)
        for name in UPPER_JOINTS:
            data.qpos[model.jnt_qposadr[self._joints[name]]] = 0.0
        for side in unitree.ARMS:
            for part, angle in STANDING.items():
                leg = self._joints.get(f"{side}_{part}")
                if leg is not None:
                    data.qpos[model.jnt_qposadr[leg]] = angle
        mujoco.mj_kinematics(model, data)

    def _check_tree(self) -> None:
        """Raises TandemError unless the joints follow each other, each in a body of its own, as they do in an H1."""
        model = self._model
        for name in UPPER_JOINTS:
            body = int(model.jnt_bodyid[self._joints[name]])
            if model.body_jntnum[body] != 1:
                raise TandemError(f"{self._where}: joint '{name}' shares its body with another (allowed: one a body)")
            parent = self._link_of[name].parent
            before = self._published[parent].joint
            if before is not None and not self._descends(body, int(model.jnt_bodyid[self._joints[before.name]])):
                raise TandemError(
                    f"{self._where}: joint '{name}' does not follow '{before.name}' (allowed: as in an H1)"
                )
            _, anchor, axis = self._joint_frame(name)
            place, turn = self._frames[name]
            hinge = self._link_of[name].joint
            assert hinge is not None
            away, along = float(np.linalg.norm(anchor - place)), float(axis @ (turn @ np.array(hinge.axis)))
            if away > SAME_PLACE or along < SAME_AXIS:
                turned = float(np.degrees(np.arccos(np.clip(along, -1, 1))))
                raise TandemError(
                    f"{self._where}: joint '{name}' lies {away:.2f} m and {turned:.0f} degrees from where an H1 has it "
                    f"(allowed: {SAME_PLACE} m, 45 degrees)"
                )

    def _is_ours(self, body: int) -> bool:
        """Whether something of an H1 hangs on ``body``: the world may hold other things beside a merged pelvis."""
        legs = [f"{side}_{part}" for side in unitree.ARMS for part in LEG_JOINTS]
        return any(
            self._descends(int(self._model.jnt_bodyid[self._joints[name]]), body)
            for name in (*UPPER_JOINTS, *legs)
            if name in self._joints
        )

    def _descends(self, body: int, ancestor: int) -> bool:
        while body and body != ancestor:
            body = int(self._model.body_parentid[body])
        return body == ancestor

    def _joint_frame(self, name: str) -> tuple[int, np.ndarray, np.ndarray]:
        """Body, anchor and axis of a joint, in the pelvis' directions, from the torso joint's anchor."""
        joint = self._joints[name]
        body = int(self._model.jnt_bodyid[joint])
        axis = self._data.xmat[body].reshape(3, 3) @ self._model.jnt_axis[joint]
        return body, self._turn.T @ (self._anchor(name) - self._anchor("torso")), self._turn.T @ axis

    def _anchor(self, name: str) -> np.ndarray:
        """Of a joint, in the file's world."""
        joint = self._joints[name]
        body = self._model.jnt_bodyid[joint]
        return self._data.xpos[body] + self._data.xmat[body].reshape(3, 3) @ self._model.jnt_pos[joint]

    def _published_frames(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Where Unitree's link frames are at zero, seen from the torso joint: position and rotation by joint."""
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in UPPER_JOINTS:
            link = self._link_of[name]
            before = self._published[link.parent].joint
            place, turn = found[before.name] if before is not None else (np.zeros(3), np.eye(3))
            found[name] = (place + turn @ np.array(link.pos), turn @ matrix(link.quat))
        return found

    def _name(self, body: int) -> str:
        if body == self._root:
            return "pelvis"
        if body in self._owner:
            return self._link_of[self._owner[body]].name
        for side in unitree.ARMS:
            for part in LEG_JOINTS:
                joint = self._joints.get(f"{side}_{part}")
                if joint is not None and self._model.jnt_bodyid[joint] == body:
                    return f"{side}_{part}_link"
        return f"part_{body}_{re.sub('[^A-Za-z0-9_]', '_', self._model.body(body).name)[:40]}"

    def _link(self, body: int, name: str, parent: str) -> Link:
        model = self._model
        joint = self._owner.get(body)
        published = self._published.get(name)
        pos, quat = self._place(body)
        link = Link(
            name,
            parent,
            pos,
            quat,
            float(model.body_mass[body]),
            vector(model.body_ipos[body]),
            vector(model.body_inertia[body]),
            vector(model.body_iquat[body]),
            shapes=looks.shapes(model, body),
            surfaces=looks.surfaces(model, body, name),
        )
        if joint is None or published is None:
            return link
        if link.mass < LEAST_MASS:  # nothing that could move: the file gives it no mass
            link = replace(link, mass=published.mass, com=published.com, inertia=published.inertia)
        frame_pos, frame_quat = self._frame(joint)
        hidden = tuple(replace(shape, seen=False) for shape in published.shapes if shape.collides)
        return replace(
            link,
            joint=self._hinge(joint),
            shapes=link.shapes + tuple(_moved(shape, frame_pos, frame_quat) for shape in hidden),
            frame_pos=frame_pos,
            frame_quat=frame_quat,
            arm=published.arm,
        )

    def _place(self, body: int) -> tuple[Vector, Vector]:
        """In the parent, as it stands; the pelvis so that the torso's joint is where Unitree has it."""
        data = self._data
        if body == self._root:
            below = self._turn.T @ (self._anchor("torso") - data.xpos[body])
            return vector(np.array([0, 0, PELVIS_HEIGHT]) - below), UPRIGHT
        parent = int(self._model.body_parentid[body])
        return _relative(data.xpos[parent], data.xquat[parent], data.xpos[body], data.xquat[body])

    def _frame(self, joint: str) -> tuple[Vector, Vector]:
        """Unitree's frame of the joint's link, turned as Unitree has it at zero, at this file's joint."""
        body = int(self._model.jnt_bodyid[self._joints[joint]])
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, (self._turn @ self._frames[joint][1]).ravel())
        return _relative(self._data.xpos[body], self._data.xquat[body], self._anchor(joint), quat)

    def _hinge(self, name: str) -> Hinge:
        """Unitree's limits, narrowed by the file's, on the file's axis."""
        model, joint = self._model, self._joints[name]
        published = self._link_of[name].joint
        assert published is not None
        low, high = published.low, published.high
        if model.jnt_limited[joint]:
            low, high = max(low, float(model.jnt_range[joint][0])), min(high, float(model.jnt_range[joint][1]))
        if not low < high:
            raise TandemError(
                f"{self._where}: joint '{name}' has the range {low:g}..{high:g} (allowed: a part of an H1's)"
            )
        return replace(
            published, axis=vector(model.jnt_axis[joint]), pos=vector(model.jnt_pos[joint]), low=low, high=high
        )


def _relative(pos_a: np.ndarray, quat_a: np.ndarray, pos_b: np.ndarray, quat_b: np.ndarray) -> tuple[Vector, Vector]:
    """The pose b in the frame a."""
    back, pos, quat = np.empty(4), np.empty(3), np.empty(4)
    mujoco.mju_negQuat(back, quat_a)
    mujoco.mju_rotVecQuat(pos, pos_b - pos_a, back)
    mujoco.mju_mulQuat(quat, back, quat_b)
    return vector(pos), vector(quat)


def _moved(shape: Shape, pos: Vector, quat: Vector) -> Shape:
    """A shape of Unitree's link frame, in a link frame in which that one has the pose ``pos``, ``quat``."""
    rotation, origin = matrix(quat), np.array(pos)

    def point(value: Vector) -> Vector:
        return vector(origin + rotation @ np.array(value))

    turned = np.empty(4)
    mujoco.mju_mulQuat(turned, np.array(quat), np.array(shape.quat))
    between = shape.between and (point(shape.between[0]), point(shape.between[1]))
    return replace(shape, pos=point(shape.pos), quat=vector(turned), between=between)
