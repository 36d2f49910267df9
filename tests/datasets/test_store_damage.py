"""Damaged, foreign, newer or hostile stores end in one line, never in a traceback, a hang or a full memory."""

import json
import os
import resource
import shutil

import google_crc32c
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.ops.changing import delete
from tandem_datasets.ops.choosing import Choice
from tandem_datasets.ops.repair import Repair
from tandem_datasets.ops.structure import skeleton
from tandem_datasets.ops.validate import validate
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


@pytest.fixture(scope="module")
def intact(tmp_path_factory, embodiment, make_frames):
    path = tmp_path_factory.mktemp("intact") / "store"
    with Recorder(path, embodiment, fsync=False) as recorder:
        for k in range(3):
            recorder.write_episode(EpisodeInfo(k, "say"), make_frames(embodiment, 100, seed=k))
    return path


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "store")


def _read_all(path):
    store = Store(path)
    for episode in range(store.n_episodes):
        store.frames(episode)
    return store.infos(), store.digest, [store.load(key) for key in store.keys]


def _refused(path, words=None):
    with pytest.raises(TandemError, match=words) as caught:
        _read_all(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1200


def _edit(file, *keys, value):
    content = json.loads(file.read_bytes())
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    file.write_text(json.dumps(content))


def test_the_intact_one_is_read(path):
    assert _read_all(path)


def test_no_store(tmp_path):
    _refused(tmp_path / "none", "there is none")
    (tmp_path / "file").touch()
    _refused(tmp_path / "file", "a file, not a folder")
    (tmp_path / "folder").mkdir()
    _refused(tmp_path / "folder", "no store")


def test_foreign_and_newer_stores(path):
    root = path / "zarr.json"
    _edit(root, "attributes", "tandem_schema", value=2)
    _refused(path, "newer Tandem")
    for schema in (0, "1", True, None, [1]):
        _edit(root, "attributes", "tandem_schema", value=schema)
        _refused(path, "tandem_schema")
    _edit(root, "attributes", value={"colour": "red"})
    _refused(path, "not a Tandem store")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("codec",), "lzma"),
        (("codec",), ["zstd"]),
        (("checksum",), "md5"),
        (("embodiment",), None),
        (("embodiment", "cameras", 0, "name"), "../../../etc"),
        (("embodiment", "cameras", 0, "name"), "/etc/passwd"),
        (("embodiment", "cameras", 0, "name"), "state"),
        (("embodiment", "cameras", 0, "height"), 10**12),
        (("embodiment", "cameras", 0, "height"), 7),
        (("embodiment", "cameras", 0, "intrinsics", "distortion"), 5),
        (("embodiment", "cameras", 0, "encoding"), "depth"),
        (("embodiment", "action", 0, "high"), 10**400),
        (("embodiment", "state"), []),
    ],
)
def test_hostile_attributes(path, keys, value):
    _edit(path / "zarr.json", "attributes", *keys, value=value)
    _refused(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b'{"a": NaN}', b" " * (17 << 20)])
@pytest.mark.parametrize("file", ["zarr.json", "meta/episode_ends/zarr.json", "data/top/zarr.json"])
def test_damaged_json(path, file, content):
    (path / file).write_bytes(content)
    _refused(path)


def test_a_pipe_does_not_block(path):
    (path / "zarr.json").unlink()
    os.mkfifo(path / "zarr.json")
    _refused(path, "regular file|cannot read")


