"""A store's episodes as a LeRobotDataset v3, written with pyarrow and PyAV: LeRobot itself is not needed."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.columns import chosen, image_blocks
from tandem_datasets.formats.importing import require_vacant, write_beside
from tandem_datasets.formats.lerobot import layout, statistics
from tandem_datasets.formats.lerobot.features import IMAGES, STATE
from tandem_datasets.formats.lerobot.metadata import Record, write_meta
from tandem_datasets.formats.lerobot.tables import encode_picture, lerobot_table, our_table
from tandem_datasets.formats.lerobot.video import VideoOptions, VideoWriter, video_info
from tandem_datasets.formats.packages import package
from tandem_datasets.progress import Progress
from tandem_datasets.store import Store
from tandem_datasets.workers import each_in_order

_IMAGE_FILE_BYTES = 128 << 20  # of pixels in a data file; as PNG rather less, below LeRobot's 100 MB
_VIDEO_FILE_BYTES = 512 << 20  # of pixels in a video file, which are some MB encoded
_FILE_ROWS = 1 << 18  # frames in a data file, however small


@dataclass(frozen=True)
class _Part:
    """One episode's place, in the store and in the dataset."""

    source: int  # in the store
    index: int  # in the dataset
    first: int  # row in the dataset
    length: int


@dataclass(frozen=True)
class _Plan:
    """What is the same for all files; it travels to worker processes."""

    store: Store
    folder: str
    video: VideoOptions | None  # None: images
    tasks: dict[int, int]  # the store's instruction codes -> LeRobot's task_index
    where: str

    @property
    def body(self) -> Embodiment:
        return self.store.embodiment

    def is_video(self, camera: Camera) -> bool:
        return self.video is not None and camera.encoding is Encoding.RGB8

    @property
    def videos(self) -> list[Camera]:
        return [camera for camera in self.body.cameras if self.is_video(camera)]


def write(
    store: Store,
    target: Path,
    episodes: list[int] | None,
    video: VideoOptions | None,
    workers: int,
    progress: Progress,
) -> Path:
    """See ``formats.lerobot.export``."""
    where = f"export {store.name}"
    require_vacant(target, where)
    body = store.embodiment
    picked = chosen(store, episodes, where)
    if body.rate_hz != round(body.rate_hz):
        raise TandemError(f"{where}: rate_hz is {body.rate_hz} (allowed: whole numbers, LeRobot has no others)")
    if video is not None:
        video.check(where)
        _require_even(body, video, where)
    package("pyarrow.parquet", where)
    tasks = _tasks(store, picked)
    files = _files(store, picked, video)

    def fill(folder: Path) -> None:
        folder.mkdir()
        plan = _Plan(store, os.fspath(folder), video, tasks, where)
        records: list[Record] = []
        with closing(each_in_order(partial(_write_files, plan), list(enumerate(files)), workers, where)) as each:
            for record in chain.from_iterable(each):
                records.append(record)
                progress(len(records), len(picked), "episodes")
        write_meta(
            store, folder, picked, records, [store.instructions[code] for code in tasks], _video_infos(plan), where
        )

    return write_beside(target, fill, where)


def _require_even(body: Embodiment, video: VideoOptions, where: str) -> None:
    for camera in body.cameras:
        odd = camera.height % 2 or camera.width % 2
        if camera.encoding is Encoding.RGB8 and odd and "420" in video.pix_fmt:
            raise TandemError(
                f"{where}: camera '{camera.name}' is {camera.width}x{camera.height} (allowed for {video.pix_fmt}: "
                "even sizes; pix_fmt=yuv444p of h264 takes all)"
            )


def _tasks(store: Store, picked: list[int]) -> dict[int, int]:
    """LeRobot's number of each instruction, in the order in which they occur."""
    tasks: dict[int, int] = {}
    for episode in picked:
        rows = store.episode_slice(episode)
        for code in store.load("instruction", rows.start, rows.stop).tolist():
            tasks.setdefault(code, len(tasks))
    return tasks


def _files(store: Store, picked: list[int], video: VideoOptions | None) -> list[list[_Part]]:
    """Which episodes go into which file; it depends on the data alone, not on the number of workers."""
    pixels = sum(int(np.prod(camera.shape)) * camera.dtype.itemsize for camera in store.embodiment.cameras)
    limit = _IMAGE_FILE_BYTES if video is None else _VIDEO_FILE_BYTES
    files: list[list[_Part]] = [[]]
    first = held = 0
    for index, episode in enumerate(picked):
        rows = store.episode_slice(episode)
        length = rows.stop - rows.start
        if files[-1] and (held + length > _FILE_ROWS or (held + length) * pixels > limit):
            files.append([])
            held = 0
        files[-1].append(_Part(episode, index, first, length))
        first += length
        held += length
    return files


