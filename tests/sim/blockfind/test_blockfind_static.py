from itertools import islice

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.store import Store
from tandem_sim import registry
from tandem_sim.blockfind import static
from tandem_sim.blockfind.task import BOARD, CELL_PX, PALETTE


@pytest.fixture(scope="module")
def drawn():
    return list(static.samples(600, 44))


def test_the_direction_leads_from_the_middle_cell_to_the_named_colour(drawn):
    for sample in drawn:
        column, row = sample.cell
        cell = sample.image[row * CELL_PX : (row + 1) * CELL_PX, column * CELL_PX : (column + 1) * CELL_PX]
        assert (cell == PALETTE[sample.colour]).all()
        assert sample.instruction == f"find the {sample.colour} block"
        np.testing.assert_allclose(sample.direction * sample.distance, [column - 4, row - 4], atol=1e-6)


def test_directions_are_of_unit_length_but_for_the_middle_cell(drawn):
    lengths = np.array([np.linalg.norm(sample.direction) for sample in drawn])
    centre = np.array([sample.cell == (4, 4) for sample in drawn])
    assert centre.any()
    assert (lengths[centre] == 0).all()
    np.testing.assert_allclose(lengths[~centre], 1, atol=1e-6)
    assert static.direction((4, 0)).tolist() == [0, -1]


def test_nothing_but_blocks_is_on_the_board(drawn):
    """An agent on the picture would say where to start from."""
    plain = {tuple(PALETTE[colour]) for colour in PALETTE} | {(84, 84, 88), (72, 72, 76)}
    for sample in drawn[:50]:
        found = {tuple(pixel) for pixel in np.unique(sample.image.reshape(-1, 3), axis=0).tolist()}
        assert found <= plain
        assert len(found) - 2 == sample.blocks


def test_everything_occurs(drawn):
    assert {sample.blocks for sample in drawn} == {3, 4}
    assert {sample.colour for sample in drawn} == {"red", "green", "blue", "yellow", "purple", "cyan"}
    assert len({sample.cell for sample in drawn}) > 0.9 * BOARD * BOARD


def test_a_seed_gives_the_same_samples_and_another_seed_other_ones(drawn):
    again = list(islice(static.samples(10_000, 44), 100))
    assert all((one.image == other.image).all() for one, other in zip(again, drawn, strict=False))
    boards = {sample.image.tobytes() for sample in drawn}
    assert boards.isdisjoint(sample.image.tobytes() for sample in static.samples(600, 43))


def test_the_store_is_lossless_and_each_sample_an_episode(tmp_path, drawn):
    registry.draw("blockfind_static", tmp_path / "a.zarr", 40, 44)
    static.write(tmp_path / "b.zarr", 40, 44)
    store = Store(tmp_path / "a.zarr")
    assert store.embodiment == static.EMBODIMENT
    assert store.episode_ends.tolist() == list(range(1, 41))
    np.testing.assert_array_equal(store.load("top"), [sample.image for sample in drawn[:40]])
    np.testing.assert_array_equal(store.load("action"), [sample.direction for sample in drawn[:40]])
    assert [info.instruction for info in store.infos()] == [sample.instruction for sample in drawn[:40]]
    assert store.info(3).provenance["groups"]["colour"] == drawn[3].colour
    assert store.digest == Store(tmp_path / "b.zarr").digest  # uuids and all


def test_errors(tmp_path):
    with pytest.raises(TandemError, match="did you mean 'blockfind_static'"):
        registry.draw("blockfind_statik", tmp_path / "a.zarr", 1, 0)
    static.write(tmp_path / "a.zarr", 1, 0)
    with pytest.raises(TandemError, match="already there"):
        static.write(tmp_path / "a.zarr", 1, 0)
