"""What any reader of files from others leans on: JSON within limits, and which weights are never opened."""

import json
from pathlib import Path
from typing import Any, NoReturn

from tandem_datasets.errors import TandemError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")  # suffixes: to open such a file is to run its code
_LARGEST_JSON_BYTES = 4 * 2**20


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file from others; TandemError if it is none, too large, or holds NaN or infinities."""
    try:
        if file.stat().st_size > _LARGEST_JSON_BYTES:
            raise TandemError(f"{file}: {file.stat().st_size} bytes (allowed: {_LARGEST_JSON_BYTES})")
        content = json.loads(file.read_text("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise TandemError(f"{file}: not JSON: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(content, dict):
        raise TandemError(f"{file}: is a {type(content).__name__} (wanted: an object)")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
