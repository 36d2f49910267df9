import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tandem_datasets.errors import TandemError
from tandem_ros.episode_loop import EpisodeLoop, Plan
from tandem_ros.stats import EpisodeReport, EpisodeStats


@dataclass
class Told:
    """An answer that notes when it was waited for."""

    log: list
    name: str
    text: str = ""

    def message(self) -> str:
        self.log.append(f"{self.name}.")
        return self.text

    def accepted(self) -> None:
        self.log.append(f"{self.name}.")


@dataclass
class Node:
    """A participant of its own: keeps parameters, answers from a table, and logs calls and acknowledgements."""

    name: str
    log: list
    answers: Mapping[str, object]
    values: dict = field(default_factory=dict)

    def trigger(self, service: str, timeout_s: float) -> Told:
        self.log.append(f"{self.name}/{service}")
        answer = self.answers[service]
        return Told(self.log, f"{self.name}/{service}", answer(self) if callable(answer) else str(answer))

    def set(self, values: Mapping, timeout_s: float) -> Told:
        self.values |= values
        self.log.append(f"{self.name}/set")
        return Told(self.log, f"{self.name}/set")


@pytest.fixture
def log() -> list[str]:
    return []


def make(log: list[str], error: str = ""):
    def result(node: Node) -> str:
        seed = node.seed_at_reset
        return EpisodeStats(
            seed=seed, begin_ns=10 * seed, end_ns=10 * seed + 4, steps=5, success=True, outcome="success",
            instruction="find it", error=error if seed == 8 else "",
        ).to_json()  # fmt: skip

    def reset(node: Node) -> str:
        seed = node.seed_at_reset = node.values["episode.seed"]
        node.values["episode.seed"] += 1
        return json.dumps({"seed": seed, "begin_ns": 10 * seed, "instruction": "find it", "identity": "abc"})

    robot = Node("robot", log, {"reset": reset, "release": "", "result": result})
    policy = Node("policy", log, {"reset": reset})
    recorder = Node("recorder", log, {"begin": "", "finish": json.dumps({"missing": 0, "dropped": 1})})
    return robot, policy, recorder


def run(log, episodes: int, error: str = "") -> tuple[list[EpisodeReport], Node]:
    robot, policy, recorder = make(log, error)
    reports: list[EpisodeReport] = []
    plan = Plan(episodes, seed=7, env="env", provenance={"policy": "here"})
    loop = EpisodeLoop(plan, robot, policy, recorder, lambda info: log.append("began"), reports.append)
    loop.run()
    return reports, recorder


def test_each_step_is_acknowledged_in_order(log):
    run(log, 2)
    begin = log.index("began")
    turn = log[begin + 1 : log.index("began", begin + 1)]
    assert turn == [
        "robot/result.",
        "robot/reset", "policy/reset",  # these two at once, while the recording is finished
        "recorder/set", "recorder/set.", "recorder/finish", "recorder/finish.",
        "policy/reset.", "robot/reset.",
        "recorder/set", "recorder/set.", "recorder/begin", "recorder/begin.",
        "robot/release", "robot/release.", "robot/result",
    ]  # fmt: skip


def test_every_episode_is_reported_after_its_recording_is_finished(log):
    reports, recorder = run(log, 3)
    assert [report.index for report in reports] == [0, 1, 2]
    assert [report.info.seed for report in reports] == [7, 8, 9]
    assert [(r.info.begin_ns, r.info.end_ns) for r in reports] == [(70, 74), (80, 84), (90, 94)]
    assert reports[0].info.provenance == {"policy": "here", "identity": "abc"}
    assert len({report.info.uuid for report in reports}) == 3
    assert reports[2].dropped == 1
    assert log.count("recorder/finish") == 3
    assert recorder.values["finish.outcome"] == "success"
    assert json.loads(recorder.values["begin.provenance"])["identity"] == "abc"


def test_a_participant_that_took_another_seed_is_set_and_reset_again(log):
    robot, policy, _ = make(log)
    reports: list[EpisodeReport] = []
    loop = EpisodeLoop(
        Plan(2, 20), robot, policy, None, lambda info: policy.values.update({"episode.seed": 3}), reports.append
    )
    loop.run()
    assert [report.info.seed for report in reports] == [20, 21]
    assert policy.seed_at_reset == 21


def test_an_episode_that_failed_is_not_committed_and_ends_the_run(log):
    with pytest.raises(TandemError, match=r"episode 1 \(seed 8\): no answer"):
        run(log, 3, error="no answer")
    assert log.count("recorder/begin") == 2
    assert log.count("recorder/finish") == 2


def test_runs_without_policy_and_recorder(log):
    robot, _, _ = make(log)
    reports: list[EpisodeReport] = []
    EpisodeLoop(Plan(2, 7), robot, None, None, lambda info: None, reports.append).run()
    assert [report.stats.steps for report in reports] == [5, 5]


def test_reports_survive_their_line():
    stats = EpisodeStats(3, 1, 9, 2, True, "success", "go", latency_ms=[1.5, 2.25], on_time=1, periods=2)
    reports: list[EpisodeReport] = []
    robot, _, _ = make([])
    EpisodeLoop(Plan(1, 7), robot, None, None, lambda info: None, reports.append).run()
    report = EpisodeReport(4, reports[0].info, stats, 1, 2)
    again = EpisodeReport.from_json(report.to_json())
    assert again == report
    result = again.to_result()
    assert (result.index, result.steps, result.latency_ms) == (4, 2, (1.5, 2.25))
    assert (result.on_time, result.periods) == (1, 2)
    assert again.to_values()["latency_p50_ms"] == "2.25"
    with pytest.raises(TandemError, match="episode report"):
        EpisodeReport.from_json("{}")
