"""`tandem bench experts` on little: that each row is measured and judged, and what its notes tell."""

from pathlib import Path

import pytest

from tandem_training.benches import experts
from tandem_training.config import compose

VARIANT = Path(__file__).parents[1] / "sim" / "h1" / "robots" / "h1_variant.xml"


def rows(wanted, *overrides):
    found = experts.measure(compose("bench_experts", ["workers=1", *overrides]), set(wanted))
    return {row.name: row for row in found if row.name in wanted}


def test_all_rows_are_in_a_group():
    assert [row.name for row in experts.measure(compose("bench_experts", []), set())] == list(experts.TARGETS)


def test_a_row_tells_rate_and_interval():
    found = rows({"expert_reach", "expert_stack_8mm"}, "episodes=2", "+options.action_mode=joint")
    assert [row.value for row in found.values()] == [1.0, 1.0]
    assert all(row.met for row in found.values())
    assert "2 of 2, 95 % interval 0.34 to 1.00" in found["expert_reach"].note


def test_failing_seeds_are_named_and_miss_the_target():
    row = rows({"expert_pick"}, "episodes=2", "seed=70", "+options.horizon=5")["expert_pick"]
    assert (row.value, row.met) == (0.0, False)
    assert "failed: 70 not_lifted, 71 not_lifted" in row.note


@pytest.mark.parametrize("robot", ["null", str(VARIANT)])
def test_another_robot_is_measured_on_every_task(robot):
    row = rows({"expert_by_path"}, "episodes=1", f"robot={robot}")["expert_by_path"]
    assert row.met
    assert row.value == pytest.approx(5.0)
    assert row.note == "h1_variant.xml, 1 seeds each: " + ", ".join(f"{task} 1.00" for task in experts.LEAST)


def test_a_robot_that_is_not_there_breaks_the_row_alone():
    row = rows({"expert_by_path"}, "episodes=1", "robot=nowhere.xml")["expert_by_path"]
    assert row.value is None
    assert not row.met
    assert "nowhere.xml" in row.note
