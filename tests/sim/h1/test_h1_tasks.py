import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.bricks.grid import Seat
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.scene import TABLE_TOP, brick_name
from tandem_sim.h1.settings import TASKS, Settings
from tandem_sim.h1.tasks import make
from tandem_sim.h1.tasks.base import SIZES
from tandem_sim.h1.tasks.place import CELLS
from tandem_sim.h1.tasks.plan import Plan, Step, draw, parse, same_seat, shifted_seat
from tandem_sim.spaces import MAX_INSTRUCTION

FAST = {"cameras": (), "action_mode": "joint"}


def task_of(name, **options):
    return make(Settings(task=name, **{"cameras": (), **options}), TABLE_TOP)


def env_of(name, seed=0, **options):
    env = H1Env(name, **{**FAST, **options})
    env.reset(seed=seed)
    return env


def held_for(env, seconds):
    """What the last step of a while of holding still gave, or that of the episode's end."""
    for _ in range(round(seconds * env.settings.rate_hz)):
        *_, terminated, truncated, info = env.step(None)
        if terminated or truncated:
            break
    return terminated, truncated, info


def attach(env, upper, lower, seat):
    below = "plate" if lower < 0 else brick_name(lower)
    env.world.snapping.attach(env.world.data, below, brick_name(upper), seat.i, seat.j, seat.turns)


def put(env, slot, x, y, z):
    begin = env.world.scene.brick_qpos + 7 * slot
    env.world.data.qpos[begin : begin + 3] = x, y, z


@pytest.mark.parametrize("name", TASKS)
def test_layouts_are_apart_within_reach_and_say_whom_they_mean(name):
    task = task_of(name)
    said = set()
    for seed in range(25):
        layout = task.lay_out(np.random.default_rng(seed))
        assert sorted(layout.roles) == list(range(len(task.sizes)))
        assert len(set(layout.colours)) == len(layout.colours)
        above = {piece.upper for piece in layout.attachments}
        spots = [(slot, place) for slot, place in enumerate(layout.places) if slot not in above]
        for at, (slot, place) in enumerate(spots):
            assert 0.25 < place.x < 0.42
            assert abs(place.y) < 0.26
            for other, there in spots[at + 1 :]:
                apart = np.hypot(place.x - there.x, place.y - there.y)
                assert apart > task.radius(slot) + task.radius(other) + 0.02
        assert layout.colours[layout.roles[0]] in layout.instruction
        assert len(layout.instruction) <= MAX_INSTRUCTION
        said.add(layout.instruction)
    assert len(said) > 5


@pytest.mark.parametrize("name", TASKS)
def test_wordings_change_nothing_but_the_words(name):
    plain, varied = (task_of(name, wordings=kind) for kind in ("plain", "varied"))
    layouts = [(plain.lay_out(np.random.default_rng(s)), varied.lay_out(np.random.default_rng(s))) for s in range(20)]
    assert all(one.places == other.places and one.colours == other.colours for one, other in layouts)
    assert any(one.instruction != other.instruction for one, other in layouts)


@pytest.mark.parametrize("seat", [Seat(0, 0, 0), Seat(1, 2, 0), Seat(-1, 0, 1)])
def test_a_brick_on_the_named_one_is_a_success_once_it_has_lain_half_a_second(seat):
    env = env_of("stack")
    upper, lower = env.layout.roles[:2]
    attach(env, upper, lower, seat)
    total = steps = 0
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(None)
        total, steps = total + reward, steps + 1
    assert steps in (25, 26)
    assert info["is_success"]
    assert info["outcome"] == "success"
    assert all(info["grade"].values())
    assert total == pytest.approx(1.0)


