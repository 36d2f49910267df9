"""Action modes: limits, holding, replaying what was executed, targets that no arm reaches."""

import mujoco
import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, Embodiment
from tandem_datasets.errors import TandemError
from tandem_sim.h1 import actions
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.actions import ControlSettings, make_actions
from tandem_sim.h1.control import Servo
from tandem_sim.h1.embodiment import embodiment
from tandem_sim.h1.ik import ArmIK
from tandem_sim.h1.state import StateReader, add_sensors

SPEC = h1.robot_spec()
HINGES = list(h1.HINGE_ACTIONS)
ALL = [
    ControlSettings("joint"),
    ControlSettings("ee_delta", "yaw"),
    ControlSettings("ee_delta", "full", rate_hz=20),
]


def made(settings):
    made = make_actions(settings, SPEC)
    made.reset(h1.HOME)
    return made


def bounds(settings):
    found = actions.scalars(settings)
    return np.array([s.low for s in found], np.float32), np.array([s.high for s in found], np.float32)


def test_the_contract_of_each_mode():
    joint, yaw, full = (embodiment(settings) for settings in ALL)
    assert [scalar.name for scalar in joint.action] == list(h1.ACTIONS)
    assert {scalar.kind for scalar in joint.action} == {ActionKind.ABSOLUTE}
    assert joint.action[4].rate_limit == 20.0
    assert (joint.action[4].low, joint.action[4].high, joint.action[4].unit) == (-1.25, 2.61, "rad")
    assert [scalar.name for scalar in yaw.action][:5] == [
        *(f"left_tcp/d{axis}" for axis in ("x", "y", "z", "yaw")),
        "left_grip",
    ]
    assert len(yaw.action) == 10
    assert [scalar.name for scalar in full.action][7:] == [
        *(f"right_tcp/{part}" for part in ("dx", "dy", "dz", "rx", "ry", "rz")),
        "right_grip",
    ]
    assert {scalar.kind for scalar in yaw.action} == {ActionKind.ABSOLUTE, ActionKind.DELTA_STEP}
    assert full.action[0].high == pytest.approx(0.5 / 20)
    for each in (joint, yaw, full):
        assert Embodiment.from_dict(each.to_dict()) == each
        names = [scalar.name for scalar in each.state]
        assert names[:15] == names[15:30] == list(h1.JOINTS)
        assert names[30:37] == [f"left_tcp/{part}" for part in ("x", "y", "z", "qw", "qx", "qy", "qz")]
        assert names[44:] == [f"{arm}_gripper/{part}" for arm in h1.ARMS for part in ("width", "force")]


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_what_was_executed_is_executed_again_unchanged(settings):
    """Also where targets are cut by speed or by the leash: what a store replays must do what it did."""
    low, high = bounds(settings)
    rng = np.random.default_rng(3)
    first, again = made(settings), made(settings)
    for step in range(150):
        action = rng.uniform(low, high).astype(np.float32)
        if settings.mode == "ee_delta" and step < 100:
            action[0] = high[0]  # far out of reach
        done = first.step(action)
        repeated = again.step(done.action)
        assert done.action.dtype == np.float32
        assert (repeated.action == done.action).all()
        assert (repeated.targets == done.targets).all()


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_a_missing_action_holds(settings):
    mode = made(settings)
    low, high = bounds(settings)
    before = mode.step(((low + high) / 2 + 0.1 * (high - low)).astype(np.float32))
    for _ in range(50):
        held = mode.step(None)
    if settings.mode == "joint":
        assert (held.targets == before.targets).all()
    else:
        assert (held.action[[0, 1, 2]] == 0).all()
        assert held.targets[list(h1.GRIPS)] == pytest.approx(before.targets[list(h1.GRIPS)])
        assert mode.ik.poses(held.targets[HINGES])[:, :3] == pytest.approx(mode.poses[:, :3], abs=1e-3)
    assert (mode.step(None).action == held.action).all()


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_bad_actions_are_refused_in_one_line(settings):
    mode = made(settings)
    size = len(mode.scalars)
    for bad, said in (
        (np.zeros(size + 1, np.float32), rf"shape \({size + 1},\) \(allowed: \({size},\)\)"),
        (np.zeros((1, size), np.float32), "shape"),
        (np.full(size, np.nan, np.float32), "is not finite"),
        (np.where(np.arange(size) == 3, np.inf, 0), f"{mode.scalars[3].name} is not finite"),
        ("up", "str"),
        ([None] * size, "is not finite|list"),
    ):
        with pytest.raises(TandemError, match=said):
            mode.step(bad)
    assert mode.clamped == 0


