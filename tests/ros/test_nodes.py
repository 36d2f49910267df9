"""The simulation and the policy node as processes, each on its own, against a hand-written other side."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException
from rclpy.experimental import EventsExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Observation, Source
from tandem_datasets.store import Store
from tandem_ros.calls import Peer
from tandem_ros.domain import claim
from tandem_ros.graph import Graph, Node
from tandem_ros.messages import Translator
from tandem_ros.publishing import RobotPublisher
from tandem_ros.runtime import LATCHED, RELIABLE
from tandem_ros.stats import EpisodeStats
from tandem_ros.supervisor import Supervisor

PATIENCE_S = 40.0
UUID = "5f0c8a3e-2f6d-4f4b-9d0a-3c1b7e9a6d21"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A domain with a simulation and a recorder in /left, and a policy that is not yet configured in /right."""
    import torch

    from tandem_policies.files import save
    from tandem_policies.registry import create
    from tandem_sim.blockfind.task import EMBODIMENT

    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("nodes")
    path = save(create("tinyvla", EMBODIMENT, dim=32, head_dim=32, text_decoder=True), folder / "tiny")
    simulation = {"env_id": "tandem/BlockFind-v0", "answer_timeout_s": 0.2, "answer_tries": 3}
    contract = json.dumps(EMBODIMENT.to_dict())
    recorder = {"store": str(folder / "store"), "embodiment": contract, "finish_timeout_s": 0.3}
    policy = {"path": str(path), "embodiment": contract}
    nodes = (
        Node("tandem_ros.nodes.simulation", "simulation", "/left", simulation),
        Node("tandem_ros.nodes.recorder", "recorder", "/left", recorder),
        Node("tandem_ros.nodes.policy", "policy", "/right", policy),
    )
    with claim() as domain, Supervisor(Graph(nodes), domain_id=domain) as supervisor:
        yield domain, supervisor, folder / "store", path


@pytest.fixture(scope="module")
def context(place):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=place[0])
    yield context
    context.try_shutdown()


class Other:
    """A node of the test's own that spins in a thread."""

    def __init__(self, context: rclpy.Context, namespace: str) -> None:
        self.node = rclpy.create_node("other", context=context, namespace=namespace, enable_rosout=False)
        self.executor = EventsExecutor(context=context)
        self.executor.add_node(self.node)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def _spin(self) -> None:
        while not self.stopping.is_set():
            try:
                self.executor.spin_once(timeout_sec=0.05)
            except ExternalShutdownException:
                return

    def wait(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.005)

    def close(self) -> None:
        self.stopping.set()
        self.thread.join(5)
        self.executor.shutdown()
        self.node.destroy_node()


class Driver(Other):
    """Answers the simulation's observations, or not, as a test wants."""

    def __init__(self, context: rclpy.Context, translator: Translator) -> None:
        super().__init__(context, "/left")
        self.translator = translator
        self.seen: list[tuple[int, str]] = []  # (stamp, instruction) of every state message
        self.actions: list = []
        self.robot = Peer(self.node, "simulation", ("reset", "release", "result"), self.stopping)
        self.chunks = {
            source: self.node.create_publisher(JointTrajectory, topic, RELIABLE)
            for source, topic in ((Source.POLICY, "policy/chunk"), (Source.PERSON, "teleop/chunk"))
        }
        self.instructions = self.node.create_publisher(String, "instruction", LATCHED)
        self.node.create_subscription(JointState, "state", self._on_state, RELIABLE)
        self.node.create_subscription(JointTrajectory, "action", self._on_action, RELIABLE)
        self.robot.wait_until_there(time.monotonic() + PATIENCE_S)
        self.wait(lambda: all(chunks.get_subscription_count() for chunks in self.chunks.values()), "subscriptions")
        self.wait(lambda: self.node.count_publishers("state") and self.node.count_publishers("action"), "publishers")

    def _on_state(self, message: JointState) -> None:
        stamp, _, instruction = self.translator.read_state(message)
        self.seen.append((stamp, instruction))

    def _on_action(self, message: JointTrajectory) -> None:
        self.actions.append(self.translator.read_chunk(message, "action"))

    def begin(self, seed: int) -> int:
        """Resets and releases; gives the first stamp, once its observation is here."""
        self.robot.set({"episode.seed": seed}, PATIENCE_S).accepted()
        self.seen.clear()
        self.actions.clear()
        begin = json.loads(self.robot.trigger("reset", PATIENCE_S).message())["begin_ns"]
        self.robot.trigger("release", PATIENCE_S).message()
        self.wait(lambda: self.seen, "the first observation")
        return begin

    def ask(self, stamp: int, *rows: tuple[float, float], source: Source = Source.POLICY) -> None:
        """Sends a chunk."""
        self.chunks[source].publish(self.translator.chunk(np.array(rows, np.float32), stamp, source))

    def acted(self, count: int) -> None:
        """Waits for so many executed actions."""
        self.wait(lambda: len(self.actions) >= count, f"action {count}")

    def end(self) -> EpisodeStats:
        """The episode's result; without further answers it fails."""
        return EpisodeStats.from_json(self.robot.trigger("result", PATIENCE_S).message())


