"""Real presses, pulls and assemblies: when fits lock, where they end, what they bear, and that nothing else happens."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.loads import Loads
from tandem_sim.bricks.parameters import SnapParameters
from tandem_sim.bricks.rig import WRIST, add_carriage, add_plunger, drive, scene
from tandem_sim.bricks.shapes import KINDS, add_baseplate, add_brick, prepare
from tandem_sim.bricks.snap import Snapping
from tandem_sim.bricks.stand import Error, Pair, Stand

PITCH, HEIGHT = 0.016, 0.0192
BIG = Pair(KINDS["2x4"], KINDS["2x4"], Seat(0, 0, 0))


def begin(spec: mujoco.MjSpec, parameters: SnapParameters | None = None) -> tuple[mujoco.MjData, Snapping]:
    prepare(spec)
    model = spec.compile()
    data, snapping = mujoco.MjData(model), Snapping(model, parameters)
    snapping.reset(data)
    return data, snapping


def press(data: mujoco.MjData, snapping: Snapping, force: float, seconds: float = 0.3) -> None:
    data.ctrl[0] = -force
    snapping.step(data, round(seconds / 0.002))


# locking


@pytest.mark.parametrize(
    ("force", "error", "locks"),
    [
        (9.6, Error(), True),
        (9.6, Error(x=0.0010, y=-0.0010), True),
        (6.4, Error(), False),
        (9.6, Error(x=0.00225), False),
        (9.6, Error(yaw=0.13), False),
        (9.6, Error(tilt_x=0.078), False),
    ],
)
def test_a_press_locks_in_the_right_place_only(force, error, locks):
    stand = Stand(BIG, error, wrist=WRIST if locks else replace(WRIST, slide=2000, hinge=60))
    stand.push(force)
    assert stand.attached is locks
    assert stand.snapping.locked == locks


def test_a_dropped_brick_does_not_lock():
    spec = scene()
    add_baseplate(spec, "plate")
    add_brick(spec, "brick", "2x2", "red", pos=(0, 0, 0.05 + 0.0128))
    data, snapping = begin(spec)
    snapping.step(data, 250)
    assert snapping.misfit(data, "plate", "brick").within(snapping.parameters, PITCH), "it lies where it could lock"
    assert not snapping.connections.edges


def test_the_seat_is_reached_without_a_jump_and_exactly():
    stand = Stand(BIG, Error(x=0.001, y=-0.0008, yaw=0.06), wrist=WRIST)
    stand.push(9.6)
    stand.leave()
    assert stand.attached
    assert stand.snapping.settled
    assert stand.residual_mm() < 0.02
    assert stand.jumps.worst_mm < 0.5


@pytest.mark.parametrize("seat", [Seat(-1, -3, 0), Seat(1, 2, 1), Seat(0, 1, 2), Seat(-2, 3, 3)])
def test_any_overlap_locks_where_it_is_pressed(seat):
    pair = Pair(KINDS["2x4"], KINDS["2x4"], seat, "plate")
    stand = Stand(pair, wrist=WRIST)
    stand.push(1.2 * pair.studs)
    stand.leave()
    assert stand.attached
    assert stand.snapping.connections.component("upper") == ("plate", "lower", "upper")


def test_both_bricks_in_the_air_and_aslant():
    """Two carriages hold a brick each, in no particular direction, and press them together."""
    spec, size = scene(), KINDS["2x4"]
    turn = np.array([0.6, 0.5, -0.4, 0.3])
    turn /= np.linalg.norm(turn)
    up = np.zeros(9)
    mujoco.mju_quat2Mat(up, turn)
    up = up.reshape(3, 3)[:, 2]
    for name, place in (("low", np.zeros(3)), ("high", up * (HEIGHT + 0.0003))):
        add_brick(spec, name, size, "red", pos=place.tolist(), quat=turn.tolist())
        add_carriage(spec, f"hand_{name}", size, place.tolist(), turn.tolist(), wrist=WRIST)
    spec.option.gravity = (0, 0, 0)
    data, snapping = begin(spec)
    for step in range(150):
        force = 10 * max(0, step - 50) / 100
        for name, sign in (("hand_low", 1), ("hand_high", -1)):
            drive(snapping.model, data, name, 0.5 * min(step, 100), z=sign * force)
        snapping.step(data, 1)
    assert snapping.connections.is_on("high", "low", (0, 0))


def _bridge(gap: float, connected: bool, parameters: SnapParameters | None = None):
    """Two 2x2 bricks side by side on the floor, a 2x4 across both, and a plunger over it."""
    spec = scene()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1])
    add_plunger(spec, "plunger", (0, 0, 2 * HEIGHT + 0.001), (0.016, 0.032))
    if connected:
        add_baseplate(spec, "plate", pos=(0, 0, -0.0032))
    for name, y in (("a", -PITCH - gap / 2), ("b", PITCH + gap / 2)):
        add_brick(spec, name, "2x2", "blue", pos=(0, y, HEIGHT / 2))
    add_brick(spec, "across", "2x4", "red", pos=(0, 0, 1.5 * HEIGHT + 1e-4))
    data, snapping = begin(spec, parameters)
    if connected:
        snapping.attach(data, "plate", "a", 3, 2)
        snapping.attach(data, "plate", "b", 3, 4)
    mujoco.mj_forward(snapping.model, data)
    return data, snapping


def test_one_brick_presses_on_two_at_once():
    data, snapping = _bridge(0.001, connected=False)
    press(data, snapping, 9.6)
    assert [edge.studs for edge in snapping.connections.of("across")] == [4, 4]
    place, _ = snapping.pose_in(data, "a", "b")
    assert place == pytest.approx([0, 2 * PITCH, 0], abs=2e-5)


def test_each_pair_is_judged_by_itself():
    """One of the two lies off the grid: the brick across locks to the other one alone."""
    data, snapping = _bridge(0.0, connected=False)
    data.joint("b").qpos[0] += 0.003
    press(data, snapping, 9.6)
    assert [edge.lower for edge in snapping.connections] == ["a"]


def test_a_loop_closes_without_strain():
    """A brick across two that sit on one plate: two welds to one rigid thing must not pull against each other."""
    data, snapping = _bridge(0.0, connected=True)
    press(data, snapping, 9.6, 0.5)
    assert [edge.studs for edge in snapping.connections.of("across")] == [4, 4]
    press(data, snapping, -5, 0.3)
    assert snapping.settled
    assert snapping.connections.offset("a", "b").y == 4
    weight = 9.81 * snapping.model.body("across").mass[0] / (4 * SnapParameters().pull)
    for lower in ("a", "b"):
        assert snapping.load(data, lower, "across") == pytest.approx(-weight / 2, abs=0.02)
        assert np.abs(snapping.pose_in(data, lower, "across")[0][2] - HEIGHT) < 2e-5


def test_a_brick_over_two_plates_off_one_grid_joins_only_one():
    spec = scene()
    for name, x in (("left", -4 * PITCH), ("right", 4 * PITCH + 0.001)):
        add_baseplate(spec, name, pos=(x, 0, 0))
    add_brick(spec, "brick", "2x4", "red", pos=(0.0005, 0, 0.0129), quat=(0.5**0.5, 0, 0, 0.5**0.5))
    add_plunger(spec, "plunger", (0, 0, 0.024), (0.03, 0.016))
    data, snapping = begin(spec)
    press(data, snapping, 12)
    assert len(snapping.connections) == 1
    aligned = scene()
    for name, x in (("left", -4 * PITCH), ("right", 4 * PITCH)):
        add_baseplate(aligned, name, pos=(x, 0, 0))
    add_brick(aligned, "brick", "2x4", "red", pos=(0.0005, 0, 0.0129), quat=(0.5**0.5, 0, 0, 0.5**0.5))
    add_plunger(aligned, "plunger", (0, 0, 0.024), (0.03, 0.016))
    data, snapping = begin(aligned)
    press(data, snapping, 12)
    assert len(snapping.connections) == 2


def test_plates_and_other_bodies_never_lock():
    spec = scene()
    add_brick(spec, "brick", "2x4", "red", fixed=True)
    add_baseplate(spec, "lid", pos=(0, 0, 0.013), fixed=False)  # a plate has no underside
    add_plunger(spec, "plunger", (0, 0, 0.0175), (0.016, 0.032))
    data, snapping = begin(spec)
    press(data, snapping, 20)
    assert not snapping.connections.edges


def test_pyramidal_cones_feel_the_same():
    spec = scene()
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    add_baseplate(spec, "plate")
    add_brick(spec, "brick", "2x4", "red", pos=(0, 0, 0.0129))
    add_plunger(spec, "plunger", (0, 0, 0.024), (0.016, 0.032))
    data, snapping = begin(spec)
    press(data, snapping, 6)
    assert not snapping.connections.edges
    press(data, snapping, 9.6)
    assert len(snapping.connections) == 1


# letting go


def test_half_of_what_it_holds_holds():
    stand = Stand(BIG, attached=True, wrist=WRIST)
    assert stand.load("z", 0.9 * 24) == float("inf")
    assert stand.snapping.load(stand.data, "lower", "upper") == pytest.approx(0.9, abs=0.03)


def test_a_brick_over_two_holds_by_the_studs_of_both():
    """Pulled up in its middle it lets go of both, at the force of all eight studs."""
    spec = scene()
    for name, y in (("a", -PITCH), ("b", PITCH)):
        add_brick(spec, name, "2x2", "blue", pos=(0, y, 0), fixed=True)
    add_brick(spec, "across", "2x4", "red", pos=(0, 0, HEIGHT))
    add_carriage(spec, "hand", KINDS["2x4"], (0, 0, HEIGHT), wrist=WRIST)
    data, snapping = begin(spec)
    snapping.attach(data, "a", "across", 0, 0)
    snapping.attach(data, "b", "across", 0, -2)
    force = 0.0
    for step in range(600):
        force = 0.08 * max(0, step - 50)
        drive(snapping.model, data, "hand", min(80, 2 * step), z=force)
        snapping.step(data, 1)
        if not snapping.connections.edges:
            break
    assert force == pytest.approx(24, rel=0.05)
    assert snapping.released == 2


def test_loads_are_the_solvers_own():
    """The wrench that a weld's rows say is what the constraint Jacobian makes of its forces."""
    rng = np.random.default_rng(0)
    for turns in range(4):
        spec = scene()
        for name in ("ab", "ba")[turns % 2]:
            add_brick(spec, name, "2x4" if name == "a" else "2x3", "red", pos=(0, 0, ord(name)))
        data, snapping = begin(spec)
        data.qpos[:7] = [0, 0, 0, *rng.normal(size=4)]
        snapping.attach(data, "a", "b", 1, -1, turns)
        data.qvel[:] = rng.normal(size=12) * np.tile([0.3, 0.3, 0.3, 3, 3, 3], 2)
        snapping.step(data, 30)
        mujoco.mj_forward(snapping.model, data)
        joint = snapping._held[0]
        forces = np.where((data.efc_type == 0) & (data.efc_id == joint.weld), data.efc_force, 0)
        pulls = np.zeros(12)
        mujoco.mj_mulJacTVec(snapping.model, data, pulls, forces)
        upper = joint.upper
        turn, frame = (data.xmat[body].reshape(3, 3) for body in (upper.body, joint.second.body))
        middle = data.xpos[joint.second.body] + frame @ joint.anchor
        force = pulls[upper.dof : upper.dof + 3]
        arm = data.xpos[upper.body] - middle
        moment = frame.T @ (turn @ pulls[upper.dof + 3 : upper.dof + 6] + np.cross(arm, force))
        fit = joint.fit(SnapParameters().pull)
        bending = max(2 * abs(moment[0]) / fit.sides[1], 2 * abs(moment[1]) / fit.sides[0])
        tension = -float(force @ data.xmat[joint.lower.body, 2::3])
        assert Loads(snapping.model, [fit]).ratios(data) == [
            pytest.approx((tension + bending) / fit.strength, rel=1e-2)
        ]


