"""Whether two recorded episodes are the same, bit for bit, whoever recorded them and when."""

from typing import Any

import numpy as np

from tandem_datasets.store import Store

_FACTS = ("seed", "instruction", "env", "outcome", "failure_reason", "success")


def episodes_equal(store_a: Store, episode_a: int, store_b: Store, episode_b: int) -> list[str]:
    """Names of the columns that differ; empty if the episodes are equal.

    Compared are all frames and the episode's facts, stamps relative to the episode's begin. Left out are
    uuid, provenance and the mark of deletion, which tell recordings apart and not what happened.
    """
    columns_a, columns_b = _columns(store_a, episode_a), _columns(store_b, episode_b)
    keys = sorted({*columns_a, *columns_b})
    return [key for key in keys if not _same(columns_a.get(key), columns_b.get(key))]


def _columns(store: Store, episode: int) -> dict[str, Any]:
    """Arrays of the frames, and texts and numbers of the episode, none of them tied to when it was recorded."""
    info, rows = store.info(episode), store.episode_slice(episode)
    columns: dict[str, Any] = {}
    for key in store.keys:
        values = store.load(key, rows.start, rows.stop)
        columns[f"data/{key}"] = values - info.begin_ns if key.startswith("stamp") and values.ndim == 1 else values
    wordings = store.instructions  # their codes are each store's own
    columns["data/instruction"] = [wordings[code] for code in columns["data/instruction"]]
    if "data/subgoal" in columns:
        columns["data/subgoal"] = store.subgoals(episode)
    facts = {key: getattr(info, key) for key in _FACTS} | {"end_ns": info.end_ns - info.begin_ns}
    return columns | {f"meta/{key}": value for key, value in facts.items()}


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return bool(type(a) is type(b) and a == b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