def test_a_pipe_does_not_block_a_recorder(path, embodiment):
    (path / "data/action/zarr.json").unlink()
    os.mkfifo(path / "data/action/zarr.json")
    with pytest.raises(TandemError, match="no regular file"):
        Recorder(path, embodiment)


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("meta/episode_ends/zarr.json", ("shape",), [2**61]),
        ("meta/episode_ends/zarr.json", ("shape",), [-1]),
        ("meta/episode_ends/zarr.json", ("shape",), [2.5]),
        ("meta/episode_ends/zarr.json", ("shape",), [3, 1]),
        ("meta/episode_ends/zarr.json", ("shape",), [4]),  # a row of zeros behind the real ones
        ("meta/episode_ends/zarr.json", ("data_type",), "float64"),
        ("meta/instructions/zarr.json", ("shape",), [10**9]),
        ("meta/instructions/zarr.json", ("shape",), [1]),
        ("meta/names/zarr.json", ("shape",), [0]),
        ("meta/uuid/zarr.json", ("data_type",), "object"),
        ("data/state/zarr.json", ("data_type",), "object"),
        ("data/top/zarr.json", ("codecs", 0, "configuration", "codecs", 1, "name"), "python_pickle"),
        ("data/top/zarr.json", ("chunk_grid", "configuration", "chunk_shape"), [10**9, 6, 8, 3]),
        ("data/top/zarr.json", ("codecs", 0, "configuration", "index_location"), "start"),
        ("data/state/zarr.json", ("data_type",), "float64"),
        ("data/state/zarr.json", ("node_type",), "group"),
    ],
)
def test_hostile_array_metadata(path, file, keys, value):
    _edit(path / file, *keys, value=value)
    _refused(path)


@pytest.mark.parametrize("ends", [[2**47, 2**47 + 1, 2**47 + 2], [5, 5, 6], [-1, 2, 3], [100, 200, 10**6], [0, 1, 2]])
def test_hostile_episode_ends(path, ends):
    with (path / "meta/episode_ends/c.0").open("r+b") as file:
        file.write(np.array(ends, "<i8").tobytes())
    _refused(path)


@pytest.mark.parametrize("ends", [[2**60, 2**60 + 1, 2**60 + 2], [9, 5, 20], [-9, 1, 2], [0, 0, 0]])
def test_hostile_provenance_ends(path, ends):
    with (path / "meta/provenance_ends/c.0").open("r+b") as file:
        file.write(np.array(ends, "<i8").tobytes())
    _refused(path)


@pytest.mark.parametrize(
    "file",
    [
        "data/top/c.0.0.0.0",
        "data/top/c.1.0.0.0",
        "data/state/c.0.0",
        "data/stamp/c.0",
        "meta/episode_ends/c.0",
        "meta/provenance/c.0",
        "meta/provenance_ends/c.0",
        "meta/instructions/c.0",
        "meta/names/c.0",
        "meta/uuid/c.0.0",
        "meta/seed/c.0",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "folder"])
def test_damaged_files(path, file, damage):
    target = path / file
    data = target.read_bytes()
    target.unlink()
    if damage == "folder":
        target.mkdir()
    elif damage != "missing":
        target.write_bytes({"empty": b"", "cut": data[:-5], "longer": data + b"\0" * 8}[damage])
    _refused(path)


def test_any_flipped_byte_of_a_shard_is_seen_or_harmless(path):
    """zstd rows and the shard's index carry checksums; only the gaps between may differ unseen."""
    expected = Store(path).load("top").tobytes()
    target = path / "data/top/c.1.0.0.0"
    data = target.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(data), 60).tolist():
        spoilt = bytearray(data)
        spoilt[position] ^= 0x55
        target.write_bytes(spoilt)
        try:
            outcome = Store(path).load("top").tobytes()
        except TandemError as error:
            outcome = str(error)
        assert outcome == expected or "damaged" in outcome


def test_codes_out_of_range(path):
    cases = [("data/instruction", -1), ("data/instruction", 99), ("data/source", 99), ("meta/task", 99)]
    cases += [("meta/outcome", -1), ("meta/failure_reason", 4), ("meta/env", 2**31 - 1)]
    for key, value in cases:
        file = next((path / key).glob("c.*"))
        data = file.read_bytes()
        kind = np.uint8 if key == "data/source" else np.int32
        file.write_bytes(np.array(value, kind).tobytes() + data[np.dtype(kind).itemsize :])
        _refused(path, "code")
        file.write_bytes(data)