def test_what_cannot_bear_itself_falls():
    """Bricks that stick out further and further, each held by two studs: the lowest fit peels off by their weight."""
    spec = scene()
    add_brick(spec, "b0", "2x4", "red", fixed=True)
    for level in range(1, 8):
        add_brick(spec, f"b{level}", "2x4", "red", pos=(0, 0, 1))
    data, snapping = begin(spec)
    for level in range(1, 8):
        snapping.attach(data, f"b{level - 1}", f"b{level}", 0, 3)
    snapping.step(data, 500)
    assert len(snapping.connections) < 7
    assert snapping.connections.between("b0", "b1") is None


# beginning, and bookkeeping


def test_attach_builds_what_is_asked_for():
    data, snapping = _bridge(0.0, connected=True)
    snapping.attach(data, "a", "across", 0, 0)
    snapping.attach(data, "b", "across", 0, -2)  # closes the loop where the pose already is
    before = data.qpos.copy()
    data.ctrl[0] = 3
    snapping.step(data, 250)
    assert snapping.connections.component("plate") == ("plate", "a", "b", "across")
    assert np.abs(data.qpos - before)[1:].max() < 2e-4  # the plunger is the first


@pytest.mark.parametrize(
    ("lower", "upper", "seat", "message"),
    [
        ("a", "nobody", (0, 0, 0), "snapping: brick: unknown name 'nobody'"),
        ("a", "a", (0, 0, 0), "'a' cannot sit on it"),
        ("a", "plate", (0, 0, 0), "'plate' cannot sit on it"),
        ("plate", "a", (3, 2, 0), "attached already"),
        ("a", "across", (2, 0, 0), "no stud is engaged"),
        ("a", "b", (0, 1, 0), "its studs do not meet"),
    ],
)
def test_attach_refuses(lower, upper, seat, message):
    data, snapping = _bridge(0.0, connected=True)
    with pytest.raises(TandemError, match=message):
        snapping.attach(data, lower, upper, *seat)


