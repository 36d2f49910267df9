"""A store behind a URL gives what the folder gives, and refuses what the folder refuses."""

import json
import os
import pickle
import re
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store


class Files(BaseHTTPRequestHandler):
    """Files of a folder by HEAD and GET, in ranges unless the server is told to ignore them."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet

    def __init__(self, folder: Path, ranges: bool, *arguments: object) -> None:
        self.folder, self.ranges = folder, ranges
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        data = path.read_bytes() if path.is_file() else None
        status, headers = (404, {}) if data is None else (200, {"Accept-Ranges": "bytes"})
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.ranges else None
        if data is not None and span:
            first, last = int(span[1]), min(int(span[2]), len(data) - 1)
            status, headers = 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            data = data[first : last + 1]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data or b"")), "ETag": '"1"'}).items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        self.end_headers()
        if body and data:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory, embodiment, make_frames):
    root = tmp_path_factory.mktemp("served")
    with Recorder(root / "bucket" / "store", embodiment, fsync=False) as recorder:
        for k, length in enumerate((3, 300, 1)):
            recorder.write_episode(EpisodeInfo(k, "say"), make_frames(embodiment, length, seed=k))
    return root


def _serve(folder, ranges=True):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, folder, ranges))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(folder):
    server = _serve(folder)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def memory(folder):
    """The store's files in fsspec's memory; gives its URL and the files by name."""
    system = fsspec.filesystem("memory")
    root = folder / "bucket" / "store"
    for path in root.rglob("*"):
        if path.is_file():
            system.pipe_file(f"/episodes/{path.relative_to(root)}", path.read_bytes())
    yield "memory://episodes"
    system.rm("/episodes", recursive=True)


@pytest.fixture
def in_a_bucket(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    return "s3://bucket/store"


def _assert_equal(store, local, assert_same_frames):
    assert store.embodiment == local.embodiment
    assert store.digest == local.digest
    assert store.episode_ends.tolist() == local.episode_ends.tolist()
    assert store.instructions == local.instructions
    assert store.infos() == local.infos()
    for key in local.keys:
        assert store.load(key).tobytes() == local.load(key).tobytes(), key
        assert store.load(key, 250, 260).tobytes() == local.load(key, 250, 260).tobytes(), key
    assert_same_frames(store.frames(1), local.frames(1))


@pytest.mark.parametrize("kind", ["memory", "http", "s3", "file"])
def test_a_url_gives_what_the_folder_gives(kind, folder, memory, server, in_a_bucket, assert_same_frames):
    local = Store(folder / "bucket" / "store")
    url = {
        "memory": memory,
        "http": f"http://127.0.0.1:{server.server_port}/bucket/store",
        "s3": in_a_bucket,
        "file": f"file://{folder}/bucket/store",
    }[kind]
    store = Store(url)
    assert store.remote == (kind != "file")
    _assert_equal(store, local, assert_same_frames)
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own
    assert again.load("top", 0, 5).tobytes() == local.load("top", 0, 5).tobytes()
    assert store.refresh() == 0


def test_a_remote_store_has_no_folder(memory):
    with pytest.raises(TandemError, match="it is remote"):
        _ = Store(memory).path


def test_what_is_committed_meanwhile_is_seen_after_refresh(tmp_path, embodiment, make_frames):
    with Recorder(tmp_path / "store", embodiment, fsync=False) as recorder:
        recorder.write_episode(EpisodeInfo(0, "say"), make_frames(embodiment, 3))
        server = _serve(tmp_path)
        try:
            store = Store(f"http://127.0.0.1:{server.server_port}/store")
            recorder.write_episode(EpisodeInfo(1, "say"), make_frames(embodiment, 4))
            assert (store.n_episodes, store.refresh(), store.n_frames) == (1, 1, 7)
            assert len(store.load("top")) == 7
        finally:
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("zarr.json", None, "no store"),
        ("zarr.json", b"{", "damaged"),
        ("zarr.json", b"", "damaged"),
        ("zarr.json", b" " * (17 << 20), "larger than"),
        ("data/top/c.1.0.0.0", None, "lacks files"),
        ("data/top/c.1.0.0.0", b"", "truncated"),
        ("data/top/c.0.0.0.0", b"\0" * 5000, "checksum"),
        ("data/state/c.0.0", b"\0", "truncated"),
        ("meta/episode_ends/c.0", b"\0", "truncated"),
    ],
)
def test_damage_behind_a_url(memory, name, change, words):
    system = fsspec.filesystem("memory")
    if change is None:
        system.rm(f"/episodes/{name}")
    else:
        system.pipe_file(f"/episodes/{name}", change)
    with pytest.raises(TandemError, match=words) as caught:
        Store(memory).frames(1)
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_store_behind_a_url(tmp_path, embodiment):
    Recorder(tmp_path / "store", embodiment).close()
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "store"), "/nothing", recursive=True)
    store = Store("memory://nothing")
    assert (store.n_episodes, store.n_frames) == (0, 0)
    assert store.load("top").shape == (0, 6, 8, 3)
    system.rm("/nothing", recursive=True)


def test_a_server_that_ignores_ranges(folder):
    server = _serve(folder, ranges=False)
    try:
        with pytest.raises(TandemError, match="does not answer byte ranges"):
            Store(f"http://127.0.0.1:{server.server_port}/bucket/store")
    finally:
        server.shutdown()
        server.server_close()


def test_nobody_answers():
    with pytest.raises(TandemError, match=r"store http://127.0.0.1:9/x: .*127.0.0.1:9"):
        Store("http://127.0.0.1:9/x")


def test_unknown_protocols():
    with pytest.raises(TandemError, match=r"store gopher://x: .*gopher.*\(allowed: a folder, memory://"):
        Store("gopher://x")


def test_a_bucket_without_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TandemError, match=r"store s3://bucket/store: ") as caught:
        Store("s3://bucket/store")
    assert len(str(caught.value).splitlines()) == 1


def test_a_place_that_promises_more_files_than_it_has(folder):
    """Bug: all of the promised files were queued for reading before the first was found to be missing."""
    system, root = fsspec.filesystem("memory"), "/promising"
    system.put(str(folder / "bucket" / "store"), root, recursive=True)
    ends = f"{root}/meta/episode_ends"
    shape = json.loads(system.cat(f"{ends}/zarr.json"))
    system.pipe(f"{ends}/zarr.json", json.dumps({**shape, "shape": [2**28]}).encode())
    system.pipe(f"{ends}/c.{2**16 - 1}", system.cat(f"{ends}/c.0"))
    begin = time.process_time()
    with pytest.raises(TandemError, match=r"cannot read meta/episode_ends/c\.\d+"):
        Store("memory://promising")
    assert time.process_time() - begin < 1.0
