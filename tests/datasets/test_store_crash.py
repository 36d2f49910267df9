"""kill -9 at any point loses at most the open episode, never alters a committed one, and writing goes on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from tandem_datasets.store import Store

_WRITER = Path(__file__).with_name("crash_writer.py")


@pytest.mark.parametrize(
    ("seed", "timed", "at_lines"),
    [(1, 4, 10), pytest.param(2, 30, 90, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_killed_writers_lose_nothing(tmp_path, seed, timed, at_lines):
    path = tmp_path / "store"
    command = [sys.executable, str(_WRITER), str(path), *map(str, (seed, timed, at_lines))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    kills = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(kills) == timed + at_lines
    before: list[str] = []
    for kill in kills:
        found = kill["found"]
        assert found[: len(before)] == before, "a committed episode changed"
        assert len(found) >= kill["committed"], "a committed episode was lost"
        before = found
    assert len(before) > timed
    assert len(set(before)) == len(before)
    store = Store(path)
    assert store.n_episodes == len(before) + 1
    group = zarr.open_group(path, mode="r")
    for key in store.keys:  # plain Zarr agrees: nothing of the lost episodes is left
        assert np.array_equal(group[f"data/{key}"][:], store.load(key)), key
    assert not list(path.rglob("*.partial"))
