"""The node ``episodes``: the episode manager. Runs a number of episodes, tells of each on ``episode``, then exits."""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo
from tandem_ros.calls import Peer, StoppedError
from tandem_ros.episode_loop import EpisodeLoop, Plan
from tandem_ros.health import status
from tandem_ros.runtime import LATCHED, Runtime, json_parameter, parameter, run_node
from tandem_ros.stats import EpisodeReport


class EpisodesNode(Node):
    """Parameters: see ``ros2_ws/README.md``. The loop runs in a thread of its own and ends the process."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("episodes", enable_rosout=False)
        self._runtime = runtime
        self._plan = Plan(
            episodes=parameter(self, "episodes", 1),
            seed=parameter(self, "seed", 0),
            env=parameter(self, "env_id", ""),
            provenance=json_parameter(self, "provenance", parameter(self, "provenance", "{}")),
            call_timeout_s=parameter(self, "call_timeout_s", 10.0),
            ready_timeout_s=parameter(self, "ready_timeout_s", 300.0),
            episode_timeout_s=parameter(self, "episode_timeout_s", 600.0),
        )
        if self._plan.episodes < 1:
            raise TandemError(f"episodes: parameter episodes is {self._plan.episodes} (allowed: 1 and more)")
        report = parameter(self, "report", "")
        self._report = Path(report).open("a", encoding="utf-8") if report else None  # noqa: SIM115  (see close)
        self._stopping = threading.Event()
        self._robot = Peer(self, "simulation", ("reset", "release", "result"), self._stopping)
        self._policy = Peer(self, "policy", ("reset",), self._stopping) if parameter(self, "policy", True) else None
        recorded = parameter(self, "record", False)
        self._recorder = Peer(self, "recorder", ("begin", "finish"), self._stopping) if recorded else None
        self._publisher = self.create_publisher(DiagnosticArray, "episode", LATCHED)
        self._thread = threading.Thread(target=self._run, name="episodes", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        loop = EpisodeLoop(self._plan, self._robot, self._policy, self._recorder, self._began, self._ended)
        try:
            deadline = time.monotonic() + self._plan.ready_timeout_s
            for peer in (self._robot, self._policy, self._recorder):
                if peer is not None:
                    peer.wait_until_there(deadline)
            loop.run()
            self._runtime.stop()
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001  (handed to the main thread, which raises it)
            self._runtime.fail(error)

    def _began(self, info: EpisodeInfo) -> None:
        facts = {"uuid": info.uuid, "seed": info.seed, "instruction": info.instruction, "begin_ns": info.begin_ns}
        self._publish("running", facts)

    def _ended(self, report: EpisodeReport) -> None:
        if self._report is not None:
            self._report.write(report.to_json() + "\n")
            self._report.flush()
        self._publish(report.info.outcome, report.to_values())
        info = report.info
        print(f"episode {report.index} (seed {info.seed}): {info.outcome}, {report.stats.steps} steps", flush=True)

    def _publish(self, message: str, values: Mapping[str, object]) -> None:
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        array.status = [status("episode", message, values)]
        self._publisher.publish(array)

    def close(self) -> None:
        """Ends the loop, wherever it stands."""
        self._stopping.set()
        self._thread.join(timeout=1.0)
        if self._report is not None:
            self._report.close()


def main() -> int:
    """Runs the node until all episodes are done or it is told to stop."""
    return run_node(EpisodesNode, EpisodesNode.close)


if __name__ == "__main__":
    sys.exit(main())
