"""kill -9 at any point loses at most the open episode, never alters a committed one, and writing goes on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr

from tandem_datasets.store import Store

_WRITER = Path(__file__).with_name("crash_writer.py")


def test_killed_writers_lose_nothing(tmp_path):
    path = tmp_path / "store"
    run = subprocess.run(
        [sys.executable, str(_WRITER), str(path), "1"], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    kills = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(kills) == 35
    before: list[str] = []
    for kill in kills:
        found = kill["found"]
        assert found[: len(before)] == before, "a committed episode changed"
        assert len(found) >= kill["committed"], "a committed episode was lost"
        before = found
    assert len(before) > 20
    assert len(set(before)) == len(before)
    store = Store(path)
    assert store.n_episodes == len(before) + 1
    group = zarr.open_group(path, mode="r")
    for key in store.keys:  # plain Zarr agrees: nothing of the lost episodes is left
        assert np.array_equal(group[f"data/{key}"][:], store.load(key)), key
    assert not list(path.rglob("*.partial"))
