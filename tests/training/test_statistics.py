import numpy as np
import pytest

from tandem_training.statistics import paired_difference, percentiles, wilson


def test_wilson_matches_published_values():
    # Newcombe, Statistics in Medicine 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_exactly_at_the_borders():
    assert wilson(50, 50)[1] == 1.0
    assert wilson(0, 50)[0] == 0.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_paired_difference_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered, trials = 0, 400
    for _ in range(trials):
        shared = generator.random(200)
        before = shared < 0.6
        after = np.where(generator.random(200) < 0.8, shared < 0.7, generator.random(200) < 0.7)
        _, low, high = paired_difference(list(after), list(before))
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / trials <= 0.98


def test_paired_difference_of_equal_results_holds_zero():
    difference, low, high = paired_difference([True, False] * 20, [True, False] * 20)
    assert difference == 0
    assert low < 0 < high


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([True], [True, False])


def test_percentiles_of_nothing_are_none():
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}
    assert percentiles([1.0, 2.0, 3.0])["p50"] == 2.0
