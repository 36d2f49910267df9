"""Episodes as a recording of the Rerun viewer: every frame of every camera, state, action, who acted."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Encoding
from tandem_datasets.formats.packages import package
from tandem_datasets.frames import Source
from tandem_datasets.progress import Progress
from tandem_datasets.rows import ColumnRows
from tandem_datasets.store import Store

_JPEG_QUALITY = 90


def write_recording(target: Path, store: Store, episodes: Sequence[int], progress: Progress) -> None:
    """Writes a ``.rrd``, whole or not at all. Each episode is a tree of its own, on the timelines frame and time.

    Raises:
        TandemError: rerun-sdk is not installed, or the store is damaged.
        OSError: the disk refuses.
    """
    rerun = package("rerun", "tandem data view: rerun")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        beside = os.path.join(scratch, "recording.rrd")
        recording = rerun.RecordingStream("tandem", recording_id=store.digest)
        recording.save(beside)
        for done, episode in enumerate(episodes, 1):
            _episode(rerun, recording, store, episode)
            progress(done, len(episodes), "episodes")
        recording.flush()
        recording.disconnect()
        os.replace(beside, target)


def _episode(rerun: Any, recording: Any, store: Store, episode: int) -> None:
    root, info, rows = f"episode_{episode:04d}", store.info(episode), store.episode_slice(episode)
    facts = f"{info.instruction}\n\n{info.outcome} {info.failure_reason}, seed {info.seed}, {info.env}, {info.uuid}"
    recording.log(f"{root}/facts", rerun.TextDocument(facts), static=True)
    robot = store.embodiment
    for key, scalars in (("state", robot.state), ("action", robot.action), ("action_label", robot.action)):
        if scalars:
            names = [f"{scalar.name} ({scalar.unit})" for scalar in scalars]
            recording.log(f"{root}/{key}", rerun.SeriesLines(names=names), static=True)
    columns = {
        key: store.load(key, rows.start, rows.stop)
        for key in ("stamp", "state", "action", "action_label", "has_label", "source", "reward")
    }
    pictures = {camera.name: store.rows(camera.name) for camera in robot.cameras}
    for t in range(rows.stop - rows.start):
        recording.set_time("frame", sequence=t)
        recording.set_time("time", duration=np.timedelta64(int(columns["stamp"][t] - info.begin_ns), "ns"))
        for camera in robot.cameras:
            recording.log(
                f"{root}/camera/{camera.name}", _picture(rerun, store, camera, pictures[camera.name], rows.start + t)
            )
        if robot.state:
            recording.log(f"{root}/state", rerun.Scalars(columns["state"][t]))
        if robot.action:
            recording.log(f"{root}/action", rerun.Scalars(columns["action"][t]))
            if columns["has_label"][t]:
                recording.log(f"{root}/action_label", rerun.Scalars(columns["action_label"][t]))
        recording.log(f"{root}/reward", rerun.Scalars([columns["reward"][t]]))
        if t == 0 or columns["source"][t] != columns["source"][t - 1]:
            recording.log(f"{root}/who", rerun.TextLog(Source(int(columns["source"][t])).name.lower()))


def _picture(rerun: Any, store: Store, camera: Camera, pictures: ColumnRows, row: int) -> Any:
    if camera.encoding is Encoding.RGB8 and store.codec == "jpeg":
        return rerun.EncodedImage(contents=store.stored(camera.name, row, row + 1)[0], media_type="image/jpeg")
    image = pictures[row]
    if camera.encoding is Encoding.DEPTH:
        return rerun.DepthImage(image[..., 0], meter=1000.0)
    if camera.encoding is Encoding.SEGMENTATION:
        return rerun.SegmentationImage(image[..., 0])
    return rerun.Image(image).compress(jpeg_quality=_JPEG_QUALITY)
