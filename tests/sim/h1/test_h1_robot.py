"""The H1 of primitives: Unitree's numbers, compensated gravity, hands that touch what they should."""

from pathlib import Path

import mujoco
import numpy as np
import pytest

from tandem_sim.h1 import robot as h1
from tandem_sim.h1 import wrist
from tandem_sim.h1.control import Servo

VARIANT = Path(__file__).parent / "robots" / "h1_variant.xml"


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return h1.robot_spec().compile()


def at_home(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    Servo(model, 50).reset(data, h1.HOME)
    mujoco.mj_forward(model, data)
    return data


def test_masses_and_kinematics_are_those_of_a_published_h1(model: mujoco.MjModel) -> None:
    published = mujoco.MjModel.from_xml_path(str(VARIANT))
    theirs = mujoco.MjData(published)
    theirs.qpos[:3] = (0, 0, 0.98)
    for side in h1.ARMS:
        for joint, angle in (("hip_pitch", -0.4), ("knee", 0.8), ("ankle", -0.4)):
            theirs.joint(f"{side}_{joint}_joint").qpos = angle
    ours = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for name in (name for name in h1.JOINTS if "wrist" not in name and "tool" not in name):
        angle = rng.uniform(*published.joint(f"{name}_joint").range)
        theirs.joint(f"{name}_joint").qpos = ours.joint(name).qpos = angle
        assert model.joint(name).range == pytest.approx(published.joint(f"{name}_joint").range)
        torque = published.actuator(f"{name}_joint").ctrlrange
        assert model.jnt_actfrcrange[model.joint(name).id] == pytest.approx(torque)
        assert model.dof_armature[model.joint(name).dofadr[0]] == 0.1
    mujoco.mj_kinematics(published, theirs)
    mujoco.mj_kinematics(model, ours)
    for body in (published.body(index).name for index in range(1, published.nbody - 1)):
        mine = body.removesuffix("_ball_hand")
        assert ours.body(mine).xpos == pytest.approx(theirs.body(body).xpos, abs=1e-6), body
        assert ours.body(mine).ximat == pytest.approx(theirs.body(body).ximat, abs=1e-5), body
        assert model.body(mine).mass == pytest.approx(published.body(body).mass)
        assert model.body(mine).inertia == pytest.approx(published.body(body).inertia)


def test_shoulder_and_arm_have_the_lengths_of_an_h1(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    shoulder, elbow = data.body("left_shoulder_roll_link").xpos, data.body("left_elbow_link").xpos
    assert shoulder[1] == pytest.approx(0.2135, abs=1e-3)
    assert shoulder[2] - data.body("pelvis").xpos[2] == pytest.approx(0.439, abs=1e-3)
    assert shoulder[2] - elbow[2] == pytest.approx(0.332, abs=1e-3)


def test_every_body_of_the_robot_is_gravity_compensated(model: mujoco.MjModel) -> None:
    assert (model.body_gravcomp[1:] == 1).all()
    data = at_home(model)
    data.act[:] = 0
    model_free = h1.robot_spec().compile()
    model_free.actuator_gainprm[:] = 0
    model_free.actuator_biasprm[:] = 0
    loose = at_home(model_free)
    mujoco.mj_step(model_free, loose, 250)
    for name in h1.JOINTS:
        assert loose.joint(name).qpos == pytest.approx(data.joint(name).qpos, abs=1e-6), name


def test_the_servos_are_the_actions_in_order(model: mujoco.MjModel) -> None:
    assert [model.actuator(index).name for index in range(model.nactuator)] == list(h1.ACTIONS)
    assert len(h1.ACTIONS) == 17
    assert model.actuator_forcerange[:, 1] == pytest.approx(h1.limits.effort)
    assert (h1.limits.low <= h1.HOME).all()
    assert (h1.limits.high >= h1.HOME).all()


def test_at_home_both_grippers_point_down_open_and_nothing_touches(model: mujoco.MjModel) -> None:
    data = at_home(model)
    for arm, side in (("left", 1), ("right", -1)):
        site = data.site(f"{arm}_tcp")
        assert site.xpos == pytest.approx([0.30, side * 0.18, 1.22], abs=1e-3)
        assert site.xmat.reshape(3, 3)[:, 2] == pytest.approx([0, 0, -1], abs=1e-3)
        assert np.abs(site.xmat.reshape(3, 3)[:, 0]) == pytest.approx([0, 1, 0], abs=1e-3)
        gap = data.geom(f"{arm}_finger_a_pad").xpos - data.geom(f"{arm}_finger_b_pad").xpos
        assert np.linalg.norm(gap) == pytest.approx(wrist.MAX_WIDTH + 2 * 0.0015, abs=1e-4)
        assert np.mean([data.geom(f"{arm}_finger_{side}_pad").xpos for side in "ab"], axis=0)[:2] == pytest.approx(
            site.xpos[:2], abs=1e-4
        )
    assert data.ncon == 0


def test_hands_touch_bricks_the_trunk_and_each_other_but_not_themselves(model: mujoco.MjModel) -> None:
    def touches(first: int, second: int) -> bool:
        kind, affinity = model.geom_contype, model.geom_conaffinity
        return bool(kind[first] & affinity[second] or kind[second] & affinity[first])

    left, right = (model.geom(f"{arm}_finger_a_pad").id for arm in h1.ARMS)
    other = model.geom("left_finger_b_pad").id
    forearm = model.body("left_elbow_link").geomadr[0]
    trunk = model.body("torso_link").geomadr[0]
    assert touches(left, right)
    assert touches(left, trunk)
    assert not touches(left, other)
    assert not touches(left, forearm)
    for geom in (left, right, forearm, trunk):
        assert model.geom_conaffinity[geom] & 1, "the world's bit: table and bricks"


def test_cameras_and_frames_are_there(model: mujoco.MjModel) -> None:
    assert {model.camera(index).name for index in range(model.ncam)} == {"head", "left_wrist", "right_wrist"}
    data = at_home(model)
    for arm in h1.ARMS:  # the TCP is in the wrist camera's picture
        camera, tcp = data.camera(f"{arm}_wrist"), data.site(f"{arm}_tcp").xpos
        seen = camera.xmat.reshape(3, 3).T @ (tcp - camera.xpos)
        assert -seen[2] > 0.03
        assert np.abs(seen[:2] / seen[2]).max() < np.tan(np.radians(75 / 2))
    head = data.camera("head")
    seen = head.xmat.reshape(3, 3).T @ (np.array([0.33, 0, 1.08]) - head.xpos)
    assert np.abs(seen[:2] / seen[2]).max() < 0.2


def test_a_brick_is_held_by_friction_against_ten_newton() -> None:
    """With default softness of contact and coupling, a grasped brick crept by 0.4 mm/s under such a press."""
    spec = h1.robot_spec()
    brick = spec.worldbody.add_body(name="brick", pos=[0.30, 0.18, 1.22])
    brick.add_freejoint()
    brick.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.032, 0.0159, 0.0096], mass=0.04)
    model = spec.compile()
    data = mujoco.MjData(model)
    servo = Servo(model, 50)
    servo.reset(data, h1.HOME)
    closed = h1.HOME.copy()
    closed[h1.GRIPS[0]] = 0.0
    gravity, model.opt.gravity[:] = model.opt.gravity.copy(), 0.0

    def hold(steps: int, press: float) -> np.ndarray:
        for _ in range(steps):
            data.xfrc_applied[brick_id, 2] = press
            servo.command(data, closed)
            mujoco.mj_step(model, data, servo.substeps)
        mujoco.mj_kinematics(model, data)
        turn = data.site("left_tcp").xmat.reshape(3, 3)
        return 1e3 * turn.T @ (data.body("brick").xpos - data.site("left_tcp").xpos)

    brick_id = model.body("brick").id
    hold(30, 0.0)
    model.opt.gravity[:] = gravity
    before = hold(10, 0.0)
    for press in (10.0, -10.0):
        after = hold(25, press)
        assert np.abs(after - before).max() < 0.1  # mm in half a second
        before = after
