"""The URDF: one tree, the model's limits, and the same kinematics as MuJoCo."""

import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.urdf import main, to_urdf, write_urdf

VARIANT = Path(__file__).parent / "robots" / "h1_variant.xml"


def numbers(element, name):
    return np.array(element.get(name).split(), float)


def rotation(roll, pitch, yaw):
    def about(axis, angle):
        quat, flat = np.empty(4), np.empty(9)
        mujoco.mju_axisAngle2Quat(quat, np.array(axis, float), angle)
        mujoco.mju_quat2Mat(flat, quat)
        return flat.reshape(3, 3)

    return about((0, 0, 1), yaw) @ about((0, 1, 0), pitch) @ about((1, 0, 0), roll), about


def forward(root, positions):
    """Where each link is, as (position, rotation); URDF's rules written down once more."""
    joints = {joint.find("child").get("link"): joint for joint in root.findall("joint")}
    found = {"world": (np.zeros(3), np.eye(3))}

    def place(link):
        if link not in found:
            joint = joints[link]
            at, turn = place(joint.find("parent").get("link"))
            origin = joint.find("origin")
            turned, about = rotation(*numbers(origin, "rpy"))
            at, turn = at + turn @ numbers(origin, "xyz"), turn @ turned
            if joint.get("type") == "revolute":
                turn = turn @ about(numbers(joint.find("axis"), "xyz"), positions[joint.get("name")])
            elif joint.get("type") == "prismatic":
                at = at + turn @ numbers(joint.find("axis"), "xyz") * positions[joint.get("name")]
            found[link] = at, turn
        return found[link]

    for link in joints:
        place(link)
    return found


@pytest.mark.parametrize("robot", ["primitives", str(VARIANT)], ids=["primitives", "path"])
def test_forward_kinematics_of_the_urdf_are_mujocos(robot):
    model = h1.robot_spec(robot).compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    positions = {}
    for joint in range(model.njnt):
        value = rng.uniform(*model.jnt_range[joint])
        data.qpos[model.jnt_qposadr[joint]] = positions[model.joint(joint).name] = value
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    found = forward(ET.fromstring(to_urdf(model)), positions)
    for body in range(1, model.nbody):
        at, turn = found[model.body(body).name]
        assert at == pytest.approx(data.xpos[body], abs=1e-6)
        assert turn.ravel() == pytest.approx(data.xmat[body], abs=1e-6)
    for arm in h1.ARMS:
        at, turn = found[f"{arm}_tcp"]
        assert at == pytest.approx(data.site(f"{arm}_tcp").xpos, abs=1e-6)
        assert turn.ravel() == pytest.approx(data.site(f"{arm}_tcp").xmat, abs=1e-6)
    at, turn = found["head_camera"]
    assert at == pytest.approx(data.camera("head").xpos, abs=1e-6)
    assert turn[:, 2] == pytest.approx(-data.camera("head").xmat.reshape(3, 3)[:, 2], abs=1e-6), "z looks forward"


def test_names_limits_and_masses_are_the_models():
    model = h1.robot_spec().compile()
    root = ET.fromstring(to_urdf(model))
    links, joints = [[item.get("name") for item in root.findall(tag)] for tag in ("link", "joint")]
    assert len(set(links)) == len(links)
    assert len(set(joints)) == len(joints) == len(links) - 1, "a tree"
    moving = {joint.get("name"): joint for joint in root.findall("joint") if joint.get("type") != "fixed"}
    assert [name for name in moving if name in h1.JOINTS] == list(h1.JOINTS)
    elbow = moving["left_elbow"].find("limit").attrib
    assert {key: float(value) for key, value in elbow.items()} == {
        "lower": -1.25,
        "upper": 2.61,
        "effort": 18.0,
        "velocity": 20.0,
    }
    assert moving["left_finger_b"].find("mimic").get("joint") == "left_finger_a"
    mass = sum(float(element.get("value")) for element in root.iter("mass"))
    assert mass == pytest.approx(model.body_mass[1:].sum())
    shapes = {child.tag for geometry in root.iter("geometry") for child in geometry}
    assert shapes == {"box", "cylinder", "sphere"}
    touching = {link.get("name") for link in root.findall("link") if link.find("collision") is not None}
    assert {"left_elbow_link", "left_finger_a_link", "torso_link"} <= touching


def test_mujoco_reads_it_too():
    model = h1.robot_spec().compile()
    extra = '<mujoco><compiler fusestatic="false"/></mujoco>'
    again = mujoco.MjModel.from_xml_string(to_urdf(model).replace("<link", extra + "<link", 1))
    assert again.njnt == model.njnt
    assert again.body_mass.sum() == pytest.approx(model.body_mass.sum())


def test_meshes_are_written_beside_it(tmp_path):
    tree = ET.parse(VARIANT)
    asset = tree.getroot().find("asset")
    ET.SubElement(asset, "mesh", name="wedge", vertex="0 0 0  0.1 0 0  0 0.1 0  0 0 0.1")
    torso = next(body for body in tree.getroot().iter("body") if body.get("name") == "torso_link")
    ET.SubElement(torso, "geom", type="mesh", mesh="wedge")
    tree.write(tmp_path / "robot.xml")
    path = write_urdf(tmp_path / "out", str(tmp_path / "robot.xml"))
    meshes = [mesh.get("filename") for mesh in ET.parse(path).getroot().iter("mesh")]
    assert len(meshes) == 1
    file = Path(meshes[0].removeprefix("file://"))
    content = file.read_bytes()
    assert len(content) == 84 + 50 * 4
    assert np.frombuffer(content[80:84], "<u4")[0] == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(TandemError, match="cannot be written"):
        write_urdf(tmp_path / "file")


def test_the_module_writes_it_from_the_command_line(tmp_path, capsys):
    assert main([str(tmp_path / "out"), str(VARIANT)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert ET.parse(path).getroot().tag == "robot"
    assert main([str(tmp_path / "out"), str(tmp_path / "gone.xml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
