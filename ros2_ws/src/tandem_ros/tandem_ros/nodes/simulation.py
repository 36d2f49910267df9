"""The node ``simulation``: an environment with its control gate, in lock-step or in real time.

Publishes observations, the executed and the requested action, labels and steps; takes chunks from the policy and from a
person. The episode manager resets it paused, releases it, and waits for its result. Stamps are a simulated clock in
lock-step and the system's in real time; they never run backwards.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import Observation, Source
from tandem_datasets.rollout import EnvSpec
from tandem_ros.health import Health
from tandem_ros.messages import Translator
from tandem_ros.publishing import OBSERVERS, RobotPublisher
from tandem_ros.robot import SimulatedRobot
from tandem_ros.runtime import LATCHED, RELIABLE, Runtime, hurry, json_parameter, parameter, run_node
from tandem_ros.seeds import Seeds, reset_message
from tandem_ros.stats import ON_TIME_NS
from tandem_ros.ticking import Ticker
from tandem_sim import registry

MODES = ("lockstep", "realtime")
_WATCH_S = 0.02
_ALONE_S = 1.0
_NAMELESS = "_NODE_NAME_UNKNOWN_"  # rmw's word for a node of which only an endpoint has been heard yet


class SimulationNode(Node):
    """Parameters: see ``ros2_ws/README.md``. Everything that moves the robot happens under one lock."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("simulation", enable_rosout=False)
        self._runtime = runtime
        self._read_parameters()
        spec = EnvSpec(
            parameter(self, "env_id", ""), json_parameter(self, "env_options", parameter(self, "env_options", "{}"))
        )
        labels = parameter(self, "label", False)
        self._robot = SimulatedRobot(registry.make(spec), not self._realtime, parameter(self, "expert", False), labels)
        self._embodiment = self._robot.embodiment
        self._require_free(parameter(self, "probe_s", 0.0))
        self._translator = Translator(self._embodiment)
        self._publisher = RobotPublisher(self, self._translator, labels)
        self._lock = threading.RLock()
        self._running = self._released = False
        self._next_begin = parameter(self, "begin_ns", 0)  # the earliest stamp of the next episode
        self._sent: dict[int, int] = {}  # stamp -> when the observation went out, steady clock
        self._tries = 0
        self._points_left = 0  # of the policy's last answer
        self._echoes: deque[str] = deque()  # own instructions that have not come back yet
        self._waiting: list[tuple[Callable[[], bool], Future]] = []
        self._deaf: list[str] = list(self._listeners)
        self._ticker = Ticker(self._embodiment.period_ns, self._beat, runtime.fail) if self._realtime else None
        self._create_inputs()
        self._health = Health(self, runtime, "simulation", self._facts)

    def _read_parameters(self) -> None:
        mode = parameter(self, "mode", "lockstep")
        if mode not in MODES:
            raise unknown("simulation: parameter mode", mode, MODES)
        self._realtime = mode == "realtime"
        if self._realtime:
            hurry()
        self._listeners = [name for name in parameter(self, "listeners", "").split(",") if name]
        for name in self._listeners:
            if name not in OBSERVERS:
                raise unknown("simulation: parameter listeners", name, OBSERVERS)
        self._answer_timeout_s = parameter(self, "answer_timeout_s", 0.5)
        self._answer_tries = parameter(self, "answer_tries", 10)
        self._listen_timeout_s = parameter(self, "listen_timeout_s", 10.0)
        self._seeds = Seeds(self)

    def _create_inputs(self) -> None:
        guarded = self._runtime.guarded
        for topic, source in (("policy/chunk", Source.POLICY), ("teleop/chunk", Source.PERSON)):
            take = self._taker(topic, source)
            self.create_subscription(JointTrajectory, topic, guarded(take), RELIABLE)
        self.create_subscription(String, "instruction", guarded(self._on_instruction), LATCHED)
        self.create_service(Trigger, "~/reset", guarded(self._reset))
        self.create_service(Trigger, "~/release", self._release)
        self.create_service(Trigger, "~/result", guarded(self._result))
        self._ended = self.create_publisher(String, "~/ended", RELIABLE)
        self.create_timer(_WATCH_S, guarded(self._watch))
        self.create_timer(_ALONE_S, guarded(self._require_alone))  # discovery takes seconds on a busy machine

    def _require_free(self, patience_s: float) -> None:
        """Two simulations under one name would step each other: waits for another to be discovered, then refuses."""
        end = time.monotonic() + patience_s
        self._require_alone()
        while time.monotonic() < end:
            time.sleep(0.02)
            self._require_alone()

    def _require_alone(self) -> None:
        """Raises TandemError naming the other node that publishes executed actions here."""
        topic = self.resolve_topic_name("action")
        me = (self.get_name(), self.get_namespace())
        ends = self.get_publishers_info_by_topic(topic)
        others = [end for end in ends if (end.node_name, end.node_namespace) != me]
        if len(ends) > 1 and not others:  # another one of the same name
            others = ends[1:]
        if not others:
            return
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        name = others[0].node_name
        who = "another node" if name == _NAMELESS else f"node '{name}'"
        raise TandemError(
            f"simulation: ROS domain {domain} is occupied: {who} already publishes {topic} "
            "(allowed: a free domain, or another namespace)"
        )

    # services -----------------------------------------------------------------------------------------------

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begins the next episode, paused; answers with its seed and its earliest stamp."""
        seed = self._seeds.take()
        with self._lock:
            if self._running:
                self._robot.fail("reset before its end")
                self._finish()
            begin = max(self._next_begin, time.time_ns()) if self._realtime else self._next_begin
            first = self._robot.reset(seed, begin)
            self._released = False
            self._publisher.forget_images()
        if self._embodiment.hears_instruction:
            self._echoes.append(first.instruction)
            self._publisher.instruction(first.instruction)
        response.success = True
        response.message = reset_message(seed, begin_ns=begin, instruction=first.instruction)
        return response

    async def _release(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Lets the episode run once everybody who must hear it does."""
        if self._released:  # asked again
            response.success = True
            return response
        if self._robot.observation is None:
            response.message = "release: there is no paused episode (call ~/reset first)"
            return response
        patience = time.monotonic() + self._listen_timeout_s
        await self._until(lambda: self._is_heard() or time.monotonic() > patience)
        if self._deaf:
            response.message = f"release: not heard after {self._listen_timeout_s:g} s by {', '.join(self._deaf)}"
            return response
        self._runtime.guarded(self._start)()
        response.success = True
        return response

    def _result(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """The last episode's EpisodeStats as JSON, once it is over; ``~/ended`` tells of it at once."""
        with self._lock:
            response.success = self._robot.is_over
            if response.success:
                response.message = self._robot.stats.to_json()
            else:
                response.message = f"result: {'the episode still runs' if self._running else 'no episode has run'}"
        return response

    async def _until(self, condition: Callable[[], bool]) -> None:
        with self._lock:
            if condition():
                return
            future: Future = Future(executor=self._runtime.executor)
            self._waiting.append((condition, future))
        await future

    def _wake(self) -> None:
        """Answers those whose condition has come true."""
        with self._lock:
            ready = [item for item in self._waiting if item[0]()]
            self._waiting = [item for item in self._waiting if item not in ready]
        for _, future in ready:
            future.set_result(None)

    def _is_heard(self) -> bool:
        if self._deaf:
            self._deaf = self._publisher.deaf(self._listeners)
        return not self._deaf

    # stepping -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._released:
                return
            self._released = self._running = True
            self._points_left = 0
            if self._ticker is None:
                self._show()
                self._pump()
            else:
                self._ticker.start(time.monotonic_ns())

    def _taker(self, topic: str, source: Source) -> Callable[[JointTrajectory], None]:
        def take(message: JointTrajectory) -> None:
            received = time.monotonic_ns()
            with self._lock:
                if not self._running:
                    return
                gate = self._robot.gate
                try:
                    chunk = self._translator.read_chunk(message, topic)
                    if chunk.source is not source:
                        allowed = source.name.lower()
                        raise TandemError(f"{topic}: frame_id is '{message.header.frame_id}' (allowed: {allowed})")
                except TandemError as error:
                    gate.malformed(str(error))
                    self.get_logger().warning(str(error), throttle_duration_sec=5.0)
                    return
                if gate.offer(chunk) and source is Source.POLICY:
                    self._note_latency(chunk.stamp_ns, len(chunk.points), received)
                if not self._realtime:
                    self._pump()

        return take

    def _note_latency(self, stamp_ns: int, points: int, received_ns: int) -> None:
        """An answer from the policy's queue has one point less than the one before: only inferences count."""
        if stamp_ns in self._sent and points >= self._points_left:
            self._robot.stats.latency_ms.append(round((received_ns - self._sent[stamp_ns]) / 1e6, 4))
        self._points_left = points

    def _pump(self) -> None:
        """Lock-step: takes one step if the current observation has its answer."""
        if not (self._running and self._robot.answered()):
            return
        observed = self._robot.observation
        assert observed is not None
        frame = self._robot.step(observed.stamp_ns + self._embodiment.period_ns)
        # first what others wait for; they can work while the rest goes out
        if self._robot.observation is not None:
            self._show()
            self._publisher.frame(frame)
        else:
            self._finish()
            self._runtime.executor.create_task(self._runtime.guarded(self._publisher.frame), frame)
            return
        if self._robot.answered():  # the expert does not wait; services get their turn in between
            self._runtime.executor.create_task(self._runtime.guarded(self._pump))

    def _beat(self, tick: int, due_ns: int) -> bool:
        """Real time: executes the answer to the last tick's observation, then shows the new one."""
        with self._lock:
            if not self._running:
                return False
            if tick == 0:
                self._robot.restamp(max(self._next_begin, time.time_ns()))
                self._show()
                return True
            late = time.monotonic_ns() - due_ns
            stats = self._robot.stats
            frame = self._robot.step(stats.begin_ns + tick * self._embodiment.period_ns)
            applied = time.monotonic_ns() - due_ns
            stats.periods += 1
            stats.on_time += frame.source is not Source.HOLD and applied <= ON_TIME_NS
            stats.jitter_ms = max(stats.jitter_ms, round(late / 1e6, 3))
            if self._robot.observation is not None:
                self._show()
            self._publisher.frame(frame)
            if self._robot.observation is None:
                self._finish()
            return self._running

    def _show(self) -> None:
        """Publishes the current observation for the first time."""
        observation = self._robot.observation
        assert observation is not None
        self._tries = 1
        self._send(observation)

    def _send(self, observation: Observation) -> None:
        if len(self._sent) > 64:
            self._sent.clear()
        self._last_sent = self._publisher.observation(observation)
        self._sent.setdefault(observation.stamp_ns, self._last_sent)  # sent again, it has waited since the first time

    def _finish(self) -> None:
        self._running = False
        self._sent.clear()
        stats = self._robot.stats
        # the terminal observation has a tick of its own
        self._next_begin = stats.begin_ns + (stats.steps + 1) * self._embodiment.period_ns
        self._ended.publish(String(data=stats.to_json()))

    def _watch(self) -> None:
        """Sends an observation again that nobody answered, and at last gives the episode up."""
        if self._waiting:
            self._wake()
        observation = self._robot.observation
        if self._realtime or not self._running or observation is None:
            return
        if time.monotonic_ns() - self._last_sent < self._answer_timeout_s * 1e9:
            return
        if self._tries < self._answer_tries:
            self._tries += 1
            self._robot.stats.resent += 1
            self._send(observation)
            return
        complaint = self._robot.gate.complaint
        self._robot.fail(
            f"no answer to the observation at {observation.stamp_ns} ns, sent {self._tries} times"
            + (f"; last refusal: {complaint}" if complaint else "")
        )
        self._finish()

    # the rest -----------------------------------------------------------------------------------------------

    def _on_instruction(self, message: String) -> None:
        """Somebody changes what is asked for. Own messages come back, too, in order, and change nothing."""
        if self._echoes and self._echoes[0] == message.data:
            self._echoes.popleft()
            return
        with self._lock:
            if self._robot.observation is not None:
                self._robot.instruct(message.data)

    def _facts(self) -> dict[str, object]:
        with self._lock:
            stats = self._robot.stats
            return {
                "mode": MODES[self._realtime],
                "running": self._running,
                "steps": stats.steps,
                "resent": stats.resent,
                "on_time": stats.on_time,
                "periods": stats.periods,
                "jitter_ms": stats.jitter_ms,
                **self._robot.gate.counts,
            }

    def close(self) -> None:
        """Ends thread and environment."""
        with self._lock:
            self._running = False
        if self._ticker is not None:
            self._ticker.close()
        self._robot.env.close()


def main() -> int:
    """Runs the node until it is told to stop."""
    return run_node(SimulationNode, SimulationNode.close)


if __name__ == "__main__":
    sys.exit(main())
