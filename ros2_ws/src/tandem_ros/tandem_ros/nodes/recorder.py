"""The node ``recorder``: writes every episode to a store, from what went over the topics.

``~/begin`` opens an episode (parameters ``begin.*``), ``~/finish`` ends it (parameters ``finish.*``): committed once
every frame up to its end stamp has arrived, or is declared missing after ``finish_timeout_s``.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.codecs import DEFAULT_CODEC
from tandem_datasets.frames import EpisodeInfo
from tandem_datasets.recorder import Recorder
from tandem_ros.gate import Chunk
from tandem_ros.health import Health
from tandem_ros.inputs import ObservationInput
from tandem_ros.messages import Translator
from tandem_ros.runtime import RELIABLE, Runtime, embodiment_parameter, json_parameter, parameter, run_node
from tandem_ros.streams import FrameMatcher

_WATCH_S = 0.05
_BEGIN: Mapping[str, Any] = {
    "begin.uuid": "",
    "begin.seed": 0,
    "begin.env": "",
    "begin.begin_ns": 0,
    "begin.provenance": "{}",
}
_FINISH: Mapping[str, Any] = {
    "finish.commit": True,
    "finish.begin_ns": 0,
    "finish.end_ns": 0,
    "finish.instruction": "",
    "finish.outcome": "",
    "finish.success": False,
}


class RecorderNode(Node):
    """Parameters: see ``ros2_ws/README.md``."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("recorder", enable_rosout=False)
        self._runtime = runtime
        self._embodiment = embodiment_parameter(self)
        self._labels = parameter(self, "label", False)
        self._timeout_s = parameter(self, "finish_timeout_s", 2.0)
        self._recorder = Recorder(
            parameter(self, "store", ""),
            self._embodiment,
            codec=parameter(self, "codec", DEFAULT_CODEC),
            fsync=parameter(self, "durable", False),  # what is simulated can be had again
        )
        for name, default in {**_BEGIN, **_FINISH}.items():
            parameter(self, name, default)
        self._frames: FrameMatcher | None = None  # of the episode that is open
        self._info = EpisodeInfo(seed=0, instruction="")  # its facts
        self._finished = ""  # the answer to the last ~/finish
        self._early = 0  # messages that came while no episode was open
        self._committed = self._missing = 0
        self._end_ns: int | None = None  # of the episode that is being finished
        self._complete: Future | None = None
        self._patience = 0.0
        self._translator = Translator(self._embodiment)
        self._create_inputs()
        self._health = Health(self, runtime, "recorder", self._facts)

    def _create_inputs(self) -> None:
        guarded = self._runtime.guarded
        self._input = ObservationInput(self, self._runtime, self._translator, self._target, self._arrived)
        self._subscribe_chunks("action", FrameMatcher.put_action)
        self._subscribe_chunks("action/requested", FrameMatcher.put_requested)
        if self._labels:
            self._subscribe_chunks("action/label", FrameMatcher.put_label)
        self.create_subscription(JointState, "step", guarded(self._on_step), RELIABLE)
        self.create_service(Trigger, "~/begin", guarded(self._begin))
        self.create_service(Trigger, "~/finish", self._finish)
        self.create_timer(_WATCH_S, guarded(self._watch))

    def _subscribe_chunks(self, topic: str, put: Callable[[FrameMatcher, Chunk], None]) -> None:
        def take(message: JointTrajectory) -> None:
            chunk = self._translator.read_chunk(message, topic)
            if (frames := self._target()) is not None:
                put(frames, chunk)
                self._arrived(topic, chunk.stamp_ns)

        self.create_subscription(JointTrajectory, topic, self._runtime.guarded(take), RELIABLE)

    def _on_step(self, message: JointState) -> None:
        stamp, outcome = self._translator.read_step(message)
        if (frames := self._target()) is not None:
            frames.put_step(stamp, outcome)
            self._arrived("step", stamp)

    def _target(self) -> FrameMatcher | None:
        self._early += self._frames is None
        return self._frames

    def _arrived(self, stream: str, stamp_ns: int) -> None:
        """A step usually comes last of its frame; while finishing, every message may be the missing one."""
        if self._frames is None or (stream != "step" and self._end_ns is None):
            return
        for frame in self._frames.take():
            self._recorder.add(frame)
        self._settle()

    def _watch(self) -> None:
        if self._complete is not None:
            self._settle()

    def _settle(self) -> None:
        """Lets ``~/finish`` go on once the last frame is there, or its patience is over."""
        if self._complete is None or self._frames is None or self._end_ns is None:
            return
        if self._frames.is_complete(self._end_ns) or time.monotonic() > self._patience:
            waiting, self._complete = self._complete, None
            waiting.set_result(None)

    # services -----------------------------------------------------------------------------------------------

    def _begin(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Opens an episode. What is stamped before ``begin.begin_ns`` is dropped and counted."""
        value = self._values(_BEGIN)
        if self._frames is not None:
            response.success = value["begin.uuid"] == self._info.uuid  # asked again
            response.message = "" if response.success else "begin: an episode is open (call ~/finish first)"
            return response
        info = EpisodeInfo(
            seed=value["begin.seed"],
            instruction="",
            env=value["begin.env"],
            uuid=value["begin.uuid"] or str(uuid.uuid4()),
            provenance=json_parameter(self, "begin.provenance", value["begin.provenance"]),
        )
        self._recorder.begin(info)
        self._info = info
        self._finished = ""
        self._frames = FrameMatcher(self._embodiment, value["begin.begin_ns"], self._labels)
        response.success = True
        return response

    async def _finish(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Commits the open episode, or drops it if ``finish.commit`` is false; says what was missing."""
        value = self._values(_FINISH)
        if self._frames is not None and value["finish.commit"]:
            await self._all_frames(self._frames, value["finish.end_ns"])
        if self._frames is not None:
            self._finished = self._runtime.guarded(self._close_episode)(self._frames, value) or ""
        response.success = bool(self._finished)  # the last one's, if asked again
        response.message = self._finished or "finish: no episode is open (call ~/begin first)"
        return response

    async def _all_frames(self, frames: FrameMatcher, end_ns: int) -> None:
        """Waits until every frame up to ``end_ns`` is there, or patience is over."""
        self._end_ns = end_ns
        if self._complete is None:
            if frames.is_complete(end_ns):
                return
            self._complete = Future(executor=self._runtime.executor)
            self._patience = time.monotonic() + self._timeout_s
        await self._complete

    def _close_episode(self, frames: FrameMatcher, value: dict[str, Any]) -> str:
        """Commits or drops the open episode; what was missing and dropped, as JSON."""
        rest, missing = frames.take_rest(value["finish.begin_ns"], value["finish.end_ns"])
        self._frames, self._end_ns = None, None
        for frame in rest:
            self._recorder.add(frame)
        told = json.dumps({"missing": len(missing), "dropped": frames.dropped + self._early})
        self._missing += len(missing)
        self._early = 0
        if missing:
            self.get_logger().warning(f"{len(missing)} frames never arrived, the first at {missing[0]} ns")
        if not value["finish.commit"] or not self._recorder.n_open_frames:
            self._recorder.abort()
            return told
        provenance = dict(self._info.provenance) | ({"missing_frames": len(missing)} if missing else {})
        self._recorder.commit(
            instruction=value["finish.instruction"],
            outcome=value["finish.outcome"],
            success=value["finish.success"],
            begin_ns=value["finish.begin_ns"],
            end_ns=value["finish.end_ns"],
            provenance=provenance,
        )
        self._committed += 1
        return told

    def _values(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.get_parameter(name).value for name in defaults}

    def _facts(self) -> dict[str, object]:
        stats = self._recorder.stats
        return {
            "committed": self._committed,
            "missing": self._missing,
            "recording": self._frames is not None,
            "disk_waits": stats.waits,
            "disk_waited_s": round(stats.waited_s, 3),
        }

    def close(self) -> None:
        """Drops an open episode and gives the store back."""
        self._recorder.abort()
        self._recorder.close()


def main() -> int:
    """Runs the node until it is told to stop."""
    return run_node(RecorderNode, RecorderNode.close)


if __name__ == "__main__":
    sys.exit(main())
