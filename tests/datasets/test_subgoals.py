"""What an expert was about goes into a store frame by frame, and with its episodes from store to store."""

from dataclasses import replace
from uuid import UUID

import pytest

from tandem_datasets.compare import episodes_equal
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.ops.changing import compact, delete
from tandem_datasets.ops.choosing import Choice
from tandem_datasets.ops.joining import merge
from tandem_datasets.ops.validate import validate
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

PHASES = ["reach the cup"] * 3 + ["grasp the cup"] * 40 + [""] * 2


@pytest.fixture
def telling(blind):
    return replace(blind, tells_subgoals=True)


def record(path, rig, make_frames, phases=PHASES, seed=0):
    frames = make_frames(rig, len(phases), seed)
    told = [replace(frame, subgoal=phase) for frame, phase in zip(frames, phases, strict=True)]
    with Recorder(path, rig, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(seed, "pick the cup", outcome="success"), told)
    return told


def test_subgoals_are_read_as_they_were_recorded(tmp_path, telling, make_frames):
    record(tmp_path / "store", telling, make_frames)
    store = Store(tmp_path / "store")
    assert [frame.subgoal for frame in store.frames(0)] == PHASES
    assert store.subgoals(0) == PHASES
    assert [store.names[code] for code in store.load("subgoal")] == PHASES
    assert not set(store.instructions) & set(PHASES[:-1])
    store.verify(0)


def test_a_code_without_a_text_is_damage(tmp_path, telling, make_frames):
    record(tmp_path / "store", telling, make_frames)
    codes = tmp_path / "store" / "data" / "subgoal" / "c.0"
    content = bytearray(codes.read_bytes())
    content[4:8] = (99).to_bytes(4, "little")
    codes.write_bytes(content)
    with pytest.raises(TandemError, match=r"episode 0: subgoal is damaged \(allowed: codes 0\.\."):
        Store(tmp_path / "store").frames(0)
    found = [flaw.found for flaw in validate(tmp_path / "store").flaws]
    assert "subgoal is no row of the table in frame 1" in " ".join(found)


def test_they_go_along_from_store_to_store(tmp_path, telling, make_frames):
    record(tmp_path / "a", telling, make_frames, ["push"] * 5)
    record(tmp_path / "b", telling, make_frames, seed=7)
    both = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert both.subgoals(1) == PHASES
    assert not episodes_equal(both, 1, Store(tmp_path / "b"), 0)
    delete(tmp_path / "both", Choice(episodes="0"))
    compact(tmp_path / "both")
    assert Store(tmp_path / "both").subgoals(0) == PHASES


def test_other_subgoals_are_another_episode(tmp_path, telling, make_frames):
    record(tmp_path / "a", telling, make_frames)
    record(tmp_path / "b", telling, make_frames, [*PHASES[:-1], "retreat"])
    assert episodes_equal(Store(tmp_path / "a"), 0, Store(tmp_path / "b"), 0) == ["data/subgoal"]


def test_the_digest_covers_them(tmp_path, telling, make_frames):
    """The checksum knows them by their numbers only."""
    frames = [replace(frame, subgoal="reach") for frame in make_frames(telling, 3)]
    for name, subgoal in (("a", "reach"), ("b", "grasp")):
        with Recorder(tmp_path / name, telling, fsync=False) as recorder:
            told = [replace(frame, subgoal=subgoal) for frame in frames]
            recorder.write_episode(EpisodeInfo(0, "say", uuid=str(UUID(int=1))), told)
    one, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert one.load_episodes("checksum") == other.load_episodes("checksum")
    assert one.digest != other.digest


def test_an_embodiment_that_tells_none_has_no_place_for_them(tmp_path, blind, make_frames):
    with pytest.raises(TandemError, match=r"frame 0: subgoal is 'reach the cup' .*tells no subgoals"):
        record(tmp_path / "store", blind, make_frames)
    record(tmp_path / "plain", blind, make_frames, [""] * 3)
    store = Store(tmp_path / "plain")
    assert "subgoal" not in store.keys
    assert store.subgoals(0) == []


def test_contracts_without_subgoals_read_as_they_always_did(blind, telling):
    assert "tells_subgoals" not in blind.to_dict()
    assert Embodiment.from_dict(blind.to_dict()) == blind
    assert Embodiment.from_dict(telling.to_dict()) == telling
    assert not telling.misfits(blind)
