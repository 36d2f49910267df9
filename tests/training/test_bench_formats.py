"""The bench's rows about LeRobotDatasets and replay buffers, on a store small enough for a test."""

import math

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store
from tandem_training.benches._data_formats import _decibels, roundtrip_lerobot, roundtrip_replay

BODY = Embodiment(
    "arm",
    20.0,
    True,
    (Camera("top", 32, 48),),
    (StateScalar("elbow", "rad", -3.0, 3.0, StateSource.JOINT_POSITION),),
    (ActionScalar("elbow", "rad", -3.0, 3.0, ActionKind.ABSOLUTE),),
)


def record(path, shift: int = 0) -> Store:
    """Smooth pictures, as cameras make them."""
    ramp = np.linspace(20, 200, 48)[None, :, None] + np.linspace(0, 30, 32)[:, None, None] + np.zeros((1, 1, 3))
    with Recorder(path, BODY, fsync=False) as recorder:
        for seed in range(2):
            frames = [
                Frame(
                    Observation(
                        {"top": (ramp + t + shift).astype(np.uint8)}, np.float32([t]), "go", t * BODY.period_ns
                    ),
                    np.float32([-t]),
                    Source.EXPERT,
                    reward=0.1 * t,
                )
                for t in range(4)
            ]
            recorder.write_episode(EpisodeInfo(seed, "go", provenance={"by": "me"}), frames)
    return Store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return record(tmp_path_factory.mktemp("bench") / "episodes.zarr")


@pytest.mark.parametrize("row", [roundtrip_lerobot, roundtrip_replay])
def test_everything_comes_back(store, tmp_path, row):
    found = row(store, tmp_path)
    assert (found.name, found.value, found.repeats) == (row.__name__, True, 2), found.note
    assert "frames/s out" in found.note


def test_decibels_tell_the_worst_frame(store, tmp_path):
    assert _decibels(store, store) == math.inf
    assert _decibels(store, record(tmp_path / "brighter.zarr", shift=1)) == pytest.approx(48.13, abs=0.01)