def test_any_changed_row_is_found_by_its_checksum(tmp_path, embodiment, make_frames):
    """Also where the codec itself would notice nothing."""
    lengths = (100, 200, 30)
    for codec in ("raw", "jpeg", "zstd"):
        path = tmp_path / codec
        with Recorder(path, embodiment, codec=codec, fsync=False) as recorder:
            for k, length in enumerate(lengths):
                recorder.write_episode(EpisodeInfo(k, "say"), make_frames(embodiment, length, seed=k))
        store = Store(path)
        for episode in range(len(lengths)):
            store.verify(episode)
        row_bytes = {"state": 12, "action": 8, "reward": 8, "stamp_top": 8, "has_label": 1, "instruction": 4}
        for key, size in row_bytes.items():
            for row, owner in ((0, 0), (99, 0), (100, 1), (329, 2)):
                with next((path / "data" / key).glob("c.*")).open("r+b") as file:
                    file.seek(row * size)
                    byte = file.read(1)
                    file.seek(row * size)
                    file.write(bytes([byte[0] ^ 1]))
                for episode in range(len(lengths)):
                    if episode == owner:
                        with pytest.raises(TandemError, match=f"episode {episode} is damaged .its checksum"):
                            store.verify(episode)
                    else:
                        store.verify(episode)
                with next((path / "data" / key).glob("c.*")).open("r+b") as file:
                    file.seek(row * size)
                    file.write(byte)
        shard = path / "data/top/c.0.0.0.0"
        data = shard.read_bytes()
        shard.write_bytes(data[:7] + bytes([data[7] ^ 1]) + data[8:])
        with pytest.raises(TandemError, match="episode 0 is damaged"):
            store.verify(0)
        store.verify(2)


def test_a_store_of_before_the_first_release(path):
    content = json.loads((path / "zarr.json").read_bytes())
    del content["attributes"]["checksum"]
    (path / "zarr.json").write_text(json.dumps(content))
    _refused(path, "before the first release")


