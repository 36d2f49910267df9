"""Two recordings of the same thing are equal; any difference is named."""

import uuid
from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.compare import episodes_equal
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


@pytest.fixture
def store_of(tmp_path):
    def make(name, embodiment, info, frames, codec="zstd", earlier=()):
        with Recorder(tmp_path / name, embodiment, codec=codec, fsync=False) as recorder:
            for others in earlier:
                recorder.write_episode(EpisodeInfo(0, "other"), others)
            recorder.write_episode(info, frames)
        return Store(tmp_path / name)

    return make


def _shifted(frames, offset_ns):
    return [
        replace(
            frame,
            observation=replace(
                frame.observation,
                stamp_ns=frame.observation.stamp_ns + offset_ns,
                stream_stamps_ns={key: ns + offset_ns for key, ns in frame.observation.stream_stamps_ns.items()},
            ),
        )
        for frame in frames
    ]


def test_equal_whoever_and_whenever(store_of, embodiment, make_frames):
    frames = make_frames(embodiment, 5, begin_ns=50)
    info = EpisodeInfo(1, "say", begin_ns=20, outcome="success", success=True)
    a = store_of("a", embodiment, info, frames)
    later = replace(info, uuid=str(uuid.uuid4()), provenance={"who": "me"}, begin_ns=10**15 + 20)
    other = [
        replace(f, observation=replace(f.observation, instruction="more wordings")) for f in make_frames(embodiment, 3)
    ]
    b = store_of("b", embodiment, later, _shifted(frames, 10**15), codec="raw", earlier=[other])
    assert episodes_equal(a, 0, b, 1) == []
    assert "data/action" in episodes_equal(a, 0, b, 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: replace(f, action=np.nextafter(f.action, np.float32(9))), ["data/action"]),
        (lambda f: replace(f, action=-np.zeros(2, np.float32)), ["data/action"]),
        (lambda f: replace(f, reward=f.reward + 1e-12), ["data/reward"]),
        (lambda f: replace(f, requested=np.zeros(2, np.float32)), ["data/has_requested"]),
        (lambda f: replace(f, observation=replace(f.observation, instruction="else")), ["data/instruction"]),
    ],
)
def test_differences_are_named(store_of, embodiment, make_frames, change, expected):
    frames = make_frames(embodiment, 3)
    frames[2] = replace(frames[2], action=np.zeros(2, np.float32), requested=None)
    a = store_of("a", embodiment, EpisodeInfo(1, "say"), frames)
    b = store_of("b", embodiment, EpisodeInfo(1, "say"), [*frames[:2], change(frames[2])])
    assert episodes_equal(a, 0, b, 0) == expected


def test_facts_and_missing_columns_are_named(store_of, embodiment, blind, make_frames):
    frames = make_frames(embodiment, 3)
    a = store_of("a", embodiment, EpisodeInfo(1, "say", outcome="x"), frames)
    b = store_of("b", embodiment, EpisodeInfo(2, "say", outcome="y", success=True), frames)
    assert episodes_equal(a, 0, b, 0) == ["meta/outcome", "meta/seed", "meta/success"]
    short = store_of("c", embodiment, EpisodeInfo(1, "say", outcome="x"), frames[:2])
    assert {"data/top", "data/stamp", "meta/end_ns"} <= set(episodes_equal(a, 0, short, 0))
    c = store_of("d", blind, EpisodeInfo(1, "say", outcome="x"), make_frames(blind, 3))
    assert {"data/top", "data/stamp_deep", "data/action"} <= set(episodes_equal(a, 0, c, 0))
