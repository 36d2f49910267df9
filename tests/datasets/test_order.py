import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.order import Mixed, Shuffled


def test_any_place_can_be_looked_up():
    order = Shuffled(np.arange(100, 110), seed=1)
    whole = order.take(0, 45)
    for start, stop in ((0, 0), (3, 4), (8, 12), (25, 45), (2, 5)):
        assert Shuffled(np.arange(100, 110), seed=1).take(start, stop).tolist() == whole[start:stop].tolist()
    for epoch in range(4):
        assert sorted(whole[epoch * 10 : epoch * 10 + 10]) == list(range(100, 110))
    assert whole[:10].tolist() != whole[10:20].tolist()
    assert Shuffled(np.arange(5), seed=1, shuffle=False).take(3, 8).tolist() == [3, 4, 0, 1, 2]


def _mixed(seed=3):
    return Mixed([np.arange(10), np.arange(100, 1100), np.arange(5000, 5003)], [1, 2, 1], seed, "here")


def test_groups_have_their_share():
    order = _mixed()
    assert order.shares.tolist() == [0.25, 0.5, 0.25]
    drawn = order.take(0, 8192)
    assert [int(((drawn >= low) & (drawn < high)).sum()) for low, high in ((0, 10), (100, 1100), (5000, 5003))] == [
        2048,
        4096,
        2048,
    ]
    counts = np.bincount(drawn[drawn < 10])
    assert counts.max() - counts.min() <= 1  # each sample of a small group as often as the others
    assert not np.array_equal(drawn[:4096], drawn[4096:])


def test_a_mixed_order_is_one_whoever_looks():
    whole = _mixed().take(0, 9000)
    for start, stop in ((0, 10), (4090, 4100), (8999, 9000), (100, 9000)):
        assert _mixed().take(start, stop).tolist() == whole[start:stop].tolist()
    assert _mixed(4).take(0, 100).tolist() != whole[:100].tolist()


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, float("nan")], [1, 1e-9]])
def test_weights_that_cannot_be(weights):
    with pytest.raises(TandemError, match="here: weights are"):
        Mixed([np.arange(3), np.arange(3)], weights, 0, "here")
