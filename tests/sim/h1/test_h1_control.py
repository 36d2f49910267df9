"""The servos: a press does not sag, motion is smooth at every rate, torques and setpoints stay within limits."""

import mujoco
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.h1 import robot as h1
from tandem_sim.h1.control import RATES_HZ, Servo
from tandem_sim.h1.ik import ArmIK

LEFT_ELBOW = h1.ACTIONS.index("left_elbow")


@pytest.fixture(scope="module")
def model():
    return h1.robot_spec().compile()


def begin(model, rate_hz=50, posture=h1.HOME):
    data = mujoco.MjData(model)
    servo = Servo(model, rate_hz)
    servo.reset(data, posture)
    mujoco.mj_forward(model, data)
    return data, servo


def tcp(model, data):
    mujoco.mj_kinematics(model, data)
    return data.site("left_tcp").xpos.copy()


def stretched():
    """The posture in which the left gripper reaches across, far in front of the right shoulder."""
    hinges = list(h1.HINGE_ACTIONS)
    ik = ArmIK(h1.robot_spec(), 50, h1.HOME[hinges])
    posture = h1.HOME.copy()
    poses = ik.poses(posture[hinges])
    poses[0, :3], poses[1, 1] = (0.40, -0.15, 1.10), -0.30
    for _ in range(80):
        posture[hinges] = ik.solve(posture[hinges], *poses)
    assert ik.poses(posture[hinges])[0, :3] == pytest.approx([0.40, -0.15, 1.10], abs=1e-3)
    return posture


def press(model, data, servo, posture, force, seconds):
    """Holds ``posture`` while ``force`` (3,) N acts on the left TCP; how far it gives way at each step, mm."""
    home, hand = tcp(model, data), model.body("left_tool_link").id
    away = []
    for _ in range(round(seconds / (servo.substeps * h1.TIMESTEP))):
        servo.command(data, posture)
        for _ in range(servo.substeps):
            data.qfrc_applied[:] = 0
            where = data.site("left_tcp").xpos
            mujoco.mj_applyFT(model, data, np.array(force, float), np.zeros(3), where, hand, data.qfrc_applied)
            mujoco.mj_step(model, data)
        away.append(1e3 * np.linalg.norm(tcp(model, data) - home))
    data.qfrc_applied[:] = 0
    return away


@pytest.mark.parametrize("force", [(0, 0, 10), (0, 0, -10), (10, 0, 0), (0, -10, 0)])
@pytest.mark.parametrize("rate_hz", [50, 20])
@pytest.mark.parametrize("posture", [lambda: h1.HOME, stretched], ids=["home", "stretched"])
def test_a_press_of_ten_newton_does_not_sag(model, force, rate_hz, posture):
    """Without the integral 1.6 to 4.5 mm remain for as long as the press lasts."""
    data, servo = begin(model, rate_hz, posture())
    away = press(model, data, servo, posture(), force, 1.0)
    assert max(away) < 5.0  # mm, as the press sets in at once
    assert away[len(away) // 2] < 0.5  # after half a second
    assert away[-1] < 0.05  # after a second


def test_the_integral_winds_up_to_a_bound_and_lets_go(model):
    """The elbow is told to go on where a wall stands; torque stays within the published limit, and it comes back."""
    spec = h1.robot_spec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.2, 0.2, 0.05], pos=[0.3, 0.18, 1.22 - 0.062])
    walled = spec.compile()
    data, servo = begin(walled)
    into = h1.HOME.copy()
    into[LEFT_ELBOW] += 0.5
    torques = []
    for _ in range(150):
        servo.command(data, into)
        mujoco.mj_step(walled, data, servo.substeps)
        torques.append(data.qfrc_actuator[walled.joint("left_elbow").dofadr[0]])
    assert data.ncon > 0
    assert np.abs(torques).max() <= 18.0 + 1e-6
    assert torques[-1] > 15.0, "it does press; the rest of the torque carries the forearm"
    integral = data.act[walled.actuator_actadr[walled.actuator("left_elbow").id] + 1]
    gains = h1.GAINS["elbow"]
    once = 0.5 * h1.TIMESTEP * gains.integral  # Nm that a physics step adds at this error
    assert abs(integral * gains.integral) <= h1.INTEGRAL_SHARE * 18.0 + once
    for step in range(100):
        servo.command(data, h1.HOME)
        mujoco.mj_step(walled, data, servo.substeps)
        if step == 25:
            assert abs(data.joint("left_elbow").qpos[0] - h1.HOME[LEFT_ELBOW]) < 0.05
    assert abs(data.joint("left_elbow").qpos[0] - h1.HOME[LEFT_ELBOW]) < 2e-3


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_setpoints_go_straight_to_the_target_within_a_control_step(model, rate_hz):
    data, servo = begin(model, rate_hz)
    target = h1.HOME.copy()
    target[LEFT_ELBOW] += 0.05
    servo.command(data, target)
    seen = []
    for _ in range(servo.substeps):
        mujoco.mj_step(model, data)
        seen.append(servo.setpoints(data.act)[LEFT_ELBOW])
    steps = np.diff([h1.HOME[LEFT_ELBOW], *seen])
    assert steps == pytest.approx(0.05 / servo.substeps, rel=1e-6)
    servo.command(data, target)
    mujoco.mj_step(model, data, servo.substeps)
    assert servo.setpoints(data.act) == pytest.approx(target, abs=1e-12)


