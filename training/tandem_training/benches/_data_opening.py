"""Rows of `tandem bench data` about a store of very many episodes: how long opening takes, and how much memory."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_training.benches._data_scenes import BODY
from tandem_training.results import Row

EPISODES = 100_000
_GROUP = 5000

_MEASURE = """
import json, sys, time
from statistics import median
import numpy as np
import psutil
from tandem_datasets.layout import EPISODE_COLUMNS
from tandem_datasets.store import Store

def columns():
    store = Store(sys.argv[1])
    return [store.load_episodes(column.key.removeprefix("meta/")) for column in EPISODE_COLUMNS]

def seconds(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started

memory = psutil.Process().memory_info
before = memory().rss
held = columns()
mb = memory().rss - before
found = {
    "open_ms": median(seconds(lambda: Store(sys.argv[1]).episode_ends) for _ in range(5)),
    "all_ms": median(seconds(columns) for _ in range(3)),
    "mb": mb,
    "columns": 1 + len(held),
}
print(json.dumps(found))
"""


def record_many(path: Path, episodes: int = EPISODES) -> None:
    """A store of episodes of one frame, without cameras."""
    body = replace(BODY, cameras=(), state=BODY.state[:1], action=BODY.action[:1])
    one = np.zeros(1, np.float32)
    with Recorder(path, body, fsync=False, group=_GROUP) as recorder:
        for k in range(episodes):
            stamp = k * body.period_ns
            seen = Observation({}, one, "reach", stamp)
            info = EpisodeInfo(k, "reach", env="bench", outcome="success", success=True, begin_ns=stamp)
            recorder.write_episode(info, [Frame(seen, one, Source.EXPERT)])


def opening(path: Path, repeats: int) -> Sequence[Row]:
    """``open_100k_ms``, ``open_100k_all_ms`` and ``open_100k_mb``, each time in a new process."""
    found = [_once(path) for _ in range(repeats)]
    notes = {
        "open_ms": "milliseconds until episode_ends is there, files in the page cache",
        "all_ms": f"all {found[0]['columns']:.0f} numeric columns of a row per episode, opening included",
        "mb": "resident memory more than before opening, with all of them held",
    }
    scale = {"open_ms": 1e3, "all_ms": 1e3, "mb": 1e-6}
    rows = []
    for key, note in notes.items():
        values = [scale[key] * one[key] for one in found]
        spread = f"{min(values):.3g} to {max(values):.3g} over {len(values)} processes"
        rows.append(Row("", statistics.median(values), repeats=len(values), note=f"{note}; {spread}"))
    return rows


def _once(path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise TandemError(f"open_100k: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout)
