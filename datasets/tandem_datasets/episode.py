"""One episode on its way into a store (checked and encoded frame by frame) and back out of it."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from tandem_datasets.codecs import Codec
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.facts import integer, text
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source, check_observation, check_vector
from tandem_datasets.layout import Column, streams


class OpenEpisode:
    """Frames of one episode, checked against the embodiment; images are encoded as they come."""

    def __init__(
        self, embodiment: Embodiment, codec: Codec, columns: Mapping[str, Column], info: EpisodeInfo, where: str
    ) -> None:
        self.info = info
        self.instructions: list[str] = []  # one per frame
        self.images: dict[str, list[bytes]] = {camera.name: [] for camera in embodiment.cameras}
        self.first_ns = self.last_ns = info.begin_ns  # stamps of the first and last frame, once there are any
        self._embodiment = embodiment
        self._codec = codec
        self._where = where
        self._streams = streams(embodiment)
        self._columns = columns
        self._vectors: dict[str, list[np.ndarray]] = {
            "state": [],
            "action": [],
            "action_requested": [],
            "action_label": [],
        }
        self._numbers: dict[str, list[Any]] = {
            key: [] for key, column in self._columns.items() if column.row == () and key != "instruction"
        }
        self._no_action = np.zeros(embodiment.action_dim, np.float32)

    def __len__(self) -> int:
        return len(self.instructions)

    def add(self, frame: Frame) -> None:
        """Takes one frame; raises TandemError and changes nothing if it does not fit."""
        where = f"{self._where}: frame {len(self)}"
        numbers = self._checked(frame, where)
        observation = frame.observation
        encoded = {name: self._codec.encode(np.ascontiguousarray(observation.images[name])) for name in self.images}
        for name, data in encoded.items():
            self.images[name].append(data)
        vectors = {
            "state": observation.state,
            "action": frame.action,
            "action_requested": self._no_action if frame.requested is None else frame.requested,
            "action_label": self._no_action if frame.label is None else frame.label,
        }
        for key, vector in vectors.items():
            self._vectors[key].append(vector.copy())
        for key, number in numbers.items():
            self._numbers[key].append(number)
        self.first_ns = self.first_ns if len(self) else numbers["stamp"]
        self.instructions.append(observation.instruction)
        self.last_ns = numbers["stamp"]

    def arrays(self, codes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Every numeric column's rows (T, ...); ``codes`` numbers the wordings."""
        arrays = {key: np.stack(rows) for key, rows in self._vectors.items()}
        arrays["instruction"] = np.array([codes[text] for text in self.instructions], np.int32)
        for key, rows in self._numbers.items():
            arrays[key] = np.array(rows, self._columns[key].dtype)
        return arrays

    def _checked(self, frame: Frame, where: str) -> dict[str, Any]:
        """The frame's numbers by column key, once everything about it has been found right."""
        observation = frame.observation
        check_observation(self._embodiment, observation, where)
        size = self._embodiment.action_dim
        check_vector(frame.action, size, f"{where}: action")
        for name, vector in (("requested", frame.requested), ("label", frame.label)):
            if vector is not None:
                check_vector(vector, size, f"{where}: {name}")
        text(observation.instruction, f"{where}: instruction")
        if not isinstance(frame.reward, Real) or not math.isfinite(frame.reward):
            raise TandemError(f"{where}: reward is {frame.reward!r:.40} (allowed: a finite number)")
        if frame.source not in list(Source):
            raise TandemError(f"{where}: source is {frame.source!r:.40} (allowed: {[s.name for s in Source]})")
        return {
            "has_requested": frame.requested is not None,
            "has_label": frame.label is not None,
            "terminated": bool(frame.terminated),
            "truncated": bool(frame.truncated),
            "success": bool(frame.success),
            "source": int(Source(frame.source)),
            "reward": float(frame.reward),
            **self._checked_stamps(observation, where),
        }

    def _checked_stamps(self, observation: Observation, where: str) -> dict[str, int]:
        stamp = integer(observation.stamp_ns, f"{where}: stamp_ns")
        if stamp < self.last_ns or (stamp == self.last_ns and len(self)):
            before = "the frame before has" if len(self) else "the episode begins at"
            raise TandemError(f"{where}: stamp {stamp} ns, {before} {self.last_ns} ns (allowed: time runs forward)")
        odd = sorted(set(observation.stream_stamps_ns) - set(self._streams))
        if odd:
            raise TandemError(f"{where}: stamps of unknown streams {odd} (allowed: {list(self._streams)})")
        stamps = {"stamp": stamp}
        for stream in self._streams:
            own = integer(observation.stream_stamp_ns(stream), f"{where}: stamp of '{stream}'")
            if own > stamp:
                raise TandemError(f"{where}: '{stream}' is stamped {own} ns, after its tick {stamp} ns")
            stamps[f"stamp_{stream}"] = own
        return stamps


def frames_from_arrays(
    embodiment: Embodiment, arrays: Mapping[str, np.ndarray], instructions: list[str], where: str
) -> list[Frame]:
    """Frames of one episode from its columns; the inverse of :meth:`OpenEpisode.add`."""
    sources, codes = arrays["source"], arrays["instruction"]
    if ((codes < 0) | (codes >= len(instructions))).any() or (sources > max(Source)).any():
        raise TandemError(f"{where}: damaged (an instruction or source code is unknown)")
    numbers = {key: array.tolist() for key, array in arrays.items() if array.ndim == 1}
    own_stamps = streams(embodiment)
    return [
        Frame(
            observation=Observation(
                images={camera.name: arrays[camera.name][t] for camera in embodiment.cameras},
                state=arrays["state"][t],
                instruction=instructions[numbers["instruction"][t]],
                stamp_ns=numbers["stamp"][t],
                stream_stamps_ns={stream: numbers[f"stamp_{stream}"][t] for stream in own_stamps},
            ),
            action=arrays["action"][t],
            source=Source(numbers["source"][t]),
            reward=numbers["reward"][t],
            terminated=numbers["terminated"][t],
            truncated=numbers["truncated"][t],
            success=numbers["success"][t],
            requested=arrays["action_requested"][t] if numbers["has_requested"][t] else None,
            label=arrays["action_label"][t] if numbers["has_label"][t] else None,
        )
        for t in range(len(codes))
    ]
