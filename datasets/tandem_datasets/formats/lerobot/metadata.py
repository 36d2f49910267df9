"""What stands in ``meta``: the data set as a whole, its tasks, its episodes, their statistics and our facts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.formats.lerobot import layout, statistics
from tandem_datasets.formats.lerobot.features import lerobot_features
from tandem_datasets.formats.packages import package
from tandem_datasets.store import Store

Record = dict[str, Any]
"""An episode's row in ``meta/episodes``, its ``stats`` as mappings still and its ``tasks`` as numbers."""


def write_meta(
    store: Store,
    root: Path,
    picked: Sequence[int],
    records: Sequence[Record],
    texts: Sequence[str],
    videos: Mapping[str, Mapping[str, Any]],
    where: str,
) -> None:
    """Writes everything that is no frame.

    Args:
        store: what is exported.
        root: the data set's folder.
        picked: the store's episodes, as many as ``records``.
        records: of the episodes.
        texts: the tasks, by LeRobot's number.
        videos: what ``info.json`` tells of the cameras that are videos.
        where: begins an error's line.
    """
    body = store.embodiment
    stats = statistics.together([record["stats"] for record in records])
    _write_json(root / layout.INFO_FILE, {
        "codebase_version": layout.VERSION,
        "robot_type": body.name,
        "total_episodes": len(records),
        "total_frames": records[-1]["dataset_to_index"],
        "total_tasks": len(texts),
        "chunks_size": layout.CHUNK_FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": round(body.rate_hz),
        "splits": {"train": f"0:{len(records)}"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if videos else None,
        "features": lerobot_features(body, videos),
    })  # fmt: skip
    _write_json(root / layout.STATS_FILE, {key: _lists(values) for key, values in stats.items()})
    _write_tasks(root / layout.TASKS_FILE, texts, where)
    _write_episodes(root / layout.EPISODES_PATH.format(chunk_index=0, file_index=0), records, texts, where)
    _write_json(root / layout.EMBODIMENT_FILE, body.to_dict())
    facts = (store.info(episode) for episode in picked)
    lines = [json.dumps({**asdict(fact), "provenance": dict(fact.provenance)}, sort_keys=True) for fact in facts]
    (root / layout.OUR_FACTS).write_text("\n".join(lines) + "\n", "utf-8")


def _lists(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {key: array.tolist() for key, array in values.items()}


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", "utf-8")


def _write_tasks(path: Path, texts: Sequence[str], where: str) -> None:
    """As pandas writes a table whose index is the task: LeRobot reads it with pandas."""
    pa, parquet = package("pyarrow", where), package("pyarrow.parquet", where)
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    known = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [{**column, "metadata": None} for column in columns],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.0",
    }
    table = pa.table(
        {"task_index": pa.array(range(len(texts)), pa.int64()), "task": pa.array(list(texts), pa.string())}
    )
    parquet.write_table(table.replace_schema_metadata({b"pandas": json.dumps(known).encode()}), path)


def _write_episodes(path: Path, records: Sequence[Record], texts: Sequence[str], where: str) -> None:
    pa, parquet = package("pyarrow", where), package("pyarrow.parquet", where)
    rows = []
    for record in records:
        plain = {key: value for key, value in record.items() if key != "stats"}
        stats = record["stats"].items()
        flat = {f"stats/{key}/{name}": array.tolist() for key, each in stats for name, array in each.items()}
        rows.append({**plain, "tasks": [texts[task] for task in record["tasks"]], **flat})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