def travel(model, rate_hz):
    """The elbow's position each 2 ms as its target moves by 0.4 rad in 0.4 s, and then stands still for 0.4 s."""
    data, servo = begin(model, rate_hz)
    target, track = h1.HOME.copy(), []
    for step in range(round(0.8 * rate_hz)):
        if step < round(0.4 * rate_hz):
            target[LEFT_ELBOW] += 1.0 / rate_hz
        servo.command(data, target)
        for _ in range(servo.substeps):
            mujoco.mj_step(model, data)
            track.append(data.joint("left_elbow").qpos[0] - h1.HOME[LEFT_ELBOW])
    return np.array(track)


def test_low_rates_move_as_smoothly_as_high_ones(model):
    tracks = {rate: travel(model, rate) for rate in RATES_HZ}
    ideal = np.minimum(0.002 * np.arange(1, 401), 0.4)
    for rate, track in tracks.items():
        assert np.abs(track - ideal).max() < 0.012, rate  # rad: follows without lagging behind
        assert abs(track[-1] - 0.4) < 1e-3
        speed = np.diff(track[50:190]) / 0.002
        assert np.abs(speed - 1.0).max() < 0.15, rate  # no ripple at the control rate
    assert tracks[20] == pytest.approx(tracks[50], abs=1e-3)


def test_targets_out_of_range_or_too_fast_are_cut(model):
    data, servo = begin(model)
    wild = np.full(17, 100.0)
    command = servo.inputs(data.act, wild)
    moved = command.ctrl[::2] - h1.HOME
    assert (moved <= h1.limits.speed * 0.02 + 1e-12).all()
    assert (command.slew <= h1.limits.speed + 1e-9).all()
    for _ in range(100):
        servo.command(data, wild)
        mujoco.mj_step(model, data, servo.substeps)
    assert servo.setpoints(data.act) == pytest.approx(h1.limits.high)
    assert np.isfinite(data.qpos).all()


def test_many_simulations_are_commanded_as_one_is(model):
    data, servo = begin(model)
    rng = np.random.default_rng(0)
    targets = rng.uniform(h1.limits.low, h1.limits.high, (3, 17))
    acts = np.stack([data.act + rng.normal(size=model.na) * 0.01 for _ in range(3)])
    together = servo.inputs(acts, targets)
    for row in range(3):
        alone = servo.inputs(acts[row], targets[row])
        assert (alone.ctrl == together.ctrl[row]).all()
        assert (alone.slew == together.slew[row]).all()


def test_unknown_rates_are_refused(model):
    with pytest.raises(TandemError, match=r"control rate is 30 Hz \(allowed: 50, 25, 20\)"):
        Servo(model, 30)
