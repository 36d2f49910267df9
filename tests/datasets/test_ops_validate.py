"""`validate` finds damage of every kind, says what it would do, and leaves a store that can be read and written."""

import json
import os
import shutil
from contextlib import closing
from dataclasses import asdict, replace

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.ops.changing import compact
from tandem_datasets.ops.flaws import Kind, Level
from tandem_datasets.ops.validate import validate
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

LENGTHS = (200, 90, 60, 3, 1)  # the second one lies in two shards
FRAMES = sum(LENGTHS)


@pytest.fixture(scope="module")
def intact(tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("intact") / "store"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for k, length in enumerate(LENGTHS):
            info = EpisodeInfo(k, f"task {k % 2}", env="rig", outcome="dropped", provenance={"operator": f"Æ {k}"})
            frames = make_frames(embodiment, length, seed=k)
            recorder.write_episode(info, frames)
    return path


@pytest.fixture(scope="module")
def whole(intact):
    """All columns with the texts that they refer to, and the facts by episode."""
    store = Store(intact)
    columns = {key: store.load(key) for key in store.keys} | {"instructions": store.instructions}
    return columns, [asdict(info) for info in store.infos()]


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "store")


def put(path, key, row, value, dtype):
    """Writes a value where the row lies in the first file of a column of numbers."""
    value = np.asarray(value, dtype)
    with open(path / key / ("c.0" + ".0" * value.ndim), "r+b") as file:
        file.seek(row * value.nbytes)
        file.write(value.tobytes())


def cut_short(file, size=100):
    os.truncate(file, size)


def overwrite(file, at, data):
    with file.open("r+b") as opened:
        opened.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        opened.write(data)


def shape(path, key, rows):
    file = path / key / "zarr.json"
    content = json.loads(file.read_text())
    content["shape"][0] = rows
    file.write_text(json.dumps(content))


def same_uuid(path, row):
    put(path, "meta/uuid", row, Store(path).load_episodes("uuid")[0], np.uint8)


