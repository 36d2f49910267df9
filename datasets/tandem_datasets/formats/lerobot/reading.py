"""A LeRobotDataset v3 as a source of episodes, read with pyarrow, Pillow and PyAV."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.formats import foreign
from tandem_datasets.formats.columns import frames_of, no_images
from tandem_datasets.formats.encoded import decode_picture
from tandem_datasets.formats.lerobot import layout
from tandem_datasets.formats.lerobot.bodies import Stream, carried_body, derived_body, vector
from tandem_datasets.formats.lerobot.features import ACTION, IMAGES, flat_names
from tandem_datasets.formats.lerobot.parquet import ParquetFile
from tandem_datasets.formats.lerobot.video import read_video
from tandem_datasets.frames import EpisodeInfo, Frame, Source

_INDICES = ("timestamp", "frame_index", "task_index")
_OUTCOMES = ("next.reward", "next.done", "next.success")
_WELL_KNOWN = {*_INDICES, *_OUTCOMES, "episode_index", "index", ACTION}


@dataclass(frozen=True)
class _Episode:
    """A row of ``meta/episodes``."""

    index: int
    file: layout.Place  # of the data
    videos: tuple[
        tuple[layout.Place, float], ...
    ]  # each video camera's file, and where the episode begins in it, in seconds


class LeRobotSource:
    """See ``formats.lerobot.open_source``. Pickled, it forgets which file it has open."""

    def __init__(self, root: Path, state: tuple[str, ...], sources: Mapping[str, StateSource], actor: Source) -> None:
        self._root = root
        self._where = f"import {root}"
        self._actor = actor
        self._info = layout.read_info(root, self._where)
        self._tasks = self._read_tasks()
        carried = (root / layout.EMBODIMENT_FILE).is_file()
        self._facts = layout.read_facts(root, self._where) if carried else None
        if carried:
            found = carried_body(root, self._info, self._where)
        else:
            found = derived_body(root, self._info, state, sources, any(self._tasks.values()), self._where)
        self.embodiment, self._state, self._action, self._streams = (
            found.embodiment,
            found.state,
            found.action,
            found.streams,
        )
        self._episodes = self._read_episodes()
        if self._facts is not None and len(self._facts) != len(self._episodes):
            raise TandemError(
                f"{self._where}: {layout.OUR_FACTS} tells of {len(self._facts)} episodes, LeRobot of "
                f"{len(self._episodes)} (it was changed since: remove the folder '{layout.OURS}' to do without it)"
            )
        self._files: dict[str, tuple[layout.Place, ParquetFile]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    @property
    def n_episodes(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterable[Frame]]:
        """Its facts, and its frames, whose pictures are decoded as they are asked for."""
        episode = self._episodes[index]
        where = f"{self._where}: episode {episode.index}"
        file = self._open("data", layout.data_file, episode.file)
        rows = file.episode_rows(episode.index)
        outcomes = [key for key in _OUTCOMES if key in self._info.features]
        pictures = [stream.key for stream in self._streams if not stream.video]
        table = file.read(rows, [*self._state, *self._action, *_INDICES, *outcomes, *pictures])
        numbers = self._numbers(file, table, outcomes)
        instructions = self._instructions(file.numbers(table, "task_index", ()), where)
        images = self._images(episode, {key: file.blobs(table, key) for key in pictures}, len(instructions), where)
        if self._facts is not None:
            numbers |= self._our_numbers(episode, rows)
            info = _info_of(self._facts[index], where)
        else:
            info = self._foreign_info(episode, numbers, instructions)
        return info, frames_of(self.embodiment, numbers, instructions, images, where, self._actor)

    # -- numbers

    def _numbers(self, file: ParquetFile, table: Any, outcomes: list[str]) -> dict[str, np.ndarray]:
        """One episode's columns under the store's names."""
        numbers: dict[str, np.ndarray] = {"stamp": self._stamps(file, table)}
        for name, keys in (("state", self._state), ("action", self._action)):
            if keys:
                vectors = [vector(file, table, key, self._info.vectors[key]) for key in keys]
                numbers[name] = np.concatenate(vectors, axis=1)
        found = {key: file.numbers(table, key, ()) for key in outcomes}
        if "next.reward" in found:
            numbers["reward"] = foreign.as_float32(found["next.reward"], f"{file.where}: next.reward").astype(
                np.float64
            )
        if "next.done" in found:
            numbers["terminated"] = found["next.done"].astype(bool)
        if "next.success" in found:
            numbers["success"] = found["next.success"].astype(bool)
        return numbers

    def _stamps(self, file: ParquetFile, table: Any) -> np.ndarray:
        """Nanoseconds from the episode's begin; exact where the float32 timestamps only mean the frame's number."""
        steps = file.numbers(table, "frame_index", ()).astype(np.int64)
        seconds = file.numbers(table, "timestamp", ()).astype(np.float64)
        regular = steps / self._info.fps
        tolerance = 0.1 / self._info.fps
        exact = np.abs(seconds - regular).max(initial=0) < tolerance
        return np.round((regular if exact else seconds) * 1e9).astype(np.int64)

    def _instructions(self, codes: np.ndarray, where: str) -> list[str]:
        unknown = sorted(set(codes.tolist()) - set(self._tasks))
        if unknown:
            raise TandemError(f"{where}: task_index {unknown[0]} (allowed: those in {layout.TASKS_FILE})")
        return [self._tasks[code] for code in codes.tolist()]

    def _our_numbers(self, episode: _Episode, rows: slice) -> dict[str, np.ndarray]:
        """What we wrote beside LeRobot's columns: the same rows of a file with the same number."""
        file = self._open("ours", layout.our_file, episode.file)
        if file.n_rows < rows.stop:
            raise TandemError(f"{file.where}: {file.n_rows} rows (wanted: {rows.stop} or more)")
        table = file.read(rows, file.names)
        size = self.embodiment.action_dim
        return {
            key: file.numbers(table, key, (size,) if key in ("action_requested", "action_label") else ())
            for key in file.names
        }

    def _open(self, kind: str, path: Callable[[layout.Place], str], at: layout.Place) -> ParquetFile:
        held = self._files.get(kind)
        if held is None or held[0] != at:
            name = path(at)
            self._files[kind] = held = (at, ParquetFile(self._root / name, name, self._where))
        return held[1]

    # -- pictures

    def _images(
        self, episode: _Episode, blobs: Mapping[str, Any], count: int, where: str
    ) -> Iterable[Mapping[str, np.ndarray]]:
        if not self._streams:
            return no_images(count)
        names = [stream.camera.name for stream in self._streams]
        videos = iter(episode.videos)
        each = [
            self._video(stream, *next(videos), count, where)
            if stream.video
            else _decoded(blobs[stream.key], stream.camera, f"{where}: {stream.key}")
            for stream in self._streams
        ]
        return (dict(zip(names, images, strict=True)) for images in zip(*each, strict=True))

    def _video(
        self, stream: Stream, file: layout.Place, start_s: float, count: int, where: str
    ) -> Iterator[np.ndarray]:
        path = self._root / layout.video_file(stream.key, file)
        return read_video(path, start_s, count, self._info.fps, stream.camera.shape, f"{where}: {stream.key}")

    # -- what the data set is

    def _read_tasks(self) -> dict[int, str]:
        file = ParquetFile(self._root / layout.TASKS_FILE, layout.TASKS_FILE, self._where)
        key = next((name for name in file.names if name != "task_index"), "task")
        table = file.read(slice(0, file.n_rows), ["task_index", key])
        codes = file.numbers(table, "task_index", ())
        return dict(zip(codes.tolist(), file.texts(table, key), strict=True))

    def _read_episodes(self) -> list[_Episode]:
        videos = [stream.key for stream in self._streams if stream.video]
        paths = sorted((self._root / layout.EPISODES_DIR).glob("*/*.parquet"))
        found = [episode for path in paths for episode in self._episodes_in(path, videos)]
        if not found:
            raise TandemError(f"{self._where}: no episodes in {layout.EPISODES_DIR} (allowed: at least one)")
        found.sort(key=lambda episode: episode.index)
        indices = [episode.index for episode in found]
        if len(set(indices)) != len(indices):
            raise TandemError(f"{self._where}: {layout.EPISODES_DIR} names an episode twice")
        return found

    def _episodes_in(self, path: Path, videos: list[str]) -> Iterator[_Episode]:
        file = ParquetFile(path, f"{layout.EPISODES_DIR}/{path.parent.name}/{path.name}", self._where)
        parts = ("chunk_index", "file_index")
        keys = ["episode_index", *(f"data/{part}" for part in parts)]
        keys += [f"videos/{key}/{part}" for key in videos for part in (*parts, "from_timestamp")]
        table = file.read(slice(0, file.n_rows), keys)
        columns = {key: file.numbers(table, key, ()) for key in keys}
        if any((column < 0).any() or not np.isfinite(column).all() for column in columns.values()):
            raise TandemError(f"{file.where}: numbers below 0 or not finite")

        def place(key: str, row: int) -> layout.Place:
            return int(columns[f"{key}/chunk_index"][row]), int(columns[f"{key}/file_index"][row])

        for row in range(file.n_rows):
            starts = tuple(
                (place(f"videos/{key}", row), float(columns[f"videos/{key}/from_timestamp"][row])) for key in videos
            )
            yield _Episode(int(columns["episode_index"][row]), place("data", row), starts)

    def _foreign_info(self, episode: _Episode, numbers: Mapping[str, np.ndarray], texts: list[str]) -> EpisodeInfo:
        success = bool(numbers["success"].any()) if "success" in numbers else False
        return EpisodeInfo(
            seed=episode.index,
            instruction=texts[0],
            outcome="success" if success else "",
            success=success,
            uuid=foreign.episode_uuid(self._identity, episode.index),
            provenance={"imported": {"format": "lerobot", "episode": episode.index, **self._renamed}},
        )

    @property
    def _identity(self) -> str:
        """What this data set is, wherever it lies."""
        parts = hashlib.sha256()
        for name in (layout.INFO_FILE, layout.STATS_FILE):
            path = self._root / name
            parts.update(path.read_bytes() if path.is_file() else b"")
        return f"lerobot:{parts.hexdigest()}"

    @property
    def _renamed(self) -> dict[str, Any]:
        """Original names that were made to fit, and features that were left out."""
        body, features = self.embodiment, self._info.features
        named = {stream.key: stream.camera.name for stream in self._streams}
        names = {key: name for key, name in named.items() if key != IMAGES + name}
        fitted = ([scalar.name for scalar in body.state], [scalar.name for scalar in body.action])
        for keys, ours in zip((self._state, self._action), fitted, strict=True):
            originals = [name for key in keys for name in flat_names(features[key].get("names"))]
            if len(originals) == len(ours):
                names |= {old: new for old, new in zip(originals, ours, strict=True) if old != new}
        used = {*named, *self._state, *_WELL_KNOWN}
        left_out = [key for key in features if key not in used]
        return {**({"names": names} if names else {}), **({"left_out": left_out} if left_out else {})}


def _decoded(blobs: Any, camera: Camera, where: str) -> Iterator[np.ndarray]:
    for index, blob in enumerate(blobs):
        yield decode_picture(blob.as_py(), camera, f"{where}: frame {index}")


def _info_of(facts: Mapping[str, Any], where: str) -> EpisodeInfo:
    known = {field.name for field in fields(EpisodeInfo)}
    odd = sorted(set(facts) - known)
    if odd or not {"seed", "instruction", "uuid"} <= set(facts):
        raise TandemError(
            f"{where}: {layout.OUR_FACTS} has {sorted(facts)!s:.200} (allowed: {', '.join(sorted(known))})"
        )
    return EpisodeInfo(**facts)
