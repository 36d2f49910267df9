"""An H1 from a file: any shape of MJCF gives the same robot; what is none is refused in one line."""

import os
import socket
import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.h1 import mjcf
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.control import Servo

ROBOTS = Path(__file__).parent / "robots"
VARIANT, FIXED = ROBOTS / "h1_variant.xml", ROBOTS / "h1_fixed.xml"


@pytest.fixture(scope="module")
def ours():
    return h1.robot_spec().compile()


def load(path):
    return h1.robot_spec(str(path)).compile()


def names(model):
    return [
        [kind(index).name for index in range(count)]
        for kind, count in (
            (model.body, model.nbody),
            (model.joint, model.njnt),
            (model.actuator, model.nactuator),
            (model.camera, model.ncam),
            (model.site, model.nsite),
        )
    ]


def check_same(model, ours):
    """The same robot but for its looks: names, kinematics, inertia, limits, servos, what collides."""
    assert names(model) == names(ours)
    assert model.jnt_range == pytest.approx(ours.jnt_range, abs=1e-5)
    assert (model.body_gravcomp[1:] == 1).all()
    for field in ("actuator_forcerange", "actuator_ctrlrange", "jnt_actfrcrange", "body_mass", "dof_armature"):
        assert getattr(model, field) == pytest.approx(getattr(ours, field), abs=1e-5), field
    rng = np.random.default_rng(0)
    posture = rng.uniform(h1.limits.low, h1.limits.high)
    states = []
    for each in (model, ours):
        data = mujoco.MjData(each)
        Servo(each, 50).reset(data, posture)
        mujoco.mj_forward(each, data)
        inertia = np.zeros((each.nv, each.nv))
        mujoco.mj_fullM(each, data, inertia)
        touching = sorted(
            (each.body(each.geom_bodyid[geom]).name, *data.geom_xpos[geom].round(4), *each.geom_size[geom].round(4))
            for geom in range(each.ngeom)
            if each.geom_contype[geom]
        )
        states.append((data.site_xpos.copy(), data.site_xmat.copy(), data.cam_xpos.copy(), inertia, touching))
    for mine, theirs in zip(*states, strict=True):
        if isinstance(mine, list):
            assert mine == theirs
        else:
            assert mine == pytest.approx(theirs, abs=1e-5)


def changed(tmp_path, change, source=VARIANT):
    """The path of a copy of ``source`` whose tree ``change`` has been at."""
    tree = ET.parse(source)
    change(tree.getroot())
    path = tmp_path / "changed.xml"
    tree.write(path)
    return path


def body(root, name):
    return next(element for element in root.iter("body") if element.get("name") == name)


def moved(text, shift):
    """Points ``x y z x y z ...`` by ``shift``."""
    points = np.array(text.split(), float).reshape(-1, 3) + shift
    return " ".join(f"{value:.9g}" for value in points.ravel())


@pytest.mark.parametrize("path", [VARIANT, FIXED], ids=["free, motors, _joint", "fixed, positions, degrees"])
def test_variants_of_the_file_give_the_same_robot(path, ours):
    check_same(load(path), ours)


def test_drives_sensors_floor_lights_cameras_and_options_of_the_file_are_gone(ours):
    model = load(VARIANT)
    assert model.nlight == model.nsensor == model.nkey == model.nmat == 0
    assert not (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).any()
    assert model.opt.timestep == ours.opt.timestep == 0.002
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert model.nq == ours.nq, "neither the free base, nor the legs, nor the loose body are left"


def test_other_link_frames_change_nothing(tmp_path, ours):
    """A forearm whose frame lies elsewhere, and so the joint elsewhere in it: the wrist stays where it belongs."""

    def change(root):
        shift = np.array([0.1, 0.02, -0.03])
        for name in ("left_elbow_link_ball_hand", "torso_link"):
            link = body(root, name)
            link.set("pos", moved(link.get("pos", "0 0 0"), shift))
            for child in link:
                if child.tag == "joint" or (child.tag in ("geom", "body", "inertial", "site") and child.get("pos")):
                    child.set("pos", moved(child.get("pos", "0 0 0"), -shift))
                if child.get("fromto"):
                    child.set("fromto", moved(child.get("fromto"), -shift))

    model = load(changed(tmp_path, change))
    data, same = mujoco.MjData(model), mujoco.MjData(ours)
    for each, state in ((model, data), (ours, same)):
        Servo(each, 50).reset(state, h1.HOME)
        mujoco.mj_forward(each, state)
    assert data.site_xpos == pytest.approx(same.site_xpos, abs=1e-6)
    assert data.site_xmat == pytest.approx(same.site_xmat, abs=1e-6)
    assert data.cam_xpos == pytest.approx(same.cam_xpos, abs=1e-6)