def test_failures_of_stack_have_names():
    other_way = env_of("stack", horizon=2)
    upper, lower = other_way.layout.roles[:2]
    attach(other_way, lower, upper, Seat(0, 0, 0))
    assert held_for(other_way, 1)[2]["outcome"] == "upside_down"
    third = env_of("stack", horizon=2)
    attach(third, third.layout.roles[2], third.layout.roles[1], Seat(0, 0, 0))
    assert held_for(third, 1)[2]["outcome"] == "wrong_brick"
    assert held_for(env_of("stack", horizon=2), 1)[2]["outcome"] == "not_moved"
    loose = env_of("stack", horizon=2)
    x, y, z = loose.world.observer.poses(loose.world.data.qpos)[loose.layout.roles[1]][:3]
    put(loose, loose.layout.roles[0], x, y, z + loose.task.height + 1e-4)
    assert held_for(loose, 1)[2]["outcome"] == "not_connected"


def test_a_needed_brick_off_the_table_ends_the_episode_and_a_distractor_does_not():
    env = env_of("stack")
    put(env, env.layout.roles[0], 0.9, 0.0, 0.3)
    terminated, _, info = held_for(env, 0.1)
    assert terminated
    assert (info["outcome"], info["is_success"]) == ("fell", False)
    env = env_of("stack", horizon=3)
    put(env, env.layout.roles[2], 0.9, 0.0, 0.3)
    assert held_for(env, 1)[2]["outcome"] == "not_moved"


