from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, Camera, Encoding
from tandem_sim.blockfind.static import EMBODIMENT
from tandem_sim.blockfind.task import EMBODIMENT as BLOCKFIND
from tandem_training.sheets import OURS, TRUE, Case, sheet


def case(embodiment, theirs, ours, **changes):
    camera = embodiment.cameras[0]
    return Case(
        images={camera.name: np.zeros(camera.shape, camera.dtype)},
        state=changes.pop("state", np.full(embodiment.state_dim, 2, np.float32)),
        instruction="find the red block",
        theirs=np.array(theirs, np.float32),
        ours=np.array(ours, np.float32),
        **changes,
    )


def centre(picture, colour):
    """Mean (x, y) of the pixels of a colour below the key, from the upper left corner of the first tile."""
    y, x = np.nonzero((picture[30:] == colour).all(-1))
    return np.array([x.mean() - 10, y.mean()])


def test_arrows_point_where_the_actions_do():
    picture = sheet(EMBODIMENT, [case(EMBODIMENT, [[1, 0]], [[0, -1]])])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    begin = np.array([4.5, 4.5]) / 8 * 208
    right, up = centre(picture, TRUE) - begin, centre(picture, OURS) - begin
    assert right[0] > 20
    assert abs(right[1]) < 5
    assert up[1] < -20
    assert abs(up[0]) < 5


def test_arrows_begin_at_the_agent():
    here = sheet(BLOCKFIND, [case(BLOCKFIND, [[0.5, 0]], [[0, 0]], state=np.array([2, 6], np.float32))])
    x, y = centre(here, TRUE) / 208 * 8
    assert 2 < x < 4
    assert abs(y - 6) < 0.3


def test_other_actions_are_strips_over_the_chunk():
    joints = tuple(replace(scalar, kind=ActionKind.ABSOLUTE) for scalar in EMBODIMENT.action)
    arm = replace(EMBODIMENT, name="arm", action=joints)
    rising = np.stack([np.linspace(-1, 1, 8), np.zeros(8)], axis=1)
    low, high = (sheet(arm, [case(arm, rising, rising * 0 + level)]) for level in (-0.5, 0.5))
    assert low.shape == high.shape
    assert low.shape[0] > sheet(EMBODIMENT, [case(EMBODIMENT, [[1, 0]], [[1, 0]])]).shape[0]
    assert centre(low, OURS)[1] > centre(high, OURS)[1] + 3  # more is higher
    sheet(arm, [case(arm, rising[:1], rising[:1])])  # a single action


def test_attention_lights_up_what_was_looked_at():
    bright = np.zeros((8, 8), np.float32)
    bright[0, 0] = 1
    looked = case(EMBODIMENT, [[0, 0]], [[0, 0]], attention=bright)
    looked = replace(looked, images={"top": np.full((64, 64, 3), 200, np.uint8)})
    tile = sheet(EMBODIMENT, [looked])[30:, 10:]
    assert tile[4, 4].mean() > tile[150, 150].mean() + 50


@pytest.mark.parametrize("encoding", [Encoding.DEPTH, Encoding.SEGMENTATION])
def test_every_kind_of_camera_and_none(encoding):
    depth = replace(EMBODIMENT, name="deep", cameras=(Camera("top", 48, 64, encoding),))
    assert sheet(depth, [case(depth, [[1, 0]], [[1, 0]])] * 5).shape[0] > 2 * 156
    blind = replace(BLOCKFIND, cameras=())
    felt = Case({}, np.zeros(2, np.float32), "", np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))
    assert sheet(blind, [felt]).any()
