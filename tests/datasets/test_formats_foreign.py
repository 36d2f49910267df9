import uuid

import numpy as np
import pytest

from tandem_datasets.embodiment import StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import foreign


@pytest.mark.parametrize(
    ("given", "plain", "qualified"),
    [
        ("shoulder_pan", "shoulder_pan", "shoulder_pan"),
        ("Left Arm/Joint 1", "left_arm_joint_1", "left_arm/joint_1"),
        ("shoulder.pos", "shoulder_pos", "shoulder/pos"),
        ("2nd.joint.pos", "x2nd_joint_pos", "x2nd/joint_pos"),
        ("../../etc", "etc", "etc"),
        ("é", "", "x"),
    ],
)
def test_names_are_made_to_fit(given, plain, qualified):
    assert (foreign.plain_name(given), foreign.qualified_name(given)) == (plain, qualified)


def test_limits_are_the_datas_own():
    assert foreign.data_limits(np.array([-1.0, 3.0]), np.array([2.0, 3.0])) == [(-1.0, 2.0), (2.5, 3.5)]


def test_names_that_collide_give_way_to_numbers():
    limits = [(0.0, 1.0), (0.0, 2.0)]
    pose, joint = StateSource.POSE, StateSource.JOINT_POSITION
    assert [each.name for each in foreign.action_scalars(["a", "a"], limits)] == ["action_0", "action_1"]
    assert [each.name for each in foreign.action_scalars(["a", "b/c"], limits)] == ["a", "b/c"]
    assert [each.name for each in foreign.state_scalars([("a", pose)], limits)] == ["state_0", "state_1"]
    both = foreign.state_scalars([("a", joint), ("a", StateSource.JOINT_VELOCITY)], limits)
    assert [each.name for each in both] == ["a", "a"]


def test_episodes_keep_their_identity():
    first = foreign.episode_uuid("lerobot:abc", 0)
    assert first == foreign.episode_uuid("lerobot:abc", 0) == str(uuid.UUID(first))
    assert len({first, foreign.episode_uuid("lerobot:abc", 1), foreign.episode_uuid("lerobot:abd", 0)}) == 3


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, np.bool_, np.float16])
def test_plain_numbers_become_float32(dtype):
    found = foreign.as_float32(np.array([[0, 1]], dtype), "here")
    assert found.dtype == np.float32
    assert found.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1.0, np.nan]), "here is not finite in row 1"),
        (np.array([1e300]), "here is not finite in row 0"),
        (np.array(["a"]), "here has type <U1"),
        (np.array([None]), "here has type object"),
        (np.array([1j]), "here has type complex128"),
    ],
)
def test_what_is_no_finite_number_is_refused(values, message):
    with pytest.raises(TandemError, match=message):
        foreign.as_float32(values, "here")


def test_sources_have_known_names():
    assert foreign.state_source("pose", "here") is StateSource.POSE
    with pytest.raises(TandemError, match="here: unknown name 'joint'"):
        foreign.state_source("joint", "here")