def test_a_reset_takes_everything_apart():
    data, snapping = _bridge(0.0, connected=True)
    assert snapping.connections.edges
    mujoco.mj_resetData(snapping.model, data)
    snapping.reset(data)
    assert not snapping.connections.edges
    assert not data.eq_active.any()


def test_nothing_but_contacts_motors_and_welds_acts():
    data, snapping = _bridge(0.001, connected=False)
    for _ in range(150):
        data.ctrl[0] = -9.6
        snapping.step(data, 1)
        assert not data.xfrc_applied.any()
        assert not data.qfrc_applied.any()
    assert len(snapping.connections) == 2


def _heap(seed: int) -> tuple[mujoco.MjData, Snapping]:
    """Bricks that fall on each other and on a plate, under a plunger."""
    rng = np.random.default_rng(seed)
    spec = scene()
    add_baseplate(spec, "plate")
    for at in range(4):
        turn = (1.0, 0, 0, 0) if at % 2 else (0.5**0.5, 0, 0, 0.5**0.5)
        place = (*rng.integers(-2, 3, 2) * PITCH, 0.06 + at * 0.07)
        add_brick(spec, f"b{at}", "2x4", "red", pos=place, quat=turn)
    add_plunger(spec, "plunger", (0, 0, 0.4), (0.08, 0.08))
    return begin(spec)


