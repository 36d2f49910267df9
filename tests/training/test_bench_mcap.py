from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_training.benches._data_formats import roundtrip_mcap
from tandem_training.evaluation import evaluate


def test_demonstrations_come_back_from_a_recording(tmp_path):
    place = tmp_path / "demos.zarr"
    evaluate(RolloutRequest(EnvSpec("tandem/BlockFind-v0"), EXPERT, 2, 0, record=place, label=True), "inprocess")
    row = roundtrip_mcap(Store(place), tmp_path)
    assert (row.name, row.value, row.repeats) == ("roundtrip_mcap", True, 2)
    assert "2 episodes" in row.note
