"""The frames of one episode: checked on their way into a store, and made anew from what it holds."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.facts import integer, text
from tandem_datasets.frames import Frame, Observation, Source, check_observation, check_vector
from tandem_datasets.layout import streams


class FrameCheck:
    """Finds whether the frames of one episode fit the embodiment and each other.

    Made for a caller that must not wait: a frame that fits costs some 10 us.
    """

    def __init__(self, embodiment: Embodiment, begin_ns: int) -> None:
        self.count = 0  # frames so far
        self.first_ns = self.last_ns = begin_ns  # stamps of the first and last frame, once there are any
        self._embodiment = embodiment
        self._images = [(camera.name, camera.shape, camera.dtype) for camera in embodiment.cameras]
        self._sizes = ((embodiment.state_dim,), (embodiment.action_dim,))
        self._streams = streams(embodiment)
        self._stamp_keys = [(stream, f"stamp_{stream}") for stream in self._streams]
        self._instruction = self._subgoal = ""  # the last ones

    def __call__(self, frame: Frame, where: str) -> dict[str, Any]:
        """The next frame's numbers by column, for :meth:`take`; raises TandemError naming the field that is wrong."""
        where = f"{where}: frame {self.count}"
        observation = frame.observation
        if not self._arrays_fit(frame):
            check_observation(self._embodiment, observation, where)
            for name, vector in (("action", frame.action), ("requested", frame.requested), ("label", frame.label)):
                if vector is not None or name == "action":
                    check_vector(vector, self._embodiment.action_dim, f"{where}: {name}")  # type: ignore[arg-type]
        if observation.instruction is not self._instruction:
            self._instruction = text(observation.instruction, f"{where}: instruction")
        if frame.subgoal is not self._subgoal:
            self._subgoal = self._told(frame.subgoal, f"{where}: subgoal")
        reward, source = frame.reward, frame.source
        if not isinstance(reward, Real) or not math.isfinite(reward):
            raise TandemError(f"{where}: reward is {reward!r:.40} (allowed: a finite number)")
        if type(source) is not Source:
            source = _source(source, where)
        numbers = {
            "has_requested": frame.requested is not None,
            "has_label": frame.label is not None,
            "terminated": bool(frame.terminated),
            "truncated": bool(frame.truncated),
            "success": bool(frame.success),
            "source": int(source),
            "reward": float(reward),
        }
        self._add_stamps(observation, numbers, where)
        return numbers

    def take(self, numbers: Mapping[str, Any]) -> None:
        """The frame that has these numbers is in the episode."""
        self.first_ns = self.first_ns if self.count else numbers["stamp"]
        self.last_ns = numbers["stamp"]
        self.count += 1

    def _told(self, subgoal: Any, where: str) -> str:
        if subgoal and not self._embodiment.tells_subgoals:
            raise TandemError(f"{where} is {subgoal!r:.40} (allowed: none, embodiment tells no subgoals)")
        return text(subgoal, where)

    def _arrays_fit(self, frame: Frame) -> bool:
        """Whether all images and vectors are certainly right; False: they have to be looked at closely."""
        images, (state, action) = frame.observation.images, self._sizes
        if len(images) != len(self._images):
            return False
        for name, shape, dtype in self._images:
            image = images.get(name)
            if type(image) is not np.ndarray or image.shape != shape or image.dtype != dtype:
                return False
        if not _fits(frame.observation.state, state) or not _fits(frame.action, action):
            return False
        return all(vector is None or _fits(vector, action) for vector in (frame.requested, frame.label))

    def _add_stamps(self, observation: Observation, numbers: dict[str, Any], where: str) -> None:
        stamp, given = observation.stamp_ns, observation.stream_stamps_ns
        if type(stamp) is not int or not -(2**63) <= stamp < 2**63:
            stamp = integer(stamp, f"{where}: stamp_ns")
        if stamp < self.last_ns or (stamp == self.last_ns and self.count):
            before = "the frame before has" if self.count else "the episode begins at"
            raise TandemError(f"{where}: stamp {stamp} ns, {before} {self.last_ns} ns (allowed: time runs forward)")
        numbers["stamp"] = stamp
        known = 0
        for stream, key in self._stamp_keys:
            own = given.get(stream, stamp)
            known += stream in given
            if type(own) is not int or own < -(2**63):
                own = integer(own, f"{where}: stamp of '{stream}'")
            if own > stamp:
                raise TandemError(f"{where}: '{stream}' is stamped {own} ns, after its tick {stamp} ns")
            numbers[key] = own
        if known != len(given):
            odd = sorted(set(given) - set(self._streams))
            raise TandemError(f"{where}: stamps of unknown streams {odd} (allowed: {list(self._streams)})")


def _fits(vector: Any, shape: tuple[int]) -> bool:
    """Whether it is certainly float32, of that shape and finite: a sum of squares is finite only then."""
    return (
        type(vector) is np.ndarray
        and vector.shape == shape
        and vector.dtype == np.float32
        and math.isfinite(vector.dot(vector))
    )


def _source(value: Any, where: str) -> Source:
    try:
        return Source(value)
    except ValueError as error:
        raise TandemError(f"{where}: source is {value!r:.40} (allowed: {[s.name for s in Source]})") from error


def frames_from_arrays(
    embodiment: Embodiment,
    arrays: Mapping[str, np.ndarray],
    instructions: list[str],
    where: str,
    subgoals: Sequence[str] = (),
) -> list[Frame]:
    """Frames of one episode from its columns; the inverse of recording them. ``subgoals``: each frame's, or none."""
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
            subgoal=subgoals[t] if subgoals else "",
        )
        for t in range(len(codes))
    ]
