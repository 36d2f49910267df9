"""The bench's rows about recording, short."""

import numpy as np

from tandem_datasets.store import Store
from tandem_training.benches._data_record import recording, shown_frames
from tandem_training.benches._data_scenes import BODY


def test_recording_is_measured(tmp_path):
    rate, cpu, latency = recording(tmp_path, repeats=2, count=300, paced_s=1.0)
    assert rate.value == rate.ratio
    assert rate.value is not None
    assert rate.value > 0.2
    assert cpu.value is not None
    assert 0.05 < cpu.value < 5
    assert "the codec alone" in cpu.note
    assert latency.value is not None
    assert latency.value < 50
    assert (rate.repeats, cpu.repeats, latency.repeats) == (2, 2, 50)
    store = Store(tmp_path / "store")
    assert (store.codec, store.n_frames, store.embodiment) == ("jpeg", 300, BODY)
    expected = shown_frames(300)
    assert np.array_equal(store.load("state"), [frame.observation.state for frame in expected])
    error = store.load("left", 0, 64).astype(float) - [frame.observation.images["left"] for frame in expected[:64]]
    assert 10 * np.log10(255**2 / np.mean(error**2)) >= 40
