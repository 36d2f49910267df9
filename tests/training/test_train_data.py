from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store
from tandem_training.data import Order, Origin, load_frames, runs, split_episodes, statistics


def test_targets_come_from_labels_experts_and_people(tmp_path, record):
    frames, _ = load_frames([record(tmp_path / "a", ["ep", "nNh", "Nee"])])
    none, executed, label = Origin.NONE, Origin.EXECUTED, Origin.LABEL
    assert frames.origin.tolist() == [executed, executed, none, label, none, label, executed, executed]
    assert frames.usable.tolist() == [0, 1, 3, 5, 6, 7]
    np.testing.assert_allclose(frames.target[[1, 3]], [[0.01, 0.0], [0.51, 0.51]], atol=1e-6)


def test_chunks_are_padded_where_episodes_end(tmp_path, record):
    frames, _ = load_frames([record(tmp_path / "a", ["eee", "ee"])])
    chunks, is_pad = frames.windows(np.array([0, 1, 2, 4]), 3)
    assert is_pad.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 1]]
    np.testing.assert_allclose(chunks[0], [[0, 0], [0.01, 0], [0.02, 0]], atol=1e-6)
    np.testing.assert_allclose(chunks[2], [[0.02, 0]] * 3, atol=1e-6)
    np.testing.assert_allclose(chunks[3], [[0.01, 0.01]] * 3, atol=1e-6)


def test_a_history_begins_with_its_episode(tmp_path, record):
    """The first frame stands for those that were never seen."""
    frames, _ = load_frames([record(tmp_path / "a", ["eee", "eee"])])
    assert frames.history(np.array([0, 2, 3, 4, 5]), 3).tolist() == [
        [0, 0, 0], [0, 1, 2],
        [3, 3, 3], [3, 3, 4], [3, 4, 5],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("episode", "ends"),
    [
        ("NNN", [3, 3, 3]),
        ("NnN", [1, 2, 3]),  # no chunk runs over a frame without a label
        ("NNe", [2, 2, 3]),  # what was executed does not continue what was labelled
        ("eNN", [1, 3, 3]),
        ("ee|ee", [2, 2, 4, 4]),  # nor does an action for another instruction
        ("pe", [2, 2]),
    ],
)
def test_chunks_stay_in_their_run(tmp_path, record, episode, ends):
    frames, _ = load_frames([record(tmp_path / "a", [episode])])
    assert frames.run_end.tolist() == ends


def test_numbers_that_no_recorder_takes_are_refused(tmp_path, record):
    """Bug: a damaged store's NaN went into the statistics and the batches."""
    path = record(tmp_path / "a", ["eee", "eee"])
    with (path / "data/state/c.0.0").open("r+b") as file:
        file.seek(4 * load_frames([path])[0].state.shape[1] * 4)
        file.write(np.array([np.nan], "<f4").tobytes())
    with pytest.raises(TandemError, match=r"a: data/state is damaged .row 4 is not finite"):
        load_frames([path])
    with Recorder(path, load_frames([record(tmp_path / "b", ["e"])])[0].embodiment) as recorder:
        recorder.mark_deleted([1])
    assert len(load_frames([path])[0].state) == 3


@pytest.mark.parametrize(("key", "at"), [("data/top/c.0.0.0.0", 500), ("data/action/c.0.0", 4 * 8 + 2)])
def test_changed_pixels_and_numbers_are_not_learned_from(tmp_path, record, key, at):
    """A JPEG with another byte in it is a picture all the same, and a number a number."""
    path = tmp_path / "a"
    with Recorder(path, Store(record(tmp_path / "b", ["e"])).embodiment, codec="jpeg") as recorder:
        for source in (record(tmp_path / "c", ["eee"]), record(tmp_path / "d", ["eee"])):
            recorder.write_episode(EpisodeInfo(0, "say"), Store(source).frames(0))
    assert len(load_frames([path])[0].state) == 6
    data = bytearray((path / key).read_bytes())
    data[at] ^= 4
    (path / key).write_bytes(data)
    damaged = 0 if "top" in key else 1
    with pytest.raises(TandemError, match=rf"episode {damaged} is damaged .its checksum"):
        load_frames([path])
    assert len(load_frames([path], images="lazy")[0].state) == 6
    with Recorder(path, Store(path).embodiment, codec="jpeg") as recorder:
        recorder.mark_deleted([damaged])
    assert len(load_frames([path])[0].state) == 3


def test_runs_of_nothing():
    empty = np.zeros(0, np.int64)
    assert len(runs(empty, empty, empty)) == 0


def test_several_stores_join(tmp_path, record):
    one = record(tmp_path / "a", ["ee", "e|e"], wording="find {}")
    two = record(tmp_path / "b", ["eee"], wording="go to {}")
    frames, digest = load_frames([one, two])
    assert frames.episode.tolist() == [0, 0, 1, 1, 2, 2, 2]
    texts = [frames.instructions[code] for code in frames.instruction]
    assert texts == ["find red"] * 3 + ["find blue"] + ["go to red"] * 3
    assert digest == f"{Store(one).digest}+{Store(two).digest}"
    np.testing.assert_array_equal(frames.images["top"][4:], Store(two).load("top"))
    assert frames.run_end.tolist() == [2, 2, 3, 4, 7, 7, 7]