def test_values_out_of_range_are_clamped_and_counted_or_refused_in_strict_mode():
    mode = made(ControlSettings("joint"))
    action = h1.HOME.astype(np.float32)
    action[[4, 8]] = (9.0, -1.0)
    mode.step(action)
    assert mode.clamped == 2
    for _ in range(20):
        done = mode.step(action)
    assert done.action[4] == np.float32(2.61)
    assert done.action[8] == 0.0
    mode.reset(h1.HOME)
    assert mode.clamped == 0
    strict = made(ControlSettings("joint", strict=True))
    with pytest.raises(TandemError, match=r"left_elbow is 9 \(allowed: -1.25..2.61 rad\)"):
        strict.step(action)


def test_joint_targets_move_no_faster_than_the_joints():
    mode = made(ControlSettings("joint"))
    done = mode.step(h1.limits.high.astype(np.float32))
    speed = (done.targets - h1.HOME) * 50
    hinges = [index for index in range(17) if index not in h1.GRIPS]
    assert (speed[hinges] <= h1.limits.speed[hinges] * 1.0001).all()
    assert done.targets[list(h1.GRIPS)] == pytest.approx(h1.limits.high[list(h1.GRIPS)])


@pytest.mark.parametrize("option", [{"mode": "torque"}, {"rotation": "roll"}, {"rate_hz": 30}])
def test_unknown_settings_are_refused(option):
    with pytest.raises(TandemError, match="allowed"):
        ControlSettings(**option)