@pytest.fixture(scope="module")
def driver(context, blockfind):
    driver = Driver(context, Translator(blockfind))
    yield driver
    driver.close()


def test_simulation_executes_the_answer_whose_stamp_is_equal(driver, blockfind):
    begin = driver.begin(3)
    driver.ask(begin, (0.25, -0.5), (9, 9))
    driver.acted(1)
    driver.ask(begin, (1, 1))  # again: dropped
    driver.ask(begin + blockfind.period_ns, (float("nan"), 0))
    driver.acted(2)
    assert [action.stamp_ns for action in driver.actions] == [begin, begin + blockfind.period_ns]
    assert driver.actions[0].points.tolist() == [[0.25, -0.5]]
    assert driver.actions[1].source is Source.HOLD
    stats = driver.end()
    assert stats.steps == 2
    assert stats.counts["not_finite"] == stats.counts["duplicated"] == 1


def test_an_observation_without_answer_is_sent_again_then_the_episode_fails(driver):
    begin = driver.begin(4)
    malformed = driver.translator.chunk(np.zeros((1, 2), np.float32), begin, Source.POLICY)
    malformed.joint_names = ["agent/dx", "agent/dz"]
    driver.chunks[Source.POLICY].publish(malformed)
    family = psutil.Process().children(recursive=True)
    simulation = next(child for child in family if "tandem_ros.nodes.simulation" in " ".join(child.cmdline()))
    started, worked = time.monotonic(), sum(simulation.cpu_times()[:2])
    stats = driver.end()
    # a service callback that awaited the end kept the executor going round and took a core from the policy
    assert sum(simulation.cpu_times()[:2]) - worked < 0.5 * (time.monotonic() - started)
    assert [stamp for stamp, _ in driver.seen] == [begin] * 3
    assert stats.resent == 2
    assert stats.counts["malformed"] == 1
    assert "no answer to the observation" in stats.error
    assert "agent/dz" in stats.error


def test_a_person_acts_on_the_teleop_topic(driver):
    begin = driver.begin(5)
    driver.ask(begin, (0.5, 0.5), source=Source.PERSON)
    driver.acted(1)
    assert driver.actions[0].source is Source.PERSON


def test_an_instruction_may_change_from_the_next_observation_on(driver, blockfind):
    begin = driver.begin(6)
    first = driver.seen[0][1]
    driver.instructions.publish(String(data="find the door"))
    time.sleep(0.05)
    driver.ask(begin, (0.1, 0.1))
    driver.wait(lambda: driver.seen[-1][0] == begin + blockfind.period_ns, "the next observation")
    assert first.startswith("find the ")
    assert driver.seen[-1][1] == "find the door"
    driver.begin(6)
    assert driver.seen[0][1] == first, "the next episode has its own again"


def test_time_goes_on_from_episode_to_episode(driver, blockfind):
    begin = driver.begin(7)
    driver.ask(begin, (0, 0))
    driver.acted(1)
    assert driver.begin(7) > begin + blockfind.period_ns, "also after one that was not run to its end"


def test_services_answer_a_repeated_call_like_the_first_and_refuse_what_makes_no_sense(driver):
    driver.begin(8)
    driver.robot.trigger("release", PATIENCE_S).message()
    assert len(driver.seen) == 1, "it runs already"
    result = driver.robot.trigger("result", PATIENCE_S)
    assert driver.end().to_json() == result.message()
    recorder = Peer(driver.node, "recorder", ("begin", "finish"), driver.stopping)
    recorder.wait_until_there(time.monotonic() + PATIENCE_S)
    with pytest.raises(TandemError, match="recorder/finish: finish: no episode is open"):
        recorder.trigger("finish", PATIENCE_S).message()


