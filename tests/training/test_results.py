import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tandem_datasets.errors import TandemError
from tandem_training.benches._measuring import Target, measure_groups, median_row
from tandem_training.results import Row, claimed, machine, machine_line, print_lines, print_rows, write_json, write_rows


def test_rows_are_written_with_every_field_of_a_measure(tmp_path):
    write_rows(tmp_path, [Row("a", 1.5, "ms", target="<= 2", met=True)], machine(), bench="x")
    row = json.loads((tmp_path / "metrics.json").read_text())["rows"][0]
    assert set(row) == {"name", "value", "unit", "reference", "ratio", "target", "met", "repeats", "note"}
    assert (row["name"], row["value"], row["met"]) == ("a", 1.5, True)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_an_output_folder_in_use_is_refused(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(TandemError, match="is not empty"), claimed(tmp_path, "tandem eval", "x"):
        pass
    with pytest.raises(TandemError, match="File exists"), claimed(str(tmp_path / "kept"), "tandem eval", "x"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(TandemError, match="out is True"), claimed(True, "tandem eval", "x"):
        pass


def test_two_at_once_cannot_write_into_one_folder(tmp_path):
    """Both found the folder empty, and mixed their films."""
    with claimed(tmp_path / "out", "tandem eval", "x") as out:
        second = claimed(tmp_path / "out", "tandem eval", "x")
        with pytest.raises(TandemError, match="in use by process"), second:
            pass
        (out / "mine").write_text("")
    assert (tmp_path / "out" / "mine").exists()


def test_a_folder_that_was_left_empty_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with claimed(None, "tandem bench loop", "loop") as out:
        assert out.is_dir()
        assert out.parent == Path("outputs/bench-loop")
    assert not out.exists()


def test_a_path_with_brackets_is_shown_whole(capsys):
    """Regression: rich took "[b]" in a policy's path for a style."""
    print_lines({"policy": "outputs/a[b]/best"})
    assert "outputs/a[b]/best" in capsys.readouterr().out


def test_a_full_disk_leaves_no_half_written_file(tmp_path):
    """A hidden half of metrics.json stayed, which made the folder count as taken."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_json(tmp_path / "metrics.json", {"long": "x" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())


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


def test_a_bench_that_is_told_to_end_ends():
    """SIGTERM counted as a broken row, and the next one began."""
    target = Target("s", "<= 1", lambda value: value <= 1)

    def told():
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        measure_groups({"row": target}, [(["row"], told)], {"row"})


def test_the_median_row_keeps_the_spread():
    row = median_row([3.0, 1.0, 2.0], "warm")
    assert (row.value, row.repeats) == (2.0, 3)
    assert row.note == "warm; 1 to 3 over 3 repeats"
    assert replace(row, name="x").name == "x"
