"""Embodiments of policies that LeRobot makes from its own features."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, Embodiment, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.lerobot import EMBODIMENT_FILE
from tandem_policies.adapters.embodiments import of_dataset, of_features

ARM = {
    "observation.images.wrist": {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["shoulder_pan.pos", "Gripper.pos", "x.force"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["shoulder_pan.pos", "Gripper.pos"]},
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
}
STATISTICS = {
    "observation.state": {"min": np.array([-1.0, 2.0, 0.0]), "max": np.array([1.0, 2.0, 5.0])},
    "action": {"min": np.array([-90.0, 0.0]), "max": np.array([90.0, 100.0])},
}


def dataset(root, features=ARM, fps=50, tasks=("pick it up",)):
    return SimpleNamespace(
        repo_id="me/arm",
        root=root,
        features=features,
        fps=fps,
        robot_type="SO-101 Follower",
        tasks=SimpleNamespace(index=list(tasks)),
    )


def test_names_rate_and_limits_come_from_the_data(tmp_path):
    body = of_dataset(dataset(tmp_path), STATISTICS)
    assert (body.name, body.rate_hz, body.hears_instruction) == ("so_101_follower", 50.0, True)
    assert [(camera.name, camera.shape) for camera in body.cameras] == [("wrist", (48, 64, 3))]
    joint = StateSource.JOINT_POSITION
    assert [(scalar.name, scalar.source) for scalar in body.state] == [
        ("shoulder_pan", joint),
        ("gripper", joint),
        ("x/force", StateSource.POSE),
    ]
    assert [(scalar.low, scalar.high) for scalar in body.state] == [(-1, 1), (1.5, 2.5), (0, 5)]
    assert [(scalar.name, scalar.low, scalar.high) for scalar in body.action] == [
        ("shoulder_pan", -90, 90),
        ("gripper", 0, 100),
    ]
    assert {scalar.kind for scalar in body.action} == {ActionKind.ABSOLUTE}
    assert Embodiment.from_dict(json.loads(json.dumps(body.to_dict()))) == body


def test_a_carried_embodiment_is_taken_whole(tmp_path, body):
    robot = body()
    (tmp_path / "meta").mkdir()
    (tmp_path / EMBODIMENT_FILE).write_text(json.dumps(robot.to_dict()))
    assert of_dataset(dataset(tmp_path, robot.lerobot_features(), fps=10), {}) == robot
    with pytest.raises(TandemError, match=r"fps is 50 \(wanted: 10"):
        of_dataset(dataset(tmp_path, robot.lerobot_features()), {})
    with pytest.raises(TandemError, match=r"observation.state has shape \(3,\) \(allowed: \(2,\)"):
        of_dataset(dataset(tmp_path, ARM, fps=10), {})
    (tmp_path / EMBODIMENT_FILE).write_text("{")
    with pytest.raises(TandemError, match=r"embodiment\.json: Expecting"):
        of_dataset(dataset(tmp_path, fps=10), {})


def test_without_tasks_no_instruction_is_heard(tmp_path):
    assert not of_dataset(dataset(tmp_path, tasks=("",)), STATISTICS).hears_instruction


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"motors": ["a", "b"]}, ["a", "b"]),
        ({"x": 0, "y": 1}, ["x", "y"]),
        (None, ["action_0", "action_1"]),
        (["motors"], ["action_0", "action_1"]),
        (["A b", "a.b.c"], ["a_b", "a/b_c"]),
        (["7", "7.pos"], ["action_0", "action_1"]),
    ],
)
def test_every_way_of_naming_gives_names(names, found):
    features = {**ARM, "action": {"shape": (2,), "names": names}}
    assert [scalar.name for scalar in of_features(features, "here").action] == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": None}, "no feature 'action'"),
        ({"action": {"shape": (2, 2)}}, r"action has shape \(2, 2\) \(allowed: \(N,\)\)"),
        ({"observation.image": {"dtype": "image", "shape": (3, 8, 8)}}, r"'observation.image' \(allowed: observ"),
        ({"observation.images.Top": {"dtype": "image", "shape": (3, 8, 8)}}, "allowed: observation.images.<name>"),
        ({"observation.images.top": {"dtype": "image", "shape": (1, 8, 8)}}, "has 1 channels of colour"),
        (
            {"observation.images.top": {"dtype": "image", "shape": (3, 8, 8), "info": {"is_depth_map": True}}},
            "3 channels of depth",
        ),
    ],
)
def test_what_no_embodiment_describes_is_refused(change, message):
    features = {key: item for key, item in {**ARM, **change}.items() if item is not None}
    with pytest.raises(TandemError, match=message):
        of_features(features, "here")


def test_statistics_of_another_shape_are_refused():
    with pytest.raises(TandemError, match=r"statistics action.min of shape \(3,\) \(allowed: \(2,\)"):
        of_features(ARM, "here", statistics={"action": {"min": np.zeros(3)}})
