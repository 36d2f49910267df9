"""`tandem bench sim` on little: that each row is measured and judged."""

from tandem_training.benches import sim
from tandem_training.config import compose


def test_brick_rows_are_measured_and_meet_their_targets():
    config = compose("bench_sim", ["presses=2", "tower_s=0.5"])
    wanted = {"snap_false", "snap_true", "snap_residual_mm", "snap_release", "tower", "no_teleport_mm"}
    rows = {row.name: row for row in sim.measure(config, wanted) if row.name in wanted}
    assert set(rows) == wanted
    assert all(row.met for row in rows.values()), rows
    assert rows["snap_false"].repeats == 14
    assert "x 2" in rows["snap_false"].note.partition("twice as wide")[2], "the control locks"


def test_all_rows_are_in_a_group():
    assert [row.name for row in sim.measure(compose("bench_sim", []), set())] == list(sim.TARGETS)


def test_rates_and_equal_bits_of_the_h1_are_measured():
    config = compose("bench_sim", ["repeats=1", "task=reach"])
    wanted = {"rate_joint", "rate_ee", "rate_pixels"}
    rows = {row.name: row for row in sim.measure(config, wanted) if row.name in wanted}
    assert all(0.05 < row.value < 1.6 for row in rows.values()), rows