def test_a_turned_base_and_a_pelvis_merged_with_the_world_stand_like_any_other(tmp_path, ours):
    def turn(root):
        body(root, "pelvis").set("euler", "0 0 90")

    check_same(load(changed(tmp_path, turn, FIXED)), ours)

    def merge(root):
        world = root.find("worldbody")
        pelvis = body(root, "pelvis")
        world.remove(pelvis)
        for link in pelvis.findall("body"):
            link.set("childclass", "h1")
            link.set("pos", moved(link.get("pos"), np.array([float(v) for v in pelvis.get("pos").split()])))
            world.append(link)

    model = load(changed(tmp_path, merge, FIXED))
    data, same = mujoco.MjData(model), mujoco.MjData(ours)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_kinematics(ours, same)
    assert data.site_xpos == pytest.approx(same.site_xpos, abs=1e-6)
    assert data.body("left_ankle_link").xpos == pytest.approx(same.body("left_ankle_link").xpos, abs=1e-6)


def test_an_upper_body_alone_is_enough_and_further_parts_ride_along(tmp_path, ours):
    def change(root):
        pelvis = body(root, "pelvis")
        for link in [link for link in pelvis.findall("body") if "hip" in link.get("name")]:
            pelvis.remove(link)
        torso = body(root, "torso_link")
        pack = ET.SubElement(torso, "body", name="back pack", pos="-0.1 0 0.3")
        ET.SubElement(pack, "joint", name="lid", axis="0 1 0", range="0.2 1")
        ET.SubElement(pack, "geom", type="box", size="0.05 0.1 0.1", mass="2")
        hand = ET.SubElement(body(root, "left_elbow_link"), "body", name="hand", pos="0.3 0 0")
        ET.SubElement(hand, "joint", name="thumb", axis="0 1 0")
        ET.SubElement(hand, "geom", type="box", size="0.02 0.02 0.02", mass="0.1")
        root.remove(root.find("actuator"))

    model = load(changed(tmp_path, change, FIXED))
    assert model.njnt == ours.njnt, "the lid is frozen, the hand gives way to the wrist"
    extra = [name for name in names(model)[0] if name.startswith("part_")]
    assert [name.split("_", 2)[2] for name in extra] == ["back_pack"]
    assert model.body(extra[0]).mass == 2


def test_meshes_are_shown_and_never_touch(tmp_path, ours):
    def change(root):
        asset = ET.SubElement(root, "asset")
        ET.SubElement(asset, "mesh", name="cube", file="cube.obj")
        ET.SubElement(asset, "mesh", file="sub/cube.obj", name="other")
        torso = body(root, "torso_link")
        for geom in torso.findall("geom"):
            torso.remove(geom)
        ET.SubElement(torso, "geom", type="mesh", mesh="cube", pos="0 0 0.3", rgba="1 0 0 1")

    (tmp_path / "sub").mkdir()
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    faces = "1 2 4;1 4 3;5 7 8;5 8 6;1 5 6;1 6 2;3 4 8;3 8 7;1 3 7;1 7 5;2 6 8;2 8 4"
    text = "".join(f"v {0.1 * x} {0.2 * y} {0.3 * z}\n" for x, y, z in corners)
    text += "".join(f"f {face}\n" for face in faces.split(";"))
    for place in (tmp_path / "cube.obj", tmp_path / "sub" / "cube.obj"):
        place.write_text(text)
    model = load(changed(tmp_path, change))
    shown = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    assert len(shown) == 1
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    assert data.geom_xpos[shown[0]] == pytest.approx(np.array([0.05, 0.1, 0.98 + 0.3 + 0.15]), abs=1e-6)
    assert model.geom_rgba[shown[0]] == pytest.approx([1, 0, 0, 1])
    assert not model.geom_contype[shown].any()
    assert model.geom_contype.astype(bool).sum() == ours.geom_contype.astype(bool).sum()


