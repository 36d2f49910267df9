"""One episode on its way into a store (checked and encoded frame by frame) and back out of it."""

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import fields, replace
from numbers import Real
from typing import Any

import numpy as np

from tandem_datasets.codecs import Codec
from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source, check_observation, check_vector
from tandem_datasets.layout import Column, streams

INFO_TEXTS = ("uuid", "env", "outcome", "instruction")
INFO_NUMBERS = ("seed", "begin_ns", "end_ns")


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
        if not isinstance(observation.instruction, str) or not _encodable(observation.instruction):
            raise TandemError(f"{where}: instruction is {observation.instruction!r:.80} (allowed: text)")
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


def check_info(info: EpisodeInfo, where: str) -> EpisodeInfo:
    """``info`` with plain Python types; raises TandemError naming the first field that cannot be stored."""
    values: dict[str, Any] = {key: integer(getattr(info, key), f"{where}: {key}") for key in INFO_NUMBERS}
    for key in INFO_TEXTS:
        values[key] = getattr(info, key)
        if not isinstance(values[key], str):
            raise TandemError(f"{where}: {key} is {values[key]!r:.80} (allowed: text)")
    if not isinstance(info.provenance, Mapping):
        raise TandemError(f"{where}: provenance is {info.provenance!r:.80} (allowed: a mapping)")
    try:
        values["provenance"] = json.loads(json.dumps(dict(info.provenance), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TandemError(f"{where}: provenance cannot be stored as JSON: {error}") from error
    return replace(info, success=bool(info.success), **values)


def info_to_json(info: EpisodeInfo) -> bytes:
    """What of ``info`` is no number, as a row of ``meta/info``."""
    return json.dumps({key: getattr(info, key) for key in (*INFO_TEXTS, "provenance")}, sort_keys=True).encode()


def info_from_json(text: bytes, numbers: Mapping[str, Any], where: str) -> EpisodeInfo:
    """The inverse of :func:`info_to_json`, with the numeric fields beside it; for untrusted input."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{where}: damaged JSON: {str(error)[:100]}") from error
    fits = isinstance(found, dict) and set(found) == {*INFO_TEXTS, "provenance"}
    if not fits or not isinstance(found["provenance"], dict):
        raise TandemError(f"{where}: damaged (allowed: a mapping of {', '.join(INFO_TEXTS)}, provenance)")
    if not all(isinstance(found[key], str) for key in INFO_TEXTS):
        raise TandemError(f"{where}: damaged (allowed: texts in {', '.join(INFO_TEXTS)})")
    assert {*numbers, *found} == {field.name for field in fields(EpisodeInfo)}
    return EpisodeInfo(**found, **numbers)


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


def integer(value: Any, where: str) -> int:
    """``value`` as a Python int; raises TandemError unless it is a whole number of 64 bits."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TandemError(f"{where} is {value!r:.80} (allowed: a whole number)") from error
    if not -(2**63) <= number < 2**63:
        raise TandemError(f"{where} is {number} (allowed: 64 bits)")
    return number


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
