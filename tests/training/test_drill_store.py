"""The drill finds nothing wrong with stores, and finds what is wrong when something is."""

import errno
import json
import os
import shutil
import signal

import numpy as np
import pytest

from tandem_datasets import files
from tandem_datasets.errors import TandemError
from tandem_datasets.recorder import Recorder
from tandem_training.commands.drill import main
from tandem_training.drills import _recording, _worker
from tandem_training.drills._faults import AFTER, BEFORE, ERROR, IN, KILL, Fault
from tandem_training.drills._operations import OPERATIONS
from tandem_training.drills.store import _Findings


def test_a_quick_drill_loses_nothing(tmp_path):
    assert main(["store", "quick=true", f"out={tmp_path / 'out'}"]) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    rows = {row["name"]: row for row in metrics["rows"]}
    assert set(rows) == {"kills", "faults"}
    assert all((row["value"], row["met"]) == (0, True) for row in rows.values())
    assert (rows["kills"]["repeats"], metrics["wrong"]) == (6, [])
    assert rows["faults"]["repeats"] >= 20
    assert all(name in rows["faults"]["note"] for name in OPERATIONS)


def test_a_part_of_the_drill(tmp_path):
    arguments = ["store", "quick=true", "kills=0", "faults=[recorder_group]", f"out={tmp_path / 'out'}"]
    assert main(arguments) == 0
    kills, faults = json.loads((tmp_path / "out/metrics.json").read_text())["rows"]
    assert (kills["value"], kills["met"], kills["note"]) == (None, None, "left out")
    assert "recorder_new" not in faults["note"]
    assert faults["met"] is True


def test_arguments_that_do_not_fit(tmp_path):
    for argument, words in (
        ("kills=-1", "kills=-1"),
        ("faults=recoder", "did you mean 'recorder'"),
        ("faults=[merg]", "did you mean 'merge'"),
        ("seed=x", "seed"),
    ):
        with pytest.raises(TandemError, match=words):
            main(["store", argument, f"out={tmp_path / 'out'}"])
    with pytest.raises(TandemError, match="did you mean 'store'"):
        main(["stor"])
    assert main([]) == 0
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("drill") / "store"
    told: list[int] = []
    _recording.record(path, 3, told.append, group=1, sync=False)
    assert told == [0, 1, 2, 3, 3]
    return path


def test_an_intact_store(recorded, tmp_path):
    path = shutil.copytree(recorded, tmp_path / "store")
    found, problem = _recording.check(path, 3)
    assert (found["checked"], sum(found.values()), problem) == (3, 3, "")
    assert _recording.check(path, 4)[0]["checked"] == 4  # the one that the check appended


def test_an_episode_that_is_lost(recorded):
    assert _recording.check(recorded, 5, append=False)[0]["lost"] == 2


def test_a_store_that_does_not_open(recorded, tmp_path):
    path = shutil.copytree(recorded, tmp_path / "store")
    (path / "meta/episode_ends/zarr.json").write_text("{}")
    found, problem = _recording.check(path, 3)
    assert (found["unopened"], found["lost"]) == (1, 3)
    assert problem


def test_an_episode_that_is_altered(recorded, tmp_path):
    path = shutil.copytree(recorded, tmp_path / "store")
    with (path / "data/reward/c.0").open("r+b") as file:
        file.write(b"\1")
    found, problem = _recording.check(path, 3)
    assert (found["altered"], found["checked"]) == (1, 2)
    assert "episode 0 is damaged" in problem


def test_another_episode_in_its_place(tmp_path):
    """Sound in itself, and not what was recorded."""
    with Recorder(tmp_path / "store", _recording.RIG, codec=_recording.CODEC, fsync=False) as recorder:
        recorder.write_episode(_recording.info_of(4), _recording.frames_of(4))
    found, problem = _recording.check(tmp_path / "store", 1, append=False)
    assert (found["altered"], problem) == (1, "episode 0 is another")


def test_a_store_to_which_nothing_can_be_appended(recorded, tmp_path):
    path = shutil.copytree(recorded, tmp_path / "store")
    with Recorder(path, _recording.RIG, codec=_recording.CODEC):
        found, problem = _recording.check(path, 3)
    assert found["stuck"] == 1
    assert "another writer has it open" in problem


def test_faults_strike_before_in_and_after(tmp_path):
    def struck(phase: str, kind: str = ERROR) -> bytes:
        target = tmp_path / "file"
        target.write_bytes(b"")
        fault = Fault(1, phase, kind)
        files.inject(fault)
        try:
            descriptor = files.open_file(str(target), os.O_WRONLY)  # operation 0 is let through
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                files.write_at(descriptor, (b"ab", b"cdef"), 0, str(target))
            os.close(descriptor)
        finally:
            files.inject(None)
        assert fault.struck == f"write {target}"
        assert fault.writes == [False, True]
        return target.read_bytes()

    assert [struck(phase) for phase in (BEFORE, IN, AFTER)] == [b"", b"abc", b"abcdef"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fault_may_kill(tmp_path):
    child = os.fork()
    if child == 0:
        files.inject(Fault(0, AFTER, KILL))
        files.make_folders(str(tmp_path / "made"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "made").is_dir()


def test_episodes_reach_over_the_bounds_of_shards():
    lengths = [len(_recording.frames_of(k)) for k in range(9)]
    assert max(lengths) > 256
    assert len(set(np.cumsum(lengths) % 256)) >= 8


def test_a_drill_whose_faults_strike_nothing_is_none():
    for missed, met in ((2, True), (3, False)):
        findings = _Findings()
        for case in range(100):
            findings.add({}, {"checked": 1, "problem": "", "missed": int(case < missed)})
        row = findings.row("faults", "all")
        assert (row.value, row.met) == (0, met)
        assert f"{missed} faults struck nothing" in row.note


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fault_that_strikes_nothing_is_noticed(tmp_path):
    folder = str(tmp_path / "drill")
    count = len(_worker.count("recorder_new", folder)["writes"])
    struck = [_worker.fault("recorder_new", folder, at, "before", "error")["missed"] for at in (0, count + 99)]
    assert struck == [0, 1]