@pytest.mark.parametrize("joint", ["torso", "left_shoulder_pitch", "right_elbow"])
def test_a_missing_joint_is_named(tmp_path, joint):
    path = tmp_path / "robot.xml"
    text = VARIANT.read_text()
    path.write_text(text.replace(f'"{joint}_joint"', '"something_else"'))
    with pytest.raises(TandemError, match=f"no joint '{joint}' or '{joint}_joint'") as caught:
        h1.robot_spec(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<mujoco ", "<robot ", "is no XML"),
        ("<worldbody>", '<include file="/etc/passwd"/><worldbody>', "uses <include>"),
        ("<worldbody>", '<extension><plugin plugin="x"/></extension><worldbody>', "uses <extension>"),
        ("<worldbody>", '<worldbody><replicate count="1000000"><geom size="1"/></replicate>', "uses <replicate>"),
        ("<asset>", '<asset><mesh name="m" builtin="sphere" params="100000"/>', "builds the mesh 'm'"),
        ("<asset>", '<asset><mesh name="m" file="../../../../../../../etc/passwd.stl"/>', "outside of the robot's"),
        ("<asset>", '<asset><mesh name="m" file="/etc/passwd"/>', "of unknown type"),
        ("<asset>", '<asset><mesh name="m" file="gone.stl"/>', "mesh 'gone.stl': is missing"),
        ("<asset>", '<asset><model name="m" file="other.xml"/>', "uses <model>"),
        ("<?xml", "<?xml", "declares a document type"),
        ('axis="0 0 1" range="-2.35 2.35"', 'axis="0 0 -1" range="-2.35 2.35"', "joint 'torso' lies 0.00 m and 180"),
        ('axis="0 0 1" range="-2.35 2.35"', 'type="slide" axis="0 0 1"', "joint 'torso' is no hinge"),
        ('<joint name="torso_joint"', '<joint name="twist"/><joint name="torso_joint"', "shares its body"),
        ('ball_hand" pos="0.0185 0', 'ball_hand" pos="0.5 0', "joint 'left_elbow' lies 0.48 m"),
        ('range="-2.35 2.35"', 'range="3 4"', "joint 'torso' has the range"),
        ('mass="0.669"', 'mass="a lot"', "MuJoCo refuses it"),
        ('size="0.058"', 'size="-1"', "MuJoCo refuses it"),
    ],
)
def test_what_is_no_h1_or_reaches_too_far_is_refused_in_one_line(tmp_path, old, new, said):
    path = tmp_path / "robots" / "robot.xml"
    path.parent.mkdir()
    text = VARIANT.read_text()
    if said == "declares a document type":
        text = '<!DOCTYPE lol [<!ENTITY lol "lol">]>' + text
    else:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    with pytest.raises(TandemError, match=said) as caught:
        h1.robot_spec(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "robot.xml"
    path.write_text("<mujoco>" + "<worldbody/>" * (mjcf.MAX_ELEMENTS + 1) + "</mujoco>")
    with pytest.raises(TandemError, match="over 20000 elements"):
        h1.robot_spec(str(path))
    path.write_text("<mujoco>" + "<body>" * 200 + "</body>" * 200 + "</mujoco>")
    with pytest.raises(TandemError, match="100 levels"):
        h1.robot_spec(str(path))
    path.write_text("<mujoco>" + " " * mjcf.MAX_XML + "</mujoco>")
    with pytest.raises(TandemError, match="larger than 4 MiB"):
        h1.robot_spec(str(path))
    monkeypatch.setattr("tandem_sim.h1.loading.MAX_BODIES", 10)
    with pytest.raises(TandemError, match="bodies"):
        h1.robot_spec(str(VARIANT))


def test_what_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.xml")
    for name, said in (("nowhere.xml", "cannot be read"), ("", "is no file"), ("pipe.xml", "is no file")):
        with pytest.raises(TandemError, match=said):
            h1.robot_spec(str(tmp_path / name))
    path = tmp_path / "wide.xml"
    path.write_bytes(('<!DOCTYPE lol [<!ENTITY lol "lol">]>' + VARIANT.read_text()).encode("utf-16"))
    with pytest.raises(TandemError, match="is no XML in UTF-8"):
        h1.robot_spec(str(path))


def test_menagerie_from_a_checkout(tmp_path, monkeypatch, ours):
    (tmp_path / "unitree_h1").mkdir()
    (tmp_path / "unitree_h1" / "h1.xml").write_text(FIXED.read_text())
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    check_same(h1.robot_spec("menagerie").compile(), ours)
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(TandemError, match=r"MENAGERIE_ROOT is .*nowhere"):
        h1.robot_spec("menagerie")


def test_menagerie_without_a_network_says_what_to_set(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", offline)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(TandemError, match="set MENAGERIE_ROOT") as caught:
        h1.robot_spec("menagerie")
    assert "\n" not in str(caught.value)
