"""Arrow tables of one episode: LeRobot's columns, and ours beside them."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.formats.columns import plain_columns
from tandem_datasets.formats.lerobot.arrow import blobs_to_arrow, numbers_to_arrow
from tandem_datasets.formats.lerobot.features import lerobot_features
from tandem_datasets.formats.packages import package
from tandem_datasets.store import Store

_PNG_LEVEL = 1


def encode_picture(image: np.ndarray) -> bytes:
    """A lossless PNG of 8 or 16 bits."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(image[..., 0] if image.shape[2] == 1 else image, level=_PNG_LEVEL))


def lerobot_table(
    body: Embodiment, numbers: Mapping[str, np.ndarray], images: Mapping[str, list[bytes]], where: str
) -> Any:
    """LeRobot's columns in its order, with what Hugging Face's ``datasets`` wants to know of them."""
    pa = package("pyarrow", where)
    columns, kinds = {}, {}
    for key in lerobot_features(body, {}):
        if key in images:
            paths = [b"frame-%06d.png" % index for index in range(len(images[key]))]
            parts = [blobs_to_arrow(images[key], pa.binary(), where), blobs_to_arrow(paths, pa.string(), where)]
            columns[key] = pa.StructArray.from_arrays(parts, ["bytes", "path"])
            kinds[key] = {"_type": "Image"}
        elif key in numbers:
            columns[key], kinds[key] = _column(numbers[key], where)
    known = {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}
    return pa.table(columns).replace_schema_metadata(known)


def _column(values: np.ndarray, where: str) -> tuple[Any, dict[str, Any]]:
    """One column and its kind; as ``datasets`` has it, a vector of one number is a number."""
    kind = {"dtype": values.dtype.name, "_type": "Value"}
    if values.ndim == 1 or values.shape[1] == 1:
        return numbers_to_arrow(values.reshape(len(values)), where), kind
    return numbers_to_arrow(values, where), {"feature": kind, "length": values.shape[1], "_type": "List"}


def our_table(store: Store, episode: int, where: str) -> Any:
    """One episode's columns that LeRobot has no words for, as they are in the store."""
    pa = package("pyarrow", where)
    rows = store.episode_slice(episode)
    columns = {}
    for key in plain_columns(store):
        values = store.load(key, rows.start, rows.stop)
        if values.ndim == 1 or values.shape[1]:
            columns[key] = numbers_to_arrow(values, where)
    return pa.table(columns)