@pytest.mark.parametrize("plate", ["8x8", "16x16"])
def test_the_named_cell_counts(plate):
    env = env_of("place", seed=2, baseplate=plate, horizon=40)
    slot, size = env.layout.roles[0], env.task.sizes[env.layout.roles[0]]
    cell = next(name for name in CELLS if f"the {name} of" in env.task_description)
    n, step = env.task.plate().nx, {"8x8": 2, "16x16": 4}[plate]
    i, j = ((n - side) // 2 + step * part for side, part in zip((size.nx, size.ny), CELLS[cell], strict=True))
    attach(env, slot, -1, Seat(i, j, 0))
    assert held_for(env, 1)[2]["outcome"] == "success"
    env.reset(seed=2)
    attach(env, slot, -1, Seat(n // 2 - i, n // 2 - j, 0) if (i, j) != (n // 2 - i, n // 2 - j) else Seat(0, 0, 0))
    assert held_for(env, 1)[2]["outcome"] == "wrong_cell"


def test_a_plan_built_is_a_success_and_a_wrong_one_is_not():
    text = "red 2x4 on blue 2x4, shifted by one stud; green 2x2 on red 2x4, turned"
    env = env_of("build", plan=text, horizon=40)
    assert env.task_description == f"build: {text}"
    for step in env.task.plan.steps:
        attach(env, step.upper, step.lower, step.seat)
    assert held_for(env, 1)[2]["outcome"] == "success"
    env.reset(seed=1)
    attach(env, 1, 0, Seat(0, 0, 0))
    _, truncated, info = held_for(env, 1)
    assert (truncated, info["outcome"]) == (True, "wrong_place")
    env.reset(seed=1)
    attach(env, 1, 0, env.task.plan.steps[0].seat)
    info = held_for(env, 1)[2]
    assert info["outcome"] == "partly_built"
    assert info["progress"] == pytest.approx(0.45)


def test_a_pair_is_joined_at_first_and_has_to_be_apart_at_last():
    env = env_of("disassemble", horizon=60)
    upper, lower = env.layout.roles[:2]
    assert (upper, lower) in env.world.observer.seats(env.world.connections)
    assert held_for(env, 2)[2]["outcome"] == "still_joined"
    env.reset(seed=0)
    env.world.snapping.reset(env.world.data)
    put(env, upper, 0.30, 0.20, TABLE_TOP + env.task.height / 2)
    assert held_for(env, 2)[2]["outcome"] == "success"


def test_the_privileged_state_says_where_the_named_brick_is_and_who_sits_on_whom():
    env = H1Env("stack", privileged=True, **FAST)
    observation, _ = env.reset(seed=3)
    names = [scalar.name for scalar in env.embodiment.state]
    state = dict(zip(names, observation["agent_pos"], strict=True))
    upper, lower = env.layout.roles[:2]
    poses = env.world.observer.poses(env.world.data.qpos)
    for role, slot in ((0, upper), (1, lower)):
        assert [state[f"brick_{role}/{axis}"] for axis in "xyz"] == pytest.approx(poses[slot][:3])
    assert state["brick_0/on_brick_1"] == 0
    attach(env, upper, lower, Seat(0, 0, 0))
    observation = env.step(None)[0]
    assert observation["agent_pos"][names.index("brick_0/on_brick_1")] == 1
    assert observation["agent_pos"][names.index("brick_1/on_brick_0")] == 0


def test_plans_are_read_as_they_are_written():
    text = "red 2x4 on blue 2x4, shifted by one stud; green 2x2 on red 2x4, shifted by one stud sideways, turned"
    plan = parse(text)
    assert plan.colours == ("blue", "red", "green")
    assert plan.sizes == (SIZES["2x4"], SIZES["2x4"], SIZES["2x2"])
    assert plan.steps == (Step(1, 0, Seat(0, 1, 0)), Step(2, 1, Seat(1, 1, 1)))
    assert parse(plan.text) == plan
    assert parse("Red 2x4 on blue 2x4,  shifted by 2 studs.").steps[0].seat == Seat(0, 2, 0)
    both = parse("red 2x2 on blue 2x4, shifted by one stud; green 2x2 on blue 2x4, shifted by one stud the other way")
    assert parse(both.text) == both
    for seed in range(30):
        drawn = draw(np.random.default_rng(seed), ("red", "blue", "white"), [SIZES[k] for k in ("2x4", "2x3", "2x2")])
        assert parse(drawn.text) == drawn


def test_a_mirrored_seat_answers_the_plan_and_another_does_not():
    four, two = SIZES["2x4"], SIZES["2x2"]
    assert same_seat(Seat(0, 1, 0), Seat(0, -1, 2), four, four)
    assert not same_seat(Seat(0, 1, 0), Seat(0, 0, 0), four, four)
    assert not same_seat(Seat(0, 1, 0), Seat(0, 1, 1), four, four)
    assert same_seat(shifted_seat(two, four, 1, 0), Seat(0, 0, 0), two, four)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read ''"),
        ("build a house", "cannot read 'build a house'"),
        ("red 2x4 on blue", "cannot read"),
        ("red 2x4 on blue 2x4, shifted by some studs", "cannot read 'some studs'"),
        ("red 2x4 on blue 2x4, upside down", "cannot read 'upside down'"),
        ("pink 2x4 on blue 2x4", "colour: unknown name 'pink'"),
        ("red 2x5 on blue 2x4", "brick: unknown name '2x5'"),
        ("red 2x4 on blue 2x4; green 2x2 on white 2x2", "'white 2x2', which is not there"),
        ("red 2x4 on blue 2x4; red 2x4 on blue 2x4", "placed twice"),
        ("red 2x4 on blue 2x4, shifted by nine studs", "no stud is shared|cannot read"),
        ("red 2x4 on blue 2x4, shifted by 9 studs", "cannot stand on blue 2x4: no stud is shared"),
        ("red 2x4 on blue 2x2, shifted by one stud sideways; white 2x4 on red 2x4, shifted by 3 studs", "tips over"),
        ("red 2x2 on blue 2x4; green 2x2 on blue 2x4, shifted by one stud", "green 2x2 collides with red 2x2"),
        (
            "red 2x4 on blue 2x4, shifted by 2 studs; green 2x4 on red 2x4, shifted by 2 studs the other way; "
            "white 2x2 on blue 2x4, shifted by one stud the other way",
            "white 2x2 collides with green 2x4",
        ),
        ("red 2x4 on blue 2x4; " * 40, "allowed: at most 600"),
    ],
)
def test_plans_that_cannot_be_are_refused_in_one_line(text, words):
    with pytest.raises(TandemError, match=words) as caught:
        H1Env("build", plan=text, **FAST)
    assert "\n" not in str(caught.value)


def test_a_plan_made_in_code_is_checked_too():
    with pytest.raises(TandemError, match="collides"):
        Plan(
            ("red", "blue", "white"),
            (SIZES["2x4"], SIZES["2x2"], SIZES["2x2"]),
            (Step(1, 0, Seat(0, 0, 0)), Step(2, 0, Seat(0, 1, 0))),
        )
