"""The scripted experts solve their tasks through the action space alone, in every mode, and say what they are about."""

import numpy as np
import pytest

from tandem_datasets.compare import episodes_equal
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_sim import registry
from tandem_sim.rollout import run

SEED = 500_000
TASKS = ("reach", "pick", "place", "stack", "build")


def spec(task, **options):
    return EnvSpec(f"tandem/H1{task.capitalize()}-v0", {"cameras": [], **options})


def roll(task, episodes=2, seed=SEED, record=None, workers=1, label=False, rollout=None, **options):
    request = RolloutRequest(
        spec(task, **options), EXPERT, episodes, seed, record=record, workers=workers, label=label,
        options=rollout or {},
    )  # fmt: skip
    return run(request, lambda result: None)


def outcomes(results):
    return [result.info.outcome for result in results]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_solved(task):
    assert outcomes(roll(task)) == ["success"] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"action_mode": "joint"},
        {"rotation": "full", "rate_hz": 25},
        {"rate_hz": 20, "strict": True},
        {"pitch_mm": 8},
        {"randomise": True, "distractors": 2},
        {"privileged": True, "wordings": "varied"},
    ],
    ids=str,
)
def test_stacking_works_in_every_mode(options):
    assert outcomes(roll("stack", **options)) == ["success"] * 2


def test_a_brick_is_pressed_on_once_and_stays():
    """Moving the arm while it still gripped peeled bricks off the plate again in every fourth episode."""
    assert max(result.steps for result in roll("place", 6)) < 230


def test_a_plan_of_four_bricks_is_built():
    plan = "red 2x4 on blue 2x4, shifted by one stud; green 2x2 on red 2x4, shifted by one stud; white 2x3 on green 2x2"
    assert outcomes(roll("build", 1, plan=plan)) == ["success"]


def test_both_arms_build():
    env = registry.make(spec("build"))
    used = set()
    for seed in range(SEED, SEED + 4):
        env.reset(seed=seed)
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.unwrapped.expert_action())
            held = env.unwrapped.world.observer.reader.read(env.unwrapped.world.data)[[45, 47]]
            used |= {arm for arm, force in zip(("left", "right"), held, strict=True) if force > 5}
            done = terminated or truncated
    env.close()
    assert used == {"left", "right"}


def test_the_expert_writes_nothing_and_repeats_itself():
    env = registry.make(spec("stack", action_mode="joint"))
    env.reset(seed=SEED)
    world = env.unwrapped.world
    for _ in range(5):
        before = world.data.qpos.tobytes() + world.data.qvel.tobytes() + world.data.ctrl.tobytes()
        first, again = env.unwrapped.expert_action(), env.unwrapped.expert_action()
        assert (first == again).all()
        assert world.data.qpos.tobytes() + world.data.qvel.tobytes() + world.data.ctrl.tobytes() == before
        env.step(first)
    env.close()


def test_motions_are_smooth_and_never_cut():
    env = registry.make(spec("stack", strict=True))
    env.reset(seed=SEED)
    speeds, info = [], {}
    for _ in range(300):
        _, _, terminated, _, info = env.step(env.unwrapped.expert_action())
        speeds.append(info["executed_action"][[0, 1, 2, 5, 6, 7]] * 50)
        if terminated:
            break
    env.close()
    assert info["is_success"]
    assert np.abs(np.diff(speeds, axis=0)).max() * 50 < 4.0  # m/s2


def test_a_disturbed_expert_recovers_and_its_labels_stay_clean(tmp_path):
    results = roll("stack", 3, 3, tmp_path / "store", label=True, rollout={"recovery": 0.5})
    assert outcomes(results).count("success") >= 2
    store = Store(tmp_path / "store")
    off = store.load("action_requested") - store.load("action_label")
    assert 0.02 < (np.abs(off).max(axis=1) > 0).mean() < 0.4
    assert store.info(0).provenance["recovery"] == 0.5


def test_a_brick_that_was_taken_away_is_taken_again():
    """Somebody else acts for a while: the expert goes on from where that leads."""
    env = registry.make(spec("pick"))
    env.reset(seed=SEED)
    done, step = False, 0
    while not done:
        action = env.unwrapped.expert_action()
        if 60 <= step < 75:  # once it is lifted, the grips open
            action[[4, 9]] = 0.07
        _, _, terminated, truncated, info = env.step(action)
        done, step = terminated or truncated, step + 1
    env.close()
    assert info["is_success"]


def test_subgoals_are_recorded_with_every_frame(tmp_path):
    roll("stack", 1, record=tmp_path / "store")
    told = Store(tmp_path / "store").subgoals(0)
    upper = told[0].removeprefix("move above the ")
    phases = list(dict.fromkeys(told))
    assert phases[1] == f"grasp the {upper}"
    assert any(phase.startswith(f"press the {upper} onto the ") for phase in phases)
    assert phases[-2:] == [f"move away from the {upper}", "done"]


def test_workers_record_the_same_store(tmp_path):
    options = {"label": True, "rollout": {"noise": 0.0003, "recovery": 0.2}}
    one = roll("pick", 3, record=tmp_path / "one", **options)
    two = roll("pick", 3, record=tmp_path / "two", workers=2, **options)
    assert [result.index for result in two] == [0, 1, 2]
    assert outcomes(one) == outcomes(two)
    stores = Store(tmp_path / "one"), Store(tmp_path / "two")
    assert [episodes_equal(stores[0], k, stores[1], k) for k in range(3)] == [[], [], []]
    assert (stores[0].load("stamp") == stores[1].load("stamp")).all()
