import json
from dataclasses import replace

import pytest

from tandem_datasets.errors import TandemError
from tandem_training.benches._measuring import Target, measure_groups, median_row
from tandem_training.results import Row, claim_out, machine, machine_line, print_rows, write_rows


def test_rows_are_written_with_every_field_of_a_measure(tmp_path):
    write_rows(tmp_path, [Row("a", 1.5, "ms", target="<= 2", met=True)], machine(), bench="x")
    row = json.loads((tmp_path / "metrics.json").read_text())["rows"][0]
    assert set(row) == {"name", "value", "unit", "reference", "ratio", "target", "met", "repeats", "note"}
    assert (row["name"], row["value"], row["met"]) == ("a", 1.5, True)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_an_output_folder_in_use_is_refused(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(TandemError, match="is not empty"):
        claim_out(tmp_path, "eval", "x")
    with pytest.raises(TandemError, match=r"File exists|Not a directory"):
        claim_out(tmp_path / "kept", "eval", "x")


def test_the_machine_line_names_processor_and_versions(capsys):
    facts = machine()
    line = machine_line(facts)
    assert facts["versions"]["torch"] in line
    assert f"{facts['cores']} cores" in line
    print_rows("title", [Row("yes_row", True, met=True), Row("left", None)], facts)
    assert "yes_row" in capsys.readouterr().out


def test_groups_left_out_broken_and_measured():
    targets = {name: Target("s", "<= 1", lambda value: value <= 1) for name in ("fine", "slow", "broken", "left")}

    def breaks():
        raise RuntimeError("no such thing")

    groups = [
        (["fine", "slow"], lambda: [Row("", 0.5), Row("", 2.0)]),
        (["broken"], breaks),
        (["left"], lambda: [Row("", 0.0)]),
    ]
    rows = {row.name: row for row in measure_groups(targets, groups, {"fine", "slow", "broken"})}
    assert (rows["fine"].met, rows["slow"].met) == (True, False)
    assert (rows["broken"].value, rows["broken"].met) == (None, False)
    assert "no such thing" in rows["broken"].note
    assert (rows["left"].value, rows["left"].met) == (None, None)


def test_the_median_row_keeps_the_spread():
    row = median_row([3.0, 1.0, 2.0], "warm")
    assert (row.value, row.repeats) == (2.0, 3)
    assert row.note == "warm; 1 to 3 over 3 repeats"
    assert replace(row, name="x").name == "x"