@pytest.mark.parametrize("seed", [2, 9, 10])
def test_idle_scenes_may_be_stepped_by_others_bit_for_bit(seed):
    """Also the looks at idle scenes, left out, change nothing; and step sizes do not matter."""
    data, snapping = _heap(seed)
    other, skipping = _heap(seed)
    idled = 0
    for step in range(120):
        data.ctrl[0] = other.ctrl[0] = -14.0 if step > 40 else 6.0
        for part in (3, 7):
            snapping.step(data, part)
        if skipping.idle(other.qpos, other.qvel, 10):
            mujoco.mj_step(skipping.model, other, 10)
            skipping.idled(10)
            idled += 1
        else:
            skipping.step(other, 10)
        assert np.array_equal(data.qpos, other.qpos)
        assert np.array_equal(data.qvel, other.qvel)
        assert snapping.connections.edges == skipping.connections.edges
    assert snapping.locked > 0
    assert idled > 0


def test_far_bricks_are_idle_and_near_ones_are_not():
    spec = scene()
    add_baseplate(spec, "plate")
    add_brick(spec, "brick", "2x4", "red", pos=(0, 0, 0.1))
    data, snapping = begin(spec)
    assert snapping.idle(data.qpos, data.qvel, 10)
    data.qvel[2] = -5.0  # 10 cm in 20 ms
    assert not snapping.idle(data.qpos, data.qvel, 10)
    data.qvel[2] = 0
    data.qpos[:3] = 0.115, 0, 0.013  # beside it
    assert snapping.idle(data.qpos, data.qvel, 10)
    data.qpos[0] = 0.07  # over its edge
    assert not snapping.idle(data.qpos, data.qvel, 10)
    data.qpos[3:7] = 0.8, 0.6, 0, 0  # turned on its side
    assert snapping.idle(data.qpos, data.qvel, 10)
