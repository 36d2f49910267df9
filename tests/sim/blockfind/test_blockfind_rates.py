from tandem_sim.blockfind.rates import rate_single, rate_vector


def test_one_figure_a_repeat_and_many_together_are_faster():
    single, vector = rate_single(repeats=3, steps=300), rate_vector(repeats=3, steps=40)
    assert len(single) == len(vector) == 3
    assert min(vector) > max(single) > 1000
