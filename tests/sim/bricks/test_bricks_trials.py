"""The trials behind `tandem bench sim`, with few presses each; the bench runs a hundred."""

import pytest

from tandem_sim.bricks import trials


def test_one_thing_wrong_never_locks_and_nothing_else_was_wrong():
    assert set(trials.snap_false(5).values()) == {0}
    control = trials.snap_control(5)
    assert set(control) == set(trials.AXES) - {"z"}
    assert set(control.values()) == {5}


@pytest.mark.parametrize("pitch", [0.016, 0.008])
def test_right_presses_lock_and_stay(pitch):
    found = trials.snap_true(10, seed=3, pitch=pitch)
    assert found.attached == found.count == 10
    assert found.residual_mm <= 0.02
    assert found.jump_mm <= 0.5


def test_fits_let_go_at_the_set_force_and_torque():
    found = trials.snap_release()
    assert len(found.pull) == 9
    assert len(found.peel) == 18
    assert found.worst < 0.05


def test_a_tower_of_ten_stands():
    found = trials.tower(seconds=2.0)
    assert found.joined == 9
    assert found.stands
