import numpy as np
import pytest

from tandem_sim.h1 import rates
from tandem_sim.h1.env import H1Env


def test_motions_are_smooth_within_limits_and_the_same_for_a_seed():
    env = H1Env("stack", action_mode="ee_delta", cameras=())
    deeds = rates.actions(env, 40, seed=2)
    assert deeds.tobytes() == rates.actions(env, 40, seed=2).tobytes()
    assert deeds.tobytes() != rates.actions(env, 40, seed=3).tobytes()
    assert all(deed in env.action_space for deed in deeds)
    assert np.abs(np.diff(deeds[:, :3], axis=0)).max() < 0.002


@pytest.mark.slow
def test_many_are_measured_against_two_bare_processes():
    found = rates.rate_vector(repeats=2, num_envs=4, steps=5, distractors=None)
    assert len(found) == 2
    assert all(0.05 < ratio < 5 for ratio in found)


@pytest.mark.slow
def test_equal_bits_are_found_to_be_equal():
    same = rates.deterministic(steps=5)
    assert len(same) == 10
    assert all(same.values()), same
