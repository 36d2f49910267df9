"""The node ``policy``, managed: *configure* loads it from ``path`` and warms it up, *activate* lets it answer.

Each observation is answered with a chunk on ``policy/chunk``, stamped with that observation: in lock-step every one
exactly once, in real time the newest one. What a policy says goes to ``policy/text``, after the chunk that it is about.
"""

import sys
import time

import numpy as np
import psutil
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import Source, blank_observation
from tandem_datasets.policy import Policy
from tandem_ros.health import Health
from tandem_ros.inputs import ObservationInput
from tandem_ros.messages import Translator
from tandem_ros.runtime import RELIABLE, Runtime, embodiment_parameter, hurry, parameter, run_node
from tandem_ros.seeds import Seeds, reset_message
from tandem_ros.serving import PolicyServer
from tandem_ros.streams import ObservationMatcher, TickQueue

MODES = ("lockstep", "realtime")
_WARM_UPS = 3


class PolicyNode(LifecycleNode):
    """Parameters: see ``ros2_ws/README.md``."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("policy", enable_rosout=False)
        self._runtime = runtime
        mode = parameter(self, "mode", "lockstep")
        if mode not in MODES:
            raise unknown("policy: parameter mode", mode, MODES)
        self._newest_only = mode == "realtime"
        self._path = parameter(self, "path", "")
        self._device = parameter(self, "device", "cpu")
        self._threads = parameter(self, "threads", 1)
        self._embodiment = embodiment_parameter(self)
        self._seeds = Seeds(self)
        self._policy: Policy | None = None
        self._server: PolicyServer | None = None
        self._answered = 0
        self._translator = Translator(self._embodiment)
        self._matcher = ObservationMatcher(self._embodiment, depth=32)
        self._ticks = TickQueue(self._matcher)
        self._chunks = self.create_publisher(JointTrajectory, "policy/chunk", RELIABLE)
        self._text = self.create_publisher(String, "policy/text", RELIABLE)
        self._input = ObservationInput(
            self, runtime, self._translator, lambda: self._matcher if self._server else None, self._arrived
        )
        self.create_service(Trigger, "~/reset", runtime.guarded(self._reset))
        self._health = Health(self, runtime, "policy", self._facts)
        if parameter(self, "autostart", False):
            self.bring_up()

    def bring_up(self) -> None:
        """Configures and activates; raises what went wrong with it."""
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() is not TransitionCallbackReturn.SUCCESS:
                if self._runtime.stopping:
                    self._runtime.spin()  # raises the failure that the transition reported
                raise TandemError("policy: did not come up")

    # transitions --------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the policy, checks that it fits, and runs it a few times for warmth."""
        try:
            self._policy = _load(self._path, self._device, self._threads, self._embodiment)
        except Exception as error:  # noqa: BLE001  (raised again by bring_up; the state machine would swallow it)
            self._runtime.fail(error)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts answering."""
        assert self._policy is not None
        if self._newest_only:
            hurry(cores=self._threads)  # not before: loading would keep a core from everybody else for seconds
        self._server = PolicyServer(self._policy, self._answer, self._newest_only, self._runtime.fail, self._say)
        age = time.time() - psutil.Process().create_time()
        self.get_logger().info(f"active {age:.2f} s after process start")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops answering."""
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets the policy go."""
        self._policy = None
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Nothing is answered after an error."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    # answering ----------------------------------------------------------------------------------------------

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begins the next episode; answers with its seed and the policy's identity."""
        if self._server is None or self._policy is None:
            response.message = "reset: the policy is not active"
            return response
        self._ticks.clear()
        self._matcher.clear()  # nothing of the new episode has been sent yet
        seed = self._seeds.take()
        self._server.reset(seed)
        response.success = True
        response.message = reset_message(seed, identity=self._policy.identity)
        return response

    def _arrived(self, stream: str, stamp_ns: int) -> None:
        if stream == "state":
            self._ticks.add(stamp_ns)
        for observation in self._ticks.take():
            if self._server is not None:
                self._server.put(observation)

    def _answer(self, stamp_ns: int, points: np.ndarray) -> None:
        self._chunks.publish(self._translator.chunk(points, stamp_ns, Source.POLICY))
        self._answered += 1

    def _say(self, words: str) -> None:
        self._text.publish(String(data=words))

    def _facts(self) -> dict[str, object]:
        return {
            "path": self._path,
            "active": self._server is not None,
            "answered": self._answered,
            "overtaken": self._server.overtaken if self._server else 0,
        }

    def close(self) -> None:
        """Ends the inference thread."""
        if self._server is not None:
            self._server.close()
            self._server = None


def _load(path: str, device: str, threads: int, embodiment: Embodiment) -> Policy:
    from tandem_policies import load

    policy = load(path, device=device, threads=threads)
    policy.embodiment.require_fit(embodiment, f"policy '{path}'")
    history = [blank_observation(embodiment)] * policy.n_obs_steps
    for _ in range(_WARM_UPS):
        policy.infer([history], [(0, 0)])
        policy.say([history], [(0, 0)])
    return policy


def main() -> int:
    """Runs the node until it is told to stop."""
    return run_node(PolicyNode, PolicyNode.close)


if __name__ == "__main__":
    sys.exit(main())
