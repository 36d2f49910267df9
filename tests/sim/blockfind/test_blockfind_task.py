import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.blockfind import task


def layouts(count=300, **options):
    return [task.lay_out(np.random.default_rng(seed), task.Options(**options)) for seed in range(count)]


def test_blocks_have_distinct_cells_and_colours_and_the_named_one_is_told():
    for layout in layouts():
        assert len(layout.centres) in (3, 4)
        assert len({tuple(centre) for centre in layout.centres}) == len(layout.centres)
        assert len(set(layout.colours)) == len(layout.colours) == len(layout.centres)
        assert ((layout.centres - 0.5) % 1 == 0).all()
        assert layout.centres.min() >= 0.5
        assert layout.centres.max() <= task.BOARD - 0.5
        assert layout.instruction == f"find the {layout.colours[layout.named]} block"


def test_start_is_spread_over_the_board_and_inside_of_no_block():
    found = layouts(600)
    for layout in found:
        assert (np.abs(layout.start - layout.centres).max(axis=1) > 0.5).all()
    starts = np.array([layout.start for layout in found])
    counts, _, _ = np.histogram2d(starts[:, 0], starts[:, 1], bins=4, range=[[0, 8], [0, 8]])
    assert counts.min() > 15  # 37 expected in each sixteenth of the board
    assert starts.min() >= 0
    assert starts.max() <= task.BOARD


def test_every_number_of_blocks_colour_and_place_occurs():
    found = layouts(600)
    assert {len(layout.centres) for layout in found} == {3, 4}
    assert {layout.colours[layout.named] for layout in found} == set(task.DEFAULT_COLOURS)
    assert {tuple(layout.goal) for layout in found} == {(x + 0.5, y + 0.5) for x in range(8) for y in range(8)}


def test_wordings_change_the_instruction_and_nothing_else():
    for plain, varied in zip(layouts(), layouts(wordings="varied"), strict=True):
        assert (plain.centres == varied.centres).all()
        assert (plain.start == varied.start).all()
        assert varied.colours[varied.named] in varied.instruction
    said = {
        layout.instruction.replace(layout.colours[layout.named], "{colour}") for layout in layouts(wordings="varied")
    }
    assert said == set(task.WORDINGS["varied"])


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0, 1e30])
def test_never_more_than_one_cell_a_step_nor_over_the_edge(scale):
    rng = np.random.default_rng(1)
    position = rng.uniform(0, 8, (5000, 2)).astype(np.float32)
    action = (scale * rng.uniform(-1, 1, position.shape)).astype(np.float32)
    moved, executed = task.advance(position, action)
    assert np.linalg.norm(executed.astype(np.float64), axis=1).max() <= 1 + 1e-6
    assert np.abs(moved.astype(np.float64) - position - executed).max() < 1e-6
    assert moved.min() >= 0
    assert moved.max() <= task.BOARD


def test_a_long_command_keeps_its_direction_and_a_short_one_everything():
    middle = np.array([4, 4], np.float32)
    np.testing.assert_allclose(task.advance(middle, np.array([1, 1], np.float32))[1], [2**-0.5, 2**-0.5], rtol=1e-6)
    short = np.array([0.25, -0.5], np.float32)
    assert (task.advance(middle, short)[1] == short).all()


def test_at_the_edge_only_the_part_over_it_is_cut():
    moved, executed = task.advance(np.array([7.75, 0.0], np.float32), np.array([0.5, 0.5], np.float32))
    assert moved.tolist() == [8.0, 0.5]
    assert executed.tolist() == [0.25, 0.5]


def test_executed_actions_run_again_unchanged():
    rng = np.random.default_rng(2)
    position = rng.uniform(0, 8, (20000, 2)).astype(np.float32)
    moved, executed = task.advance(position, rng.uniform(-3, 3, position.shape).astype(np.float32))
    again = task.advance(position, executed)
    assert (again[0] == moved).all()
    assert (again[1] == executed).all()


def test_many_positions_round_like_one():
    rng = np.random.default_rng(3)
    position, action = rng.uniform(0, 8, (2, 999, 2)).astype(np.float32)
    goal = rng.integers(0, 8, (999, 2)).astype(np.float32) + np.float32(0.5)
    moved, executed = task.advance(position, action - 4)
    for k in range(999):
        one = task.advance(position[k], action[k] - 4)
        assert (one[0] == moved[k]).all()
        assert (one[1] == executed[k]).all()
        assert task.distance(position[k], goal[k]) == task.distance(position, goal)[k]
        assert (task.expert(position[k], goal[k]) == task.expert(position, goal)[k]).all()


def test_outcome_tells_the_wrong_block_from_none():
    centres = np.array([[0.5, 0.5], [6.5, 6.5]], np.float32)
    layout = task.Layout(centres, ("red", "blue"), 0, np.array([4, 4], np.float32), "find the red block")
    assert task.outcome(layout, np.array([0.5, 0.5], np.float32), success=True) == "success"
    assert task.outcome(layout, np.array([6.0, 6.0], np.float32), success=False) == "wrong_block"
    assert task.outcome(layout, np.array([4.0, 4.0], np.float32), success=False) == "no_block"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wordings": "plane"}, "did you mean 'plain'"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": True}, "horizon is True"),
        ({"colours": ["red", "gren", "blue"]}, "did you mean 'green'"),
        ({"colours": ["red", "red", "blue"]}, "each once"),
        ({"colours": "red"}, "colours is 'red'"),
        ({"n_blocks": [4, 3]}, "n_blocks"),
        ({"n_blocks": 3}, "n_blocks"),
        ({"colours": ["red", "blue"]}, "number of colours, 2"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, words):
    with pytest.raises(TandemError, match=words) as caught:
        task.Options(**options)
    assert "\n" not in str(caught.value)
