"""Windows through ``DataLoader``: the same batches by any number of workers, after a stop exactly the next ones."""

import json
import shutil

import numpy as np
import pytest
from torch.utils.data import DataLoader

from tandem_datasets.dataset import WindowDataset
from tandem_datasets.errors import TandemError
from tandem_datasets.sampling import WindowSampler
from tandem_datasets.store import Store
from tandem_datasets.windows import WindowSpec
from tandem_training.loading import WindowLoader, collate

SPEC = WindowSpec(history=2, chunk=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, record):
    folder = tmp_path_factory.mktemp("loading")
    paths = [record(folder / "a", ["e" * 30, "ee|eeNN" * 5]), record(folder / "b", ["p" * 20], wording="go to {}")]
    return WindowDataset.of([Store(path) for path in paths], SPEC)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_two_workers_give_what_none_gives(dataset, context):
    sampler = WindowSampler(dataset, 8, seed=5)
    expected = list(WindowLoader(dataset, WindowSampler(dataset, 8, seed=5)))
    found = list(WindowLoader(dataset, sampler, workers=2, context=context))
    assert len(found) == len(expected) == len(sampler) == len(dataset) // 8
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        assert all((mine[key] == theirs[key]).all() for key in mine)
    indices = np.concatenate([batch["index"] + 1000 * batch["store"] for batch in found])
    assert len(np.unique(indices)) == len(indices)
    assert sampler.epoch == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_plain_data_loader_takes_them(dataset):
    loader = DataLoader(dataset, batch_size=8, num_workers=2)  # type: ignore[arg-type]
    batch = next(iter(loader))
    assert batch["images.top"].shape == (8, 2, 16, 16, 3)
    assert (batch["action"].numpy() == dataset.read(np.arange(8))["action"]).all()
    sampler = WindowSampler(dataset, 8)
    whole = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
    assert next(iter(whole))["index"].tolist() == dataset.read(next(iter(WindowSampler(dataset, 8))))["index"].tolist()


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_loader_goes_on_where_it_was_stopped(dataset, weights):
    def loader(workers):
        sampler = WindowSampler(dataset, 8, seed=2, store_weights=weights)
        return WindowLoader(dataset, sampler, workers, context="fork")

    whole = loader(0)
    expected = [batch["index"].tolist() for _ in range(2) for batch in whole]
    stopped = loader(2)
    handed = [batch["index"].tolist() for _, batch in zip(range(3), stopped, strict=False)]
    state = json.loads(json.dumps(stopped.state_dict()))
    assert state["samples"] == 24
    resumed = loader(2)
    resumed.load_state_dict(state)
    rest = [batch["index"].tolist() for batch in resumed]
    rest += [batch["index"].tolist() for batch in resumed]  # the next epoch
    assert handed + rest == expected
    assert len(expected) == 2 * len(whole)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_batches_that_are_kept_stay_as_they_are(dataset):
    """Memory is used again only when nobody holds it, be it by a view."""
    expected = list(WindowLoader(dataset, WindowSampler(dataset, 4, seed=3)))
    loader = WindowLoader(dataset, WindowSampler(dataset, 4, seed=3), workers=1, context="fork")
    views = [batch["images.top"][1:3, 0] for batch in loader]  # more than there are slots
    assert len(views) > len(loader._memory)
    assert all((view == batch["images.top"][1:3, 0]).all() for view, batch in zip(views, expected, strict=True))
    del views
    again = [int(batch["index"].sum()) for batch in loader]  # the next epoch, from memory that was used
    assert len(again) == len(expected)
    assert len({array.__array_interface__["data"][0] for array in loader._memory}) == len(loader._memory)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_pass_that_was_broken_off_leaves_nothing_behind(dataset):
    loader = WindowLoader(dataset, WindowSampler(dataset, 4, seed=3), workers=2, context="fork")
    seen = []
    for _ in range(3):
        for count, batch in enumerate(loader):
            seen += batch["index"].tolist()
            if count == 2:
                break
    expected = WindowSampler(dataset, 4, seed=3)
    wanted = [dataset.read(batch)["index"].tolist() for _, batch in zip(range(9), expected, strict=False)]
    assert seen == [index for batch in wanted for index in batch]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_damage_that_a_worker_meets_arrives_as_one_line(tmp_path, dataset, workers):
    """Bug: torch put the worker's traceback into the message."""
    path = shutil.copytree(dataset.readers[1].store.path, tmp_path / "b")
    loader = WindowLoader(
        WindowDataset.of([Store(path)], SPEC),
        WindowSampler(WindowDataset.of([Store(path)], SPEC), 4, shuffle=False),
        workers,
        context="fork" if workers else None,
    )
    shard = path / "data/top/c.0.0.0.0"
    data = shard.read_bytes()
    shard.write_bytes(data[:-4200] + b"rotten" + data[-4194:])  # the last row
    seen = []
    with pytest.raises(TandemError, match=r"row 19 of data/top/c.0.0.0.0 is damaged") as caught:
        seen += [batch["index"].tolist() for batch in loader]
    assert len(str(caught.value).splitlines()) == 1
    assert loader.state_dict()["samples"] == 16
    shard.write_bytes(data)
    assert [batch["index"].tolist() for batch in loader] == [[16, 17, 18, 19]]