@pytest.mark.parametrize("direction", [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
def test_targets_out_of_reach_stay_bounded_and_the_way_back_is_short(direction):
    """Straight arms are singular: nothing may blow up there, and no target may run away from what the arm can do."""
    mode = made(ControlSettings("ee_delta"))
    low, high = h1.limits.low[HINGES], h1.limits.high[HINGES]
    action = np.zeros(10, np.float32)
    action[4::5] = 0.05
    for arm in (0, 5):
        action[arm : arm + 3] = np.array(direction) * 0.01
    last = h1.HOME
    for _ in range(300):
        done = mode.step(action)
        joints = done.targets[HINGES]
        assert np.isfinite(done.targets).all()
        assert (joints >= low - 1e-9).all()
        assert (joints <= high + 1e-9).all()
        assert (np.abs(done.targets - last)[HINGES] <= h1.limits.speed[HINGES] / 50 + 1e-9).all()
        assert done.targets[0] == 0, "the torso keeps still"
        last = done.targets
    ahead = np.abs(mode.poses[:, :3] - mode.ik.poses(joints)[:, :3])
    assert (ahead < 0.035).all()
    assert (np.linalg.norm(mode.poses[:, :3], axis=1) < 2.0).all()
    there = mode.ik.poses(joints)[:, :3]
    for _ in range(15):
        mode.step(np.where(np.isin(np.arange(10), (4, 9)), action, -action))
    back = (mode.ik.poses(mode.step(None).targets[HINGES])[:, :3] - there) @ -np.array(direction, float)
    assert (back > 0.05).all(), "it comes back at once: 15 steps of 10 mm, less the leash"


def test_turning_beyond_what_a_wrist_can_do_stays_bounded():
    mode = made(ControlSettings("ee_delta", "full"))
    action = np.zeros(14, np.float32)
    action[[6, 13]] = 0.05
    action[[3, 10]] = 0.05
    for _ in range(400):
        done = mode.step(action)
    assert np.isfinite(done.targets).all()
    assert (done.action[[3, 10]] == 0).all(), "what is dropped is told"
    poses = mode.ik.poses(done.targets[HINGES])
    for pose, target in zip(poses, mode.poses, strict=True):
        assert 2 * np.arccos(min(1.0, abs(pose[3:] @ target[3:]))) < 0.7


@pytest.mark.parametrize("yaw", [0.0, 1.5, -1.5])
def test_both_grippers_reach_the_shared_workspace_pointing_down(yaw):
    """x 0.25 to 0.40, y +-0.15, up to 0.15 m above the table; each arm alone, the other at home."""
    spec_ik = ArmIK(SPEC, 50, h1.HOME[HINGES])
    home = spec_ik.poses(h1.HOME[HINGES])
    down = actions.downward(yaw)
    for arm in (0, 1):
        joints = h1.HOME[HINGES].copy()
        for x in (0.25, 0.325, 0.40):
            for y in (-0.15, -0.05, 0.05, 0.15):
                for z in (1.10, 1.23):
                    poses = home.copy()
                    poses[arm] = (x, y, z, *down)
                    for _ in range(40):
                        joints = spec_ik.solve(joints, poses[0], poses[1])
                    reached = spec_ik.poses(joints)[arm]
                    assert reached[:3] == pytest.approx([x, y, z], abs=1e-3)
                    assert abs(reached[3:] @ down) > np.cos(0.01 / 2)


@pytest.mark.parametrize("rate_hz", [50, 20])
def test_a_commanded_path_is_followed_in_the_simulation(rate_hz):
    """Down, across and turned by 90 degrees with both arms; the grippers are where they were told to be."""
    settings = ControlSettings("ee_delta", rate_hz=rate_hz)
    mode = made(settings)
    spec = h1.robot_spec()
    add_sensors(spec)
    model = spec.compile()
    data, servo, reader = mujoco.MjData(model), Servo(model, rate_hz), StateReader(model)
    servo.reset(data, h1.HOME)
    action = np.zeros(10, np.float32)
    steps = round(0.8 * rate_hz)
    for arm, side in ((0, 1), (1, -1)):
        action[5 * arm : 5 * arm + 5] = (0.05 / steps, -side * 0.1 / steps, -0.1 / steps, side * 1.2 / steps, 0.04)
    for step in range(2 * steps):
        servo.command(data, mode.step(action if step < steps else None).targets)
        mujoco.mj_step(model, data, servo.substeps)
    reader.refresh(data)
    state = reader.read(data)
    for arm, side in ((0, 1), (1, -1)):
        pose = state[30 + 7 * arm : 37 + 7 * arm]
        assert pose[:3] == pytest.approx([0.35, side * 0.08, 1.12], abs=1e-3)
        assert abs(pose[3:] @ actions.downward(side * 1.2)) > np.cos(0.01 / 2)
        assert actions.yaw_of(pose[3:].astype(float)) == pytest.approx(side * 1.2, abs=0.01)
        assert state[44 + 2 * arm] == pytest.approx(0.04, abs=5e-4)


def test_the_state_tells_speeds_and_grip_and_stays_in_its_limits():
    spec = h1.robot_spec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.03, 0.015, 0.01], pos=[0.30, 0.18, 1.22])
    add_sensors(spec)
    model = spec.compile()
    data, servo, reader = mujoco.MjData(model), Servo(model, 50), StateReader(model)
    servo.reset(data, h1.HOME)
    closing = h1.HOME.copy()
    closing[list(h1.GRIPS)] = 0.0
    closing[1] += 0.004
    widths = []
    for _ in range(30):
        servo.command(data, closing)
        mujoco.mj_step(model, data, servo.substeps)
        widths.append(reader.read(data)[44])
    reader.refresh(data)
    state = reader.read(data)
    low, high = embodiment(ControlSettings()).state_low, embodiment(ControlSettings()).state_high
    assert state.dtype == np.float32
    assert ((state >= low) & (state <= high)).all()
    assert state[44] == pytest.approx(0.03, abs=1e-3), "around the block"
    assert state[45] == pytest.approx(45.0, abs=0.5), "N"
    assert state[46] == pytest.approx(0.0, abs=1e-3), "closed on nothing"
    assert abs(state[47]) < 1.0
    assert min(np.diff(widths)) > -0.25 * 0.02 * 1.3, "no faster than the drive"
    data.qvel[model.joint("left_elbow").dofadr[0]] = 1.5
    reader.refresh(data)
    assert reader.read(data)[15 + h1.JOINTS.index("left_elbow")] == 1.5