def test_gigantic_images_are_refused_before_memory_is_taken(path):
    """The files say 16384 x 16384 and are there, but what they hold is small."""
    root = json.loads((path / "zarr.json").read_bytes())
    camera = root["attributes"]["embodiment"]["cameras"][0]
    camera["height"] = camera["width"] = 16384
    (path / "zarr.json").write_text(json.dumps(root))
    shape = json.loads((path / "data/top/zarr.json").read_bytes())
    shape["shape"] = [300, 16384, 16384, 3]
    shape["chunk_grid"]["configuration"]["chunk_shape"] = [256, 16384, 16384, 3]
    shape["codecs"][0]["configuration"]["chunk_shape"] = [1, 16384, 16384, 3]
    (path / "data/top/zarr.json").write_text(json.dumps(shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TandemError, match=r"row 0 of .* is damaged: content of 144 bytes instead of 805306368"):
        Store(path).load("top")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def _claim(file, rows):
    """Gives a shard an index that says of its first rows that they lie so: (offset, size)."""
    data = file.read_bytes()
    index = np.frombuffer(data[-4100:-4], "<u8").reshape(256, 2).copy()
    index[: len(rows)] = rows
    end = int(np.array(rows).sum(1).max())
    with file.open("r+b") as shard:
        shard.truncate(max(end, len(data) - 4100))  # sparse: it costs whoever sends it nothing
        shard.seek(0, os.SEEK_END)
        shard.write(index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little"))


@pytest.mark.parametrize("case", ["giant row", "giant text", "the same row", "rows far apart"])
def test_rows_that_would_fill_the_memory(path, case):
    """Bug: files with holes say that a row has gigabytes, and so much memory was taken before it was looked at."""
    key = "meta/names/c.0" if case == "giant text" else "data/top/c.0.0.0.0"
    rows = {
        "giant row": [(0, 2**36)],
        "giant text": [(0, 2**36)],
        "the same row": [(0, 60_000)] * 256,
        "rows far apart": [(2**36 + 150, 150), (0, 150)],
    }[case]
    images = Store(path).load("top")
    _claim(path / key, rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = Store(path)
    pixels = (lambda: store.load("top"), lambda: store.rows("top")[0:2])
    for read in (lambda: store.names,) if case == "giant text" else pixels:
        with pytest.raises(TandemError, match=r"is damaged"):
            read()
    if case == "giant row":
        assert validate(path, repair=True).deleted == [0]
        assert Store(path).load("top", 1, 300).tobytes() == images[1:].tobytes()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@pytest.mark.parametrize("linked", ["meta/episode_ends/writer.lock", "data/top", "data", "meta/names"])
def test_links_in_a_store_lead_no_writer_elsewhere(path, tmp_path, embodiment, linked):
    """Bug: a store from others could have the file emptied that its lock was a link to, and files removed elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    target = path / linked
    if target.is_dir():
        shutil.move(target, elsewhere)
        (elsewhere / "film.partial").write_text("precious")
        (elsewhere / "c.9.0.0.0").write_text("precious")
    else:
        target.unlink(missing_ok=True)
        elsewhere.write_text("precious")
    target.symlink_to(elsewhere)
    before = _files_below(elsewhere)
    for write in (
        lambda: Recorder(path, embodiment),
        lambda: delete(path, Choice(episodes=0)),
        lambda: Repair(skeleton(str(path), "store")).__enter__(),
    ):
        with pytest.raises(TandemError, match="is a link"):
            write()
    assert _files_below(elsewhere) == before
    assert len(Store(path).load("top")) == 300  # reading harms nobody
    (path / "zarr.json").unlink()  # as a creation that was killed leaves it
    with pytest.raises(TandemError, match="is a link"):
        Recorder(path, embodiment)
    assert _files_below(elsewhere) == before


def _files_below(path):
    return {each: each.read_bytes() for each in (path, *path.rglob("*")) if each.is_file()}


def test_texts_have_a_length_that_every_reader_takes(tmp_path, embodiment, make_frames):
    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(EpisodeInfo(0, "ä" * 2**19), make_frames(embodiment, 1))
        with pytest.raises(TandemError, match=r"instruction has 1048577 bytes .allowed: at most 1048576"):
            recorder.write_episode(EpisodeInfo(0, "a" * (2**20 + 1)), make_frames(embodiment, 1))
    assert len(Store(tmp_path / "a").info(0).instruction) == 2**19


@pytest.mark.parametrize(
    "file", ["data/top/c.1.0.0.0", "data/state/c.0.0", "meta/episode_ends/c.0", "meta/instructions/c.0"]
)
def test_a_recorder_refuses_a_damaged_store_and_frees_it(path, embodiment, file):
    data = (path / file).read_bytes()
    (path / file).write_bytes(data[:-5])
    with pytest.raises(TandemError, match=r"truncated|damaged"):
        Recorder(path, embodiment)
    (path / file).write_bytes(data)
    with Recorder(path, embodiment) as recorder:
        assert recorder.n_episodes == 3


@pytest.mark.parametrize("value", [0, 2, -5, 10**15])
def test_a_recorder_throws_nothing_away_for_a_wrong_number(path, embodiment, value):
    """Bug: the provenance of all episodes was cut off where one damaged number said that it ends."""
    before = (path / "meta/provenance/c.0").read_bytes()
    with (path / "meta/provenance_ends/c.0").open("r+b") as file:
        file.seek(16)
        file.write(np.array([value], "<i8").tobytes())
    with pytest.raises(TandemError, match=r"meta/provenance_ends is damaged|meta/provenance lacks files"):
        Recorder(path, embodiment)
    assert (path / "meta/provenance/c.0").read_bytes() == before


def test_a_recorder_remakes_shapes_that_a_power_cut_emptied(path, embodiment, make_frames):
    expected = Store(path).load("state").tobytes()
    (path / "data/state/zarr.json").write_bytes(b"")
    (path / "data/stamp/zarr.json").write_bytes(b"\0" * 500)
    (path / "meta/seed/zarr.json").unlink()
    Recorder(path, embodiment).close()
    assert Store(path).load("state").tobytes() == expected
    assert Store(path).load_episodes("seed").tolist() == [0, 1, 2]


def test_a_recorder_does_not_overwrite_another_kind_of_array(path, embodiment):
    _edit(path / "data/state/zarr.json", "data_type", value="float64")
    with pytest.raises(TandemError, match="'data/state' has data_type"):
        Recorder(path, embodiment)
