"""Episode stores as LeRobotDataset v3, for LeRobot's own tools (measured with lerobot 0.6.1)."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Frame
from tandem_datasets.store import Store

EMBODIMENT_FILE = "meta/embodiment.json"
"""Beside LeRobot's own metadata: the whole embodiment, of which LeRobot's features tell only a part."""


def export(store: Store, target: str | Path, repo_id: str = "tandem/episodes") -> Path:
    """Writes all committed episodes as a LeRobotDataset, complete or not at all.

    ``observation.images.<camera>`` are lossless pictures, ``observation.state`` and ``action`` float32 in the
    embodiment's units, each frame's instruction is its ``task``. The action is the executed one.

    Args:
        store: what to export.
        target: a directory that is not there yet or empty.
        repo_id: the dataset's name for LeRobot.

    Raises:
        TandemError: LeRobot is not installed, the place is taken, the store is empty, or LeRobot has no words for
            its embodiment (a rate that is no whole number, a camera that is not rgb8).
    """
    where = f"export {store.path}"
    folder = Path(target)
    body = store.embodiment
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise TandemError(f"{where}: {folder} is in use (allowed: a new or an empty directory)")
    if store.n_episodes == 0:
        raise TandemError(f"{where}: it is empty (allowed: at least one episode)")
    if body.rate_hz != round(body.rate_hz):
        raise TandemError(f"{where}: rate_hz is {body.rate_hz} (allowed: whole numbers, LeRobot has no others)")
    for camera in body.cameras:
        if camera.encoding is not Encoding.RGB8:
            raise TandemError(f"{where}: camera '{camera.name}' is {camera.encoding} (allowed: rgb8)")
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError as error:
        raise TandemError(f"{where}: LeRobot is not installed: {error} (wanted: the extra 'lerobot')") from None

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        root = Path(beside, "dataset")  # LeRobot wants to make it by itself
        dataset = LeRobotDataset.create(
            repo_id,
            fps=round(body.rate_hz),
            features=body.lerobot_features(),
            root=root,
            robot_type=body.name,
            use_videos=False,
        )
        for episode in range(store.n_episodes):
            for frame in store.frames(episode):
                dataset.add_frame(_lerobot_frame(frame, bool(body.state)))
            dataset.save_episode()
        dataset.finalize()
        (root / EMBODIMENT_FILE).write_text(json.dumps(body.to_dict(), indent=2) + "\n", "utf-8")
        os.replace(root, folder)
    return folder


def _lerobot_frame(frame: Frame, has_state: bool) -> dict[str, Any]:
    seen = frame.observation
    values: dict[str, Any] = {f"observation.images.{name}": image for name, image in seen.images.items()}
    if has_state:
        values["observation.state"] = seen.state
    return {**values, "action": frame.action, "task": seen.instruction}
