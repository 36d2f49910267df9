"""Episodes of HDF5 files; see :mod:`.hdf5`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.formats.columns import frames_of
from tandem_datasets.formats.foreign import (
    action_scalars,
    as_float32,
    data_limits,
    episode_uuid,
    plain_name,
    state_scalars,
    state_source,
)
from tandem_datasets.formats.hdf5_file import Array, Hdf5File, same_rows
from tandem_datasets.formats.hdf5_layout import (
    Episode,
    demos,
    env_args,
    find_layout,
    hdf5_files,
    is_picture,
    names_of,
    source_of,
)
from tandem_datasets.formats.pictures import compressed_picture, fitted
from tandem_datasets.frames import EpisodeInfo, Frame, Source

_ALOHA_HZ, _ROBOMIMIC_HZ = 50.0, 20.0


class Hdf5Source:
    """See ``formats.Source``."""

    def __init__(
        self,
        path: Path,
        cameras: list[str] | None,
        state: list[str] | None,
        sources: Mapping[str, str],
        rate_hz: float | None,
        instruction: str,
        actor: str,
        size: tuple[int, int] | None,
    ) -> None:
        self._where, self._size = f"hdf5 {path}", size
        actors = {source.name.lower(): source for source in Source}
        if actor not in actors:
            raise unknown(f"{self._where}: actor", actor[:40], actors)
        self._actor = actors[actor]
        self._instruction = instruction
        self._files: dict[Path, Hdf5File] = {}
        files = hdf5_files(path, self._where)
        first = self._file(files[0])
        self._is_aloha = not first.is_group("/data")
        self._env = {} if self._is_aloha else env_args(first)
        if not self._is_aloha and len(files) > 1:
            raise TandemError(f"{self._where}: {len(files)} files in robomimic's layout (allowed: one at a time)")
        self._episodes = [Episode(file, "") for file in files] if self._is_aloha else demos(first, files[0])
        self._layout = find_layout(first, self._episodes[0], cameras, state)
        self._names = {plain_name(key) or "x": key for key in (*self._layout.pictures, *self._layout.state)}
        self.embodiment = self._embodiment(path, sources, rate_hz)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # they are opened again

    @property
    def n_episodes(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> tuple[EpisodeInfo, Iterator[Frame]]:
        """One episode; pictures are read as they are asked for."""
        if not 0 <= index < len(self._episodes):
            raise TandemError(f"{self._where}: no episode {index} (it has: {len(self._episodes)})")
        episode, period = self._episodes[index], self.embodiment.period_ns
        numbers = self._numbers(episode)
        count = len(numbers["action"])
        numbers["stamp"] = np.arange(count, dtype=np.int64) * period
        success = bool(numbers["success"].any())
        info = EpisodeInfo(
            seed=index,
            instruction=self._instruction,
            env=str(self._env.get("env_name", ""))[:200],
            outcome="success" if success else "unknown",
            success=success,
            end_ns=(count - 1) * period,
            uuid=episode_uuid(f"hdf5/{self.embodiment.digest}/{episode.file.name}", index),
            provenance={"imported": self._facts(episode)},
        )
        where = f"{self._where}: {episode.file.name}{episode.group}"
        words = [self._instruction] * count
        return info, frames_of(self.embodiment, numbers, words, self._pictures(episode, count), where, self._actor)

    def _facts(self, episode: Episode) -> dict[str, Any]:
        facts: dict[str, Any] = {"format": "hdf5", "file": episode.file.name, "names": self._names}
        if not self._is_aloha:
            facts |= {"group": episode.group, "splits": list(episode.splits), "env_args": self._env}
        return facts

    # -- what there is

    def _file(self, path: Path) -> Hdf5File:
        if path not in self._files:
            for other in self._files.values():  # one at a time: ALOHA has a file per episode
                other.close()
            self._files = {path: Hdf5File(path)}
        return self._files[path]

    def _embodiment(self, path: Path, sources: Mapping[str, str], rate_hz: float | None) -> Embodiment:
        for key in sources:
            if key not in self._layout.state:
                raise unknown(f"{self._where}: map", key[:60], self._layout.state)
        low: dict[str, np.ndarray] = {}
        high: dict[str, np.ndarray] = {}
        widths: dict[str, int] = {}
        for episode in self._episodes:
            parts = self._parts(episode)
            for key, values in parts.items():
                if widths.setdefault(key, values.shape[1]) != values.shape[1]:
                    raise TandemError(
                        f"{self._where}: {episode.file.name}{episode.group}: {key} has {values.shape[1]} numbers "
                        f"(allowed: {widths[key]}, as in the first episode)"
                    )
                low[key] = np.minimum(low.get(key, np.inf), values.min(axis=0))
                high[key] = np.maximum(high.get(key, -np.inf), values.max(axis=0))
        limits = {key: data_limits(low[key], high[key]) for key in low}
        names, bounds = [], []
        for key in self._layout.state:
            given = state_source(sources[key], f"{self._where}: map: {key}") if key in sources else source_of(key)
            names += [(name, given) for name in names_of(key, widths[key])]
            bounds += limits[key]
        return Embodiment(
            name=plain_name(str(self._env.get("env_name", "")) or path.stem) or "robot",
            rate_hz=self._rate(rate_hz),
            hears_instruction=bool(self._instruction),
            cameras=tuple(self._camera(key) for key in self._layout.pictures),
            state=state_scalars(names, bounds),
            action=action_scalars(names_of("action", widths["action"]), limits["action"]),
        )

    def _rate(self, given: float | None) -> float:
        if given is not None:
            return float(given)
        kwargs = self._env.get("env_kwargs")
        told = kwargs.get("control_freq") if isinstance(kwargs, dict) else None
        if isinstance(told, int | float) and not isinstance(told, bool):
            return float(told)
        return _ALOHA_HZ if self._is_aloha else _ROBOMIMIC_HZ

    def _camera(self, key: str) -> Camera:
        array = self._array(self._episodes[0], self._layout.pictures[key])
        name = plain_name(key.removesuffix("_image")) or "camera"
        if len(array.shape) == 2:  # ALOHA's compressed pictures
            own, encoding = compressed_picture(array.row(0), f"{self._where}: {key}").shape[:2], Encoding.RGB8
        else:
            own, encoding = array.shape[1:3], Encoding.RGB8 if array.dtype == np.uint8 else Encoding.DEPTH
        height, width = self._size or own
        return Camera(name, height, width, encoding)

    # -- reading

    def _array(self, episode: Episode, path: str) -> Array:
        return self._file(episode.file).array(episode.group + path)

    def _parts(self, episode: Episode) -> dict[str, np.ndarray]:
        """Every observation of numbers, and the action, float32 (T, D) each."""
        paths = {**self._layout.state, "action": self._layout.action}
        arrays = {key: self._array(episode, path) for key, path in paths.items()}
        same_rows(arrays, f"{self._where}: {episode.file.name}{episode.group}")
        parts = {}
        for key, array in arrays.items():
            if len(array.shape) > 2:
                raise TandemError(
                    f"{self._where}: {key} has shape {array.shape} (allowed: (T, D) numbers, uint8 pictures; leave it "
                    "out by state=[...])"
                )
            values = as_float32(array.load(), f"{self._where}: {episode.group}/{key}")
            parts[key] = values.reshape(len(values), -1)
        return parts

    def _numbers(self, episode: Episode) -> dict[str, np.ndarray]:
        """Columns as the store has them."""
        parts = self._parts(episode)
        action = parts.pop("action")
        count = len(action)
        state = np.concatenate([np.zeros((count, 0), np.float32), *parts.values()], axis=1)
        reward, ended = np.zeros(count), np.zeros(count, np.bool_)
        for path, values in ((self._layout.reward, reward), (self._layout.done, ended)):
            if path:
                array = self._array(episode, path)
                if array.shape not in ((count,), (count, 1)):
                    raise TandemError(f"{self._where}: {episode.group}{path} has shape {array.shape}, not {(count,)}")
                values[:] = as_float32(array.load(), f"{self._where}: {episode.group}{path}").reshape(count)
        ended[:-1] = False  # robomimic marks every step of a solved task
        truncated = np.zeros(count, np.bool_)
        truncated[-1] = not ended[-1]
        return {
            "state": state,
            "action": action,
            "reward": reward,
            "terminated": ended,
            "truncated": truncated,
            "success": reward >= 1.0,
        }

    def _pictures(self, episode: Episode, count: int) -> Iterator[Mapping[str, np.ndarray]]:
        pairs = zip(self.embodiment.cameras, self._layout.pictures.values(), strict=True)
        arrays = {camera: self._array(episode, path) for camera, path in pairs}
        for camera, array in arrays.items():
            where = f"{self._where}: {episode.group}: camera {camera.name}"
            if len(array) < count or not is_picture(array, f"/images/{camera.name}"):
                raise TandemError(f"{where} is {array.dtype} {array.shape} (allowed: {(count, *camera.shape)})")
        for t in range(count):
            yield {camera.name: self._picture(camera, array, t) for camera, array in arrays.items()}

    def _picture(self, camera: Camera, array: Array, t: int) -> np.ndarray:
        pixels, where = array.row(t), f"{self._where}: camera {camera.name}: frame {t}"
        if pixels.ndim == 1:
            pixels = compressed_picture(pixels, where)
        if pixels.shape[2:] == (1,) and camera.encoding is Encoding.RGB8:
            pixels = np.repeat(pixels, 3, axis=2)
        if self._size:
            pixels = fitted(pixels, camera.height, camera.width)
        if pixels.shape != camera.shape or pixels.dtype != camera.dtype:
            raise TandemError(f"{where} is {pixels.dtype} {pixels.shape} (allowed: {camera.dtype} {camera.shape})")
        return pixels
