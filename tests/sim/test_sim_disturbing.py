"""Noise and disturbances change what is executed, by as much as was asked for, and not where an expert rests."""

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, ActionScalar, Embodiment, StateScalar, StateSource
from tandem_sim.disturbing import PUSH, TURN, Disturber

MOVING = np.array([0.005, 0.3, 0.02], np.float32)


@pytest.fixture
def rig():
    return Embodiment(
        name="rig",
        rate_hz=50.0,
        hears_instruction=False,
        cameras=(),
        state=(StateScalar("elbow", "rad", -2.0, 2.0, StateSource.JOINT_POSITION),),
        action=(
            ActionScalar("tcp/dx", "m", -0.01, 0.01, ActionKind.DELTA_STEP),
            ActionScalar("elbow", "rad", -2.0, 2.0, ActionKind.ABSOLUTE, rate_limit=3.0),
            ActionScalar("left_grip", "m", 0.0, 0.07, ActionKind.ABSOLUTE),
        ),
    )


def disturbed(rig, seed=0, noise=0.0, recovery=0.0, steps=3000, action=MOVING):
    disturber = Disturber(rig, np.random.default_rng(seed), noise, recovery)
    return np.stack([disturber(action) for _ in range(steps)])


def test_without_options_nothing_changes(rig):
    assert (disturbed(rig) == MOVING).all()


def test_noise_is_as_strong_as_asked_for(rig):
    off = disturbed(rig, noise=0.002) - MOVING
    np.testing.assert_allclose(off.std(axis=0), 0.002, rtol=0.1)
    assert off.dtype == np.float32
    assert (disturbed(rig, noise=0.002) - MOVING == off).all()
    assert (disturbed(rig, seed=1, noise=0.002) - MOVING != off).any()


def test_there_is_no_noise_at_rest(rig):
    still = np.array([0.00005, 0.3, 0.02], np.float32)
    off = disturbed(rig, noise=0.002, action=still) - still
    assert (off[1:] == 0).all()  # before the first step nobody knows whether the elbow rests


def test_disturbances_push_or_open_a_grip_as_often_as_asked_for(rig):
    off = disturbed(rig, recovery=0.5) - MOVING
    pushed = np.abs(off[:, :2]).max(axis=1) > 0
    opened = off[:, 2] > 0
    assert not (pushed & opened).any()
    assert np.abs(off[:, 0]).max() <= PUSH * 0.01 + 1e-6
    assert np.abs(off[:, 1]).max() <= TURN + 1e-6
    assert np.allclose(off[opened, 2], 0.07 - 0.02)
    begins = np.count_nonzero(np.diff((pushed | opened).astype(int), prepend=0) > 0)
    assert 15 <= begins <= 45  # 60 s, but none begins during another
    assert 0.05 < pushed.mean() < 0.2
    assert 0.05 < opened.mean() < 0.2