def test_recorder_commits_what_came_and_declares_the_rest_missing(driver, blockfind, place):
    recorder = Peer(driver.node, "recorder", ("begin", "finish"), driver.stopping)
    recorder.wait_until_there(time.monotonic() + PATIENCE_S)
    period = blockfind.period_ns
    early = driver.begin(9)
    driver.ask(early, (0.5, 0))
    driver.acted(1)
    recorder.set({"begin.uuid": UUID, "begin.seed": 9, "begin.begin_ns": early + period}, PATIENCE_S).accepted()
    for _ in range(2):
        recorder.trigger("begin", PATIENCE_S).message()
    begin = driver.begin(9)
    driver.ask(begin, (0.5, 0.0))
    driver.acted(1)
    finish = {"finish.begin_ns": begin, "finish.end_ns": begin + period, "finish.outcome": "lost"}
    recorder.set(finish, PATIENCE_S).accepted()
    told = [json.loads(recorder.trigger("finish", PATIENCE_S).message()) for _ in range(2)]
    assert told[0] == told[1]
    assert told[0]["missing"] == 1
    assert told[0]["dropped"] > 0
    store = Store(place[2])
    assert (store.n_episodes, store.n_frames) == (1, 1)
    assert store.load("action").tolist() == [[0.5, 0.0]]
    assert store.load("stamp").tolist() == [begin]
    info = store.info(0)
    assert (info.uuid, info.outcome, info.provenance) == (UUID, "lost", {"missing_frames": 1})


class Robot(Other):
    """Shows observations to the policy node."""

    def __init__(self, context: rclpy.Context, translator: Translator) -> None:
        super().__init__(context, "/right")
        self.translator = translator
        self.publisher = RobotPublisher(self.node, translator, labels=False)
        self.answers: list = []
        self.said: list[str] = []
        self.node.create_subscription(JointTrajectory, "policy/chunk", self._on_chunk, RELIABLE)
        self.node.create_subscription(String, "policy/text", lambda message: self.said.append(message.data), RELIABLE)
        self.change = self.node.create_client(ChangeState, "policy/change_state")
        self.get = self.node.create_client(GetState, "policy/get_state")
        self.resets = self.node.create_client(Trigger, "policy/reset")
        for client in (self.change, self.get, self.resets):
            assert client.wait_for_service(PATIENCE_S)
        self.wait(lambda: not self.publisher.deaf(["policy"]), "the policy's subscriptions")

    def _on_chunk(self, message: JointTrajectory) -> None:
        self.answers.append(self.translator.read_chunk(message, "policy/chunk"))

    def call(self, client, request):
        future = client.call_async(request)
        self.wait(future.done, client.srv_name)
        return future.result()

    def transit(self, transition: int) -> str:
        """Asks for a transition; gives the state after it."""
        assert self.call(self.change, ChangeState.Request(transition=Transition(id=transition))).success
        return self.call(self.get, GetState.Request()).current_state.label

    def show(self, stamp: int, shade: int) -> Observation:
        pixels = np.full((64, 64, 3), shade, np.uint8)
        seen = Observation({"top": pixels}, np.array([1, 2], np.float32), "find the red block", stamp)
        self.publisher.forget_images()
        self.publisher.observation(seen)
        return seen


def test_policy_is_managed_and_answers_while_active(context, blockfind, place):
    from tandem_policies import load

    robot = Robot(context, Translator(blockfind))
    try:
        assert not robot.call(robot.resets, Trigger.Request()).success
        assert robot.transit(Transition.TRANSITION_CONFIGURE) == "inactive"
        robot.show(0, 10)
        assert robot.transit(Transition.TRANSITION_ACTIVATE) == "active"
        assert robot.call(robot.resets, Trigger.Request()).success
        period = blockfind.period_ns
        shown = []
        for stamp, shade in ((period, 20), (2 * period, 200), (period, 20)):
            count = len(robot.answers)
            shown.append(robot.show(stamp, shade))
            robot.wait(lambda count=count: len(robot.answers) > count, f"an answer to {stamp}")
        assert [answer.stamp_ns for answer in robot.answers] == [period, 2 * period, period]
        first, second, again = (answer.points for answer in robot.answers)
        assert again.tobytes() == first.tobytes()
        assert second.tobytes() != first.tobytes()
        assert all(answer.source is Source.POLICY for answer in robot.answers)
        policy = load(place[3], device="cpu", threads=1)
        words = [policy.say([[seen]], [(0, index)])[0] for index, seen in enumerate(shown[:2])]
        assert all(words), "random weights babble"
        robot.wait(lambda: len(robot.said) >= 2, "what the policy says")
        assert robot.said == words, "a repeated observation is answered, but nothing is said twice"
        assert robot.transit(Transition.TRANSITION_DEACTIVATE) == "inactive"
        robot.show(3 * period, 30)
        time.sleep(0.2)
        assert len(robot.answers) == 3
        assert robot.transit(Transition.TRANSITION_CLEANUP) == "unconfigured"
    finally:
        robot.close()


def test_nodes_are_still_well(place):
    assert place[1].poll()
