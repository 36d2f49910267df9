"""What comes in is checked against the embodiment, and the error names the field."""

from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import EpisodeInfo, blank_observation, check_observation, check_vector


@pytest.fixture
def observation(embodiment, make_frames):
    return make_frames(embodiment, 1)[0].observation


def test_a_right_observation_passes(embodiment, observation):
    check_observation(embodiment, observation, "here")


def test_a_blank_observation_fits(embodiment):
    for hears in (True, False):
        body = replace(embodiment, hears_instruction=hears)
        blank = blank_observation(body)
        check_observation(body, blank, "here")
        assert bool(blank.instruction) == hears


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {}}, "cameras"),
        ({"images": {"top": np.zeros((6, 8, 3), np.uint8), "deep": np.zeros((4, 5, 1), np.uint8)}}, "'deep' is uint8"),
        ({"images": {"top": np.zeros((8, 6, 3), np.uint8), "deep": np.zeros((4, 5, 1), np.uint16)}}, "'top' is"),
        ({"state": np.zeros(2, np.float32)}, "state is float32"),
        ({"state": np.zeros(3)}, "state is float64"),
        ({"state": np.array([0, np.nan, 0], np.float32)}, "not finite"),
    ],
)
def test_a_wrong_observation_is_named(embodiment, observation, changes, words):
    with pytest.raises(TandemError, match=words):
        check_observation(embodiment, replace(observation, **changes), "here")


def test_vectors():
    check_vector(np.zeros(2, np.float32), 2, "here")
    with pytest.raises(TandemError, match=r"here is float32 \(1,\)"):
        check_vector(np.zeros(1, np.float32), 2, "here")


def test_streams_without_a_stamp_carry_the_tick(observation):
    bare = replace(observation, stream_stamps_ns={"top": 3}, stamp_ns=7)
    assert (bare.stream_stamp_ns("top"), bare.stream_stamp_ns("state")) == (3, 7)


def test_each_episode_has_its_own_uuid():
    assert EpisodeInfo(0, "").uuid != EpisodeInfo(0, "").uuid


def test_unknown_suggests_the_nearest():
    assert "did you mean 'nano'?" in str(unknown("policy", "nan0", ["nano", "act"]))
