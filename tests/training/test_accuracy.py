from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind
from tandem_sim.blockfind.static import EMBODIMENT
from tandem_sim.blockfind.task import EMBODIMENT as BLOCKFIND
from tandem_training.accuracy import are_directions, directions, errors


def turned(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def test_right_is_within_a_cosine_of_point_eight():
    ours = np.array([turned(36), turned(38), [0.01, 0], [-1, 0]], np.float32)
    found = directions(EMBODIMENT, ours, np.array([[1, 0]] * 4, np.float32))
    assert found.right.tolist() == [True, False, True, False]  # the length does not count
    np.testing.assert_allclose(found.cosine[[0, 3]], [np.cos(np.radians(36)), -1], atol=1e-6)


def test_targets_without_a_direction_are_apart():
    ours = np.array([[0.49, 0], [0.36, 0.36], [0, 0]], np.float32)
    found = directions(EMBODIMENT, ours, np.array([[0, 0], [0, 0], [1, 0]], np.float32))
    assert found.moves.tolist() == [False, False, True]
    assert found.right.tolist() == [True, False, False]  # the second is nearer to a direction than to none


def test_errors_are_euclidean():
    np.testing.assert_allclose(errors(np.array([[3.0, 0]]), np.array([[0, 4.0]])), [5])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, True),
        ({"kind": ActionKind.ABSOLUTE}, False),
        ({"unit": "m"}, False),
    ],
)
def test_directions_are_relative_and_of_one_unit(change, wanted):
    action = (replace(EMBODIMENT.action[0], **change), EMBODIMENT.action[1])
    assert are_directions(replace(EMBODIMENT, action=action)) == wanted
    assert are_directions(BLOCKFIND)
    assert not are_directions(replace(EMBODIMENT, action=EMBODIMENT.action[:1]))
