import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tandem_datasets.errors import TandemError
from tandem_training.steps import Steps, steps


def run_two(folder: Path, code: str = "code", amount: int = 1) -> list[str]:
    """Two steps, the second after the first; returns which of them were really made."""
    made = []

    def make(name: str, text: str):
        def write(path: Path) -> dict:
            made.append(name)
            path.write_text(text)
            return {"length": len(text)}

        return write

    with steps(folder, code, "test") as job:
        first = job.run("first.txt", {"amount": amount}, make("first", "a" * amount))
        second = job.run("second.txt", {}, make("second", "b"), after=(first,))
        assert first.facts == {"length": amount}
        assert second.path.read_text() == "b"
    return made


def test_a_second_run_makes_nothing(tmp_path):
    assert run_two(tmp_path) == ["first", "second"]
    assert run_two(tmp_path) == []


def test_a_change_upstream_remakes_what_comes_after(tmp_path):
    run_two(tmp_path)
    assert run_two(tmp_path, amount=2) == ["first", "second"]
    assert run_two(tmp_path, amount=2, code="other") == ["first", "second"]


def test_a_missing_artifact_is_made_again(tmp_path):
    run_two(tmp_path)
    (tmp_path / "second.txt").unlink()
    assert run_two(tmp_path) == ["second"]


def test_a_step_that_broke_half_way_is_made_from_nothing(tmp_path):
    def breaks(path: Path) -> dict:
        path.mkdir()
        (path / "half").write_text("half")
        raise RuntimeError("power cut")

    def whole(path: Path) -> dict:
        path.mkdir()
        return {}

    with pytest.raises(RuntimeError), steps(tmp_path, "code", "test") as job:
        job.run("folder", {}, breaks)
    with steps(tmp_path, "code", "test") as job:
        done = job.run("folder", {}, whole)
    assert not done.cached
    assert list(done.path.iterdir()) == []


def test_an_artifact_half_made_from_something_else_is_not_taken_for_the_one_before(tmp_path):
    """Run with A, then with B but stopped half-way, then with A again: B's half passed for A's whole."""

    def write(path: Path) -> dict:
        path.write_text("whole A")
        return {}

    def breaks(path: Path) -> dict:
        path.write_text("half B")
        raise KeyboardInterrupt

    with steps(tmp_path, "code", "test") as job:
        job.run("file", {"from": "A"}, write)
    with pytest.raises(KeyboardInterrupt), steps(tmp_path, "code", "test") as job:
        job.run("file", {"from": "B"}, breaks)
    with steps(tmp_path, "code", "test") as job:
        done = job.run("file", {"from": "A"}, write)
    assert not done.cached
    assert done.path.read_text() == "whole A"


def test_two_at_once_get_a_clear_line(tmp_path):
    holder = textwrap.dedent(f"""
        import sys
        from tandem_training.steps import steps
        from pathlib import Path
        with steps(Path({str(tmp_path)!r}), "code", "test"):
            print("held", flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen([sys.executable, "-c", holder], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TandemError, match=f"in use by process {process.pid}"), steps(tmp_path, "code", "test"):
            pass
        process.kill()
    with steps(tmp_path, "code", "test") as job:  # the lock died with its owner
        assert isinstance(job, Steps)


@pytest.mark.parametrize("text", ["{", "[]", '{"file": 5}', '{"file": {"key": "x"}}', "\udcff"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "steps.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TandemError, match=r"steps\.json: (unreadable|damaged)"), steps(tmp_path, "code", "test"):
        pass


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    mine = tmp_path / "first.txt"
    mine.write_text("mine")
    with pytest.raises(TandemError, match="holds something else"), steps(tmp_path, "code", "test"):
        pass
    assert mine.read_text() == "mine"