DAMAGE = {  # what is done, the kind that is found, the episodes that are marked as deleted
    "group": (lambda p: (p / "data/zarr.json").unlink(), Kind.GROUP, []),
    "metadata gone": (lambda p: (p / "data/state/zarr.json").unlink(), Kind.METADATA, []),
    "metadata empty": (lambda p: (p / "meta/seed/zarr.json").write_bytes(b""), Kind.METADATA, []),
    "table's metadata": (lambda p: (p / "meta/instructions/zarr.json").write_text("{"), Kind.METADATA, []),
    "provenance's metadata": (lambda p: (p / "meta/provenance/zarr.json").write_text("{"), Kind.METADATA, []),
    "shape": (lambda p: shape(p, "data/reward", FRAMES + 5), Kind.SHAPE, []),
    "shape of facts": (lambda p: shape(p, "meta/uuid", 2), Kind.SHAPE, []),
    "partial": (lambda p: (p / "data/top/c.0.0.0.0.partial").touch(), Kind.LEFTOVER, []),
    "stale shard": (lambda p: (p / "data/top/c.7.0.0.0").touch(), Kind.LEFTOVER, []),
    "beside": (lambda p: (p.parent / ".store.beside/data").mkdir(parents=True), Kind.LEFTOVER, []),
    "missing shard": (lambda p: (p / "data/top/c.0.0.0.0").unlink(), Kind.SHARD, [0, 1]),
    "missing last shard": (lambda p: (p / "data/deep/c.1.0.0.0").unlink(), Kind.SHARD, [1, 2, 3, 4]),
    "truncated shard": (lambda p: cut_short(p / "data/top/c.1.0.0.0", 5000), Kind.SHARD, [1, 2, 3, 4]),
    "index's checksum": (lambda p: overwrite(p / "data/top/c.1.0.0.0", -2, b"xx"), Kind.SHARD, []),
    "index": (lambda p: overwrite(p / "data/top/c.1.0.0.0", -4100 + 16 * 40, b"\xfe" * 16), Kind.SHARD, [2]),
    "missing chunk": (lambda p: (p / "data/state/c.0.0").unlink(), Kind.CHUNK, [0, 1, 2, 3, 4]),
    "truncated chunk": (lambda p: cut_short(p / "data/stamp/c.0", 8 * 300), Kind.CHUNK, [2, 3]),  # of 4 a zero is lost
    "long chunk": (lambda p: os.truncate(p / "data/stamp/c.0", 40000), Kind.CHUNK, []),
    "facts gone": (lambda p: (p / "meta/outcome/c.0").unlink(), Kind.CHUNK, []),
    "uuids gone": (lambda p: (p / "meta/uuid/c.0.0").unlink(), Kind.CHUNK, []),
    "checksums gone": (lambda p: (p / "meta/checksum/c.0").unlink(), Kind.CHUNK, []),
    "times gone": (lambda p: (p / "meta/end_ns/c.0").unlink(), Kind.CHUNK, []),
    "texts gone": (lambda p: (p / "meta/names/c.0").unlink(), Kind.SHARD, []),
    "table gone": (lambda p: shutil.rmtree(p / "meta/names"), Kind.METADATA, []),
    "provenance gone": (lambda p: (p / "meta/provenance/c.0").unlink(), Kind.CHUNK, []),
    "provenance": (lambda p: overwrite(p / "meta/provenance/c.0", 3, b'"'), Kind.PROVENANCE, []),
    "provenance's ends": (lambda p: put(p, "meta/provenance_ends", 1, 2, np.int64), Kind.PROVENANCE, []),
    "provenance's ends gone": (lambda p: (p / "meta/provenance_ends/c.0").unlink(), Kind.CHUNK, []),
    "code of facts": (lambda p: put(p, "meta/env", 2, 77, np.int32), Kind.CODE, []),
    "mark": (lambda p: put(p, "meta/success", 2, 77, np.uint8), Kind.NUMBER, []),
    "uuid twice": (lambda p: same_uuid(p, 3), Kind.UUID, []),
    "time of facts": (lambda p: put(p, "meta/end_ns", 1, 5, np.int64), Kind.TIME, []),
    "checksum": (lambda p: put(p, "meta/checksum", 2, 5, np.uint32), Kind.CHECKSUM, [2]),
    "image": (lambda p: overwrite(p / "data/top/c.0.0.0.0", 60, b"xxxx"), Kind.IMAGE, [0]),
    "nan": (lambda p: put(p, "data/reward", 201, np.nan, np.float64), Kind.NUMBER, [1]),
    "flag": (lambda p: put(p, "data/truncated", 201, 9, np.uint8), Kind.NUMBER, [1]),
    "time": (lambda p: put(p, "data/stamp", 210, 5, np.int64), Kind.TIME, [1]),
    "late": (lambda p: put(p, "data/stamp_top", 210, 2**60, np.int64), Kind.TIME, [1]),
    "source": (lambda p: put(p, "data/source", 5, 9, np.uint8), Kind.CODE, [0]),
    "instruction": (lambda p: put(p, "data/instruction", 353, 900, np.int32), Kind.CODE, [4]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_told_of_and_repaired(path, whole, embodiment, make_frames, name):
    damage, kind, deleted = DAMAGE[name]
    damage(path)
    report = validate(path, repair=True, decode=name == "image")
    found = [flaw for flaw in report.flaws if flaw.level is Level.BROKEN]
    assert kind in {flaw.kind for flaw in found}, [str(flaw) for flaw in found]
    assert all(flaw.remedy and "\n" not in str(flaw) for flaw in found)
    assert report.deleted == deleted
    assert report.repaired
    assert not report.broken, [str(flaw) for flaw in report.broken]
    store = Store(path)
    assert store.kept.tolist() == [k for k in range(len(LENGTHS)) if k not in deleted]
    columns, facts = whole
    rows = np.flatnonzero(np.isin(np.repeat(np.arange(len(LENGTHS)), LENGTHS), store.kept))
    for key in store.keys if name != "image" else ():  # whole columns can be loaded again
        np.testing.assert_array_equal(store.load(key)[rows], columns[key][rows])
    assert store.instructions == columns["instructions"]
    lost = name in ("facts gone", "texts gone", "table gone", "code of facts")
    changed = {"end_ns"} if name in ("times gone", "time of facts") else {"uuid"} if "uuid" in name else set()
    for k in store.kept.tolist() if not lost else ():
        found = asdict(store.info(k))
        assert {key for key in found if found[key] != facts[k][key] and key != "provenance"} <= changed
    with Recorder(path, embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(9, "again"), make_frames(embodiment, 4))
    if deleted:
        assert compact(path) == len(deleted)
        assert not validate(path).broken


def test_an_intact_one_is_left_as_it_is(path):
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    report = validate(path, repair=True, workers=2)
    assert (report.broken, report.repaired, report.deleted) == ([], [], [])
    assert (report.episodes, report.frames) == (len(LENGTHS), FRAMES)
    assert {flaw.kind for flaw in report.warnings} == {Kind.LIMITS}  # the fixture's numbers are anything
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_looking_changes_nothing(path):
    DAMAGE["image"][0](path)
    DAMAGE["stale shard"][0](path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    report = validate(path)
    assert {flaw.kind for flaw in report.broken} == {Kind.IMAGE, Kind.CHECKSUM, Kind.LEFTOVER}
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_cannot_be_repaired_is_said(path, tmp_path):
    with pytest.raises(TandemError, match="there is none"):
        validate(tmp_path / "none")
    with pytest.raises(TandemError, match="remote"):
        validate("memory://somewhere")
    (path / "meta/episode_ends/c.0").unlink()
    report = validate(path, repair=True)
    assert [flaw.kind for flaw in report.broken] == [Kind.ROOT]
    assert not report.repaired
    (path / "zarr.json").unlink()
    assert "no store" in str(validate(path).broken[0])


def test_an_array_of_another_kind_is_not_overwritten(path):
    file = path / "data/reward/zarr.json"
    file.write_text(file.read_text().replace("float64", "float32"))
    before = file.read_bytes()
    with pytest.raises(TandemError, match="reward"):
        validate(path, repair=True)
    assert Kind.METADATA in {flaw.kind for flaw in validate(path).broken}
    assert file.read_bytes() == before


def test_strangers_and_contradictions_are_warnings(path, embodiment, make_frames):
    (path / "data/mine").mkdir()
    (path / "data/top/notes.txt").touch()
    with Recorder(path, embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(9, "again", outcome="success"), make_frames(embodiment, 4))
        recorder.mark_deleted([0])
    overwrite(path / "data/top/c.0.0.0.0", 60, b"xxxx")
    report = validate(path)
    assert not report.broken
    assert {flaw.kind for flaw in report.warnings} == {Kind.EXTRA, Kind.OUTCOME, Kind.DELETED, Kind.LIMITS}
    assert (path / "data/mine").exists()


def test_while_somebody_records(path, embodiment, make_frames):
    with closing(Recorder(path, embodiment, fsync=False)) as recorder:
        recorder.begin(EpisodeInfo(9, "again"))
        for frame in make_frames(embodiment, 300):
            recorder.add(frame)
        report = validate(path)
        assert not report.broken
        assert Kind.WRITER in {flaw.kind for flaw in report.warnings}
        recorder.abort()


def test_an_empty_store(tmp_path, embodiment):
    Recorder(tmp_path / "store", embodiment).close()
    report = validate(tmp_path / "store", repair=True)
    assert (report.flaws, report.episodes) == ([], 0)


def test_a_fact_that_is_lost_does_not_become_another_one(tmp_path, embodiment, make_frames):
    """Bug: in a table without an empty text its first row stood in, so that an episode got another's task."""
    path = tmp_path / "store"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for k in range(2):
            info = EpisodeInfo(k, f"task {k}", env="rig", outcome="dropped", failure_reason="slippery")
            frames = [
                replace(frame, observation=replace(frame.observation, instruction=f"task {k}"))
                for frame in make_frames(embodiment, 3, seed=k)
            ]
            recorder.write_episode(info, frames)
    assert "" not in Store(path).names
    put(path, "meta/env", 1, 77, np.int32)
    put(path, "meta/task", 1, -1, np.int32)
    report = validate(path, repair=True)
    remedies = {flaw.where: flaw.remedy for flaw in report.repaired}
    assert remedies == {"meta/env": "leaves it empty", "meta/task": "takes it from the first frame"}
    infos = Store(path).infos()
    assert [(info.instruction, info.env, info.outcome) for info in infos] == [
        ("task 0", "rig", "dropped"),
        ("task 1", "", "dropped"),
    ]
    assert not validate(path).broken