def test_other_embodiment_names_the_difference(tmp_path, record, small_embodiment):
    other = replace(small_embodiment, action=(replace(small_embodiment.action[0], high=2), small_embodiment.action[1]))
    stores = [record(tmp_path / "a", ["e"]), record(tmp_path / "b", ["e"], other)]
    with pytest.raises(TandemError, match=r"b is of another embodiment than .*a: action\[0\]\.high is 2, not 1"):
        load_frames(stores)


def test_camera_count_names_the_difference(tmp_path, record, small_embodiment):
    state = (*small_embodiment.state, replace(small_embodiment.state[0], name="agent/y"))
    stores = [record(tmp_path / "a", ["e"]), record(tmp_path / "b", ["e"], replace(small_embodiment, state=state))]
    with pytest.raises(TandemError, match="state has 2 entries, not 1"):
        load_frames(stores)


@pytest.mark.parametrize("episodes", [["nnn"], ["hh", "n"]])
def test_nothing_to_learn_from(tmp_path, record, episodes):
    with pytest.raises(TandemError, match="none of 3 frames has a target"):
        load_frames([record(tmp_path / "a", episodes)])


def test_empty_store(tmp_path, record):
    with pytest.raises(TandemError, match="is empty"):
        load_frames([record(tmp_path / "a", [])])


def test_no_store(tmp_path):
    with pytest.raises(TandemError, match="no store"):
        load_frames([])
    with pytest.raises(TandemError, match="nowhere"):
        load_frames([tmp_path / "nowhere"])


def test_split_is_by_episode_and_seeded(tmp_path, record):
    frames, _ = load_frames([record(tmp_path / "a", ["eee"] * 40 + ["nnn"])])
    split = split_episodes(frames, 0.1, 3)
    assert (split.train_episodes, split.validation_episodes, split.shared) == (36, 4, False)
    assert set(frames.episode[split.train]).isdisjoint(frames.episode[split.validation])
    assert sorted([*split.train, *split.validation]) == frames.usable.tolist()
    np.testing.assert_array_equal(split.validation, split_episodes(frames, 0.1, 3).validation)
    assert split.validation.tolist() != split_episodes(frames, 0.1, 4).validation.tolist()


@pytest.mark.parametrize(("count", "fraction", "held"), [(2, 0.05, 1), (3, 0.9, 2), (10, 0.05, 1)])
def test_both_sides_of_a_small_store_hold_an_episode(tmp_path, record, count, fraction, held):
    frames, _ = load_frames([record(tmp_path / "a", ["ee"] * count)])
    split = split_episodes(frames, fraction, 0)
    assert (split.train_episodes, split.validation_episodes) == (count - held, held)


def test_one_episode_is_both_sides(tmp_path, record):
    frames, _ = load_frames([record(tmp_path / "a", ["nn", "ee"])])
    split = split_episodes(frames, 0.05, 0)
    assert split.shared
    assert split.train.tolist() == split.validation.tolist() == [2, 3]


def test_statistics_are_those_of_what_is_drawn_by_weight(tmp_path, record):
    """Bug: a large store's mean and spread normalised what was mostly drawn from a small one."""
    frames, _ = load_frames([record(tmp_path / "a", ["e" * 40, "e" * 60]), record(tmp_path / "b", ["p" * 20])])
    large, small = (np.flatnonzero(frames.store == k) for k in (0, 1))
    drawn = np.concatenate([large, *[small] * 15])  # three times as much of the small one
    expected, found = statistics(frames, drawn), statistics(frames, frames.usable, [2.0, 6.0])
    for key in ("state", "action"):
        for part in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(found[key][part], expected[key][part], rtol=1e-6)
            assert found[key][part].dtype == np.float32
    assert not np.allclose(found["state"]["mean"], statistics(frames, frames.usable)["state"]["mean"])


def test_statistics_see_the_given_frames_only(tmp_path, record):
    frames, _ = load_frames([record(tmp_path / "a", ["eee", "ee"])])
    found = statistics(frames, np.array([0, 1, 2]))
    np.testing.assert_allclose(found["state"]["mean"], [1.0])
    np.testing.assert_allclose(found["state"]["std"], [np.sqrt(2 / 3)], rtol=1e-6)
    np.testing.assert_allclose(found["action"]["max"], [0.02, 0.0], atol=1e-7)
    assert found["action"]["mean"].dtype == np.float32


def test_batches_depend_on_seed_and_index_only():
    samples = np.arange(100, 110)
    order = Order(samples, 4, seed=1)
    batches = [order(index) for index in range(10)]
    fresh = Order(samples, 4, seed=1)
    np.testing.assert_array_equal(fresh(7), batches[7])
    np.testing.assert_array_equal(fresh(2), batches[2])
    everything = np.concatenate(batches)
    for epoch in range(4):  # each sample once an epoch, across the borders of batches
        assert sorted(everything[epoch * 10 : epoch * 10 + 10]) == samples.tolist()
    assert Order(samples, 4, seed=2)(0).tolist() != batches[0].tolist()


def test_batches_larger_than_the_data():
    batch = Order(np.arange(3), 8, seed=0)(1)
    assert np.bincount(batch).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