def _video_infos(plan: _Plan) -> dict[str, dict[str, Any]]:
    """By camera, told from the first file."""
    assert plan.video is not None or not plan.videos
    return {
        camera.name: video_info(_video_path(plan, camera, layout.place(0)), plan.video, plan.where)
        for camera in plan.videos
        if plan.video is not None
    }


def _video_path(plan: _Plan, camera: Camera, at: layout.Place) -> Path:
    return Path(plan.folder, layout.video_file(IMAGES + camera.name, at))


def _write_files(plan: _Plan, numbered: tuple[int, list[_Part]]) -> Iterator[Record]:
    """Writes one data file with its videos; yields a record for each episode."""
    parquet = package("pyarrow.parquet", plan.where)
    at, parts = layout.place(numbered[0]), numbered[1]
    root, body = Path(plan.folder), plan.body
    data, ours = root / layout.data_file(at), root / layout.our_file(at)
    for path in (data, ours):
        path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        videos = {}
        for camera in plan.videos:
            assert plan.video is not None
            path = _video_path(plan, camera, at)
            writer = VideoWriter(path, round(body.rate_hz), camera.height, camera.width, plan.video, plan.where)
            videos[camera.name] = stack.enter_context(writer)
        writers: list[Any] = []
        for part in parts:
            numbers = _numbers(plan, part)
            images, image_statistics = _images(plan, part, videos)
            tables = (lerobot_table(body, numbers, images, plan.where), our_table(plan.store, part.source, plan.where))
            if not writers:
                writers += [
                    stack.enter_context(parquet.ParquetWriter(path, table.schema, compression="snappy"))
                    for path, table in zip((data, ours), tables, strict=True)
                ]
            for each, table in zip(writers, tables, strict=True):
                each.write_table(table, row_group_size=part.length)  # one episode, one row group
            stats = image_statistics | {key: statistics.of_numbers(values) for key, values in numbers.items()}
            yield _record(plan, part, at, parts[0].first, numbers["task_index"], stats)


def _numbers(plan: _Plan, part: _Part) -> dict[str, np.ndarray]:
    """LeRobot's columns of one episode that are no images."""
    store, body = plan.store, plan.body
    rows = store.episode_slice(part.source)

    def load(key: str) -> np.ndarray:
        return store.load(key, rows.start, rows.stop)

    steps = np.arange(part.length)
    done = load("terminated") | load("truncated")
    done[-1] = True
    codes = load("instruction").tolist()
    numbers = {STATE: load("state")} if body.state else {}
    numbers |= {"action": load("action")} if body.action else {}
    return numbers | {
        "next.reward": load("reward").astype(np.float32),
        "next.done": done,
        "next.success": load("success"),
        "timestamp": (steps / round(body.rate_hz)).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(part.length, part.index),
        "index": part.first + steps,
        "task_index": np.array([plan.tasks[code] for code in codes]),
    }


def _images(
    plan: _Plan, part: _Part, videos: Mapping[str, VideoWriter]
) -> tuple[dict[str, list[bytes]], dict[str, statistics.Statistics]]:
    """PNGs of the cameras that are no videos, and the statistics of all; videos grow by the episode."""
    pictures: dict[str, list[bytes]] = {}
    stats = {}
    for camera in plan.body.cameras:
        key = IMAGES + camera.name
        counted = statistics.ImageStatistics(part.length, camera.dtype, camera.shape[2])
        encoded: list[bytes] = []
        begins = True
        for block in image_blocks(plan.store, camera.name, plan.store.episode_slice(part.source)):
            counted.add(block)
            for image in block:
                if camera.name in videos:
                    videos[camera.name].add(image, begins)
                    begins = False
                else:
                    encoded.append(encode_picture(image))
        if camera.name not in videos:
            pictures[key] = encoded
        stats[key] = counted.result(255.0 if camera.encoding is Encoding.RGB8 else 1.0)
    return pictures, stats


def _record(
    plan: _Plan,
    part: _Part,
    at: layout.Place,
    file_first: int,
    task_codes: np.ndarray,
    stats: dict[str, statistics.Statistics],
) -> Record:
    """The episode's row in ``meta/episodes``, its statistics as mappings still."""
    rate = round(plan.body.rate_hz)
    where = {"chunk_index": at[0], "file_index": at[1]}
    record: Record = {
        "episode_index": part.index,
        "tasks": list(dict.fromkeys(task_codes.tolist())),
        "length": part.length,
        **{f"data/{key}": value for key, value in where.items()},
        "dataset_from_index": part.first,
        "dataset_to_index": part.first + part.length,
    }
    start = part.first - file_first
    for camera in plan.videos:
        video = f"videos/{IMAGES}{camera.name}"
        record |= {f"{video}/{key}": value for key, value in where.items()}
        record |= {f"{video}/from_timestamp": start / rate, f"{video}/to_timestamp": (start + part.length) / rate}
    return record | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, "stats": stats}
