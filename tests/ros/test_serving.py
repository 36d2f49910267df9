import threading

import numpy as np
import pytest

from tandem_datasets.frames import Observation
from tandem_ros.serving import AnswerBook, PolicyServer


class Counting:
    """A policy whose chunk's numbers are (inference, point), so that an answer tells where it comes from."""

    chunk_size = 3
    identity = "counting"
    speaks = True

    def __init__(self, embodiment, n_action_steps: int = 1, n_obs_steps: int = 1) -> None:
        self.embodiment = embodiment
        self.n_obs_steps = n_obs_steps
        self.seen: list[list[int]] = []  # the stamps of each inference's observations
        self.n_action_steps = n_action_steps
        self.keys: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def say(self, histories, keys):
        return [f"{key}: {len(history)} seen" for history, key in zip(histories, keys, strict=True)]

    def infer(self, histories, keys):
        self.seen += [[one.stamp_ns for one in history] for history in histories]
        self.entered.release()
        assert self.gate.wait(5)
        self.keys += keys
        return np.array([[[len(self.keys), k] for k in range(self.chunk_size)]], np.float32)


@pytest.fixture
def seen(blockfind):
    def observation(tick: int) -> Observation:
        pixels = {"top": np.zeros((64, 64, 3), np.uint8)}
        return Observation(pixels, np.zeros(2, np.float32), "find it", tick * blockfind.period_ns)

    return observation


def test_a_repeated_observation_gets_the_same_answer_without_inference(blockfind, seen):
    policy = Counting(blockfind)
    book = AnswerBook(policy)
    book.reset(7)
    first = book.answer(seen(0))
    assert book.answer(seen(1)).tolist() == [[2, 0]]
    assert book.answer(seen(0)) is first
    assert policy.keys == [(7, 0), (7, 1)]


def test_inference_sees_every_observation_of_its_history(blockfind, seen):
    policy = Counting(blockfind, n_action_steps=2, n_obs_steps=3)
    book = AnswerBook(policy)
    for seed in (7, 8):
        book.reset(seed)
        for tick in (0, 1, 1, 2):
            book.answer(seen(tick))
    period = blockfind.period_ns
    assert policy.seen == 2 * [[0, 0, 0], [0, period, 2 * period]]


def test_answers_play_from_the_queue_until_it_is_empty(blockfind, seen):
    policy = Counting(blockfind, n_action_steps=2)
    book = AnswerBook(policy)
    answers = [book.answer(seen(tick)).tolist() for tick in range(3)]
    assert answers == [[[1, 0], [1, 1]], [[1, 1]], [[2, 0], [2, 1]]]


def test_actions_of_ticks_that_were_overtaken_are_let_go(blockfind, seen):
    book = AnswerBook(Counting(blockfind, n_action_steps=3))
    book.answer(seen(0))
    assert book.answer(seen(2)).tolist() == [[1, 2]]
    assert book.answer(seen(9)).tolist()[0] == [2, 0]
    assert book.answer(seen(5)) is None, "older than one already answered"


def test_reset_forgets_answers_and_queue(blockfind, seen):
    policy = Counting(blockfind, n_action_steps=3)
    book = AnswerBook(policy)
    book.answer(seen(0))
    book.reset(3)
    assert book.answer(seen(0)).tolist()[0] == [2, 0]
    assert policy.keys == [(0, 0), (3, 0)]


class Server:
    """A running server with what it answered."""

    def __init__(self, policy: Counting, newest_only: bool) -> None:
        self.answers: list[int] = []
        self.done = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self.said: list[str] = []
        self.server = PolicyServer(policy, self._answer, newest_only, self.errors.append, self.said.append)

    def _answer(self, stamp: int, points: np.ndarray) -> None:
        self.answers.append(stamp)
        self.done.release()


@pytest.mark.parametrize(("newest_only", "answered"), [(False, [0, 1, 2, 3]), (True, [0, 3])])
def test_lockstep_answers_all_in_order_and_realtime_the_newest(blockfind, seen, newest_only, answered):
    policy = Counting(blockfind)
    policy.gate.clear()
    running = Server(policy, newest_only)
    running.server.put(seen(0))
    assert policy.entered.acquire(timeout=5)
    for tick in (1, 2, 3):
        running.server.put(seen(tick))
    policy.gate.set()
    for _ in answered:
        assert running.done.acquire(timeout=5)
    running.server.close()
    assert running.answers == [tick * blockfind.period_ns for tick in answered]
    assert running.server.overtaken == (2 if newest_only else 0)


def test_every_inference_has_its_words_and_in_real_time_none_keep_an_observation_waiting(blockfind, seen):
    for newest_only, words in ((False, [0, 1, 2]), (True, [1])):
        policy = Counting(blockfind, n_action_steps=2)
        policy.gate.clear()
        running = Server(policy, newest_only)
        running.server.put(seen(0))
        assert policy.entered.acquire(timeout=5)
        for tick in (1, 2, 3, 4):
            running.server.put(seen(tick))
        policy.gate.set()
        for _ in range(2 if newest_only else 5):
            assert running.done.acquire(timeout=5)
        running.server.reset(0)  # waits for what is being said
        running.server.close()
        assert running.said == [f"(0, {inference}): 1 seen" for inference in words]


def test_no_answer_to_an_earlier_episode_comes_after_a_reset(blockfind, seen):
    policy = Counting(blockfind)
    policy.gate.clear()
    running = Server(policy, newest_only=False)
    running.server.put(seen(0))
    running.server.put(seen(1))
    assert policy.entered.acquire(timeout=5)
    resetting = threading.Thread(target=running.server.reset, args=(5,))
    resetting.start()
    policy.gate.set()
    resetting.join(5)
    after = list(running.answers)
    running.server.put(seen(2))
    assert running.done.acquire(timeout=5)
    while len(running.answers) < len(after) + 1:
        assert running.done.acquire(timeout=5)
    running.server.close()
    assert after == [0]
    assert running.answers == [0, 2 * blockfind.period_ns]
    assert policy.keys[-1] == (5, 0)


def test_a_failing_policy_is_reported(blockfind, seen):
    policy = Counting(blockfind)
    policy.infer = lambda observations, keys: np.zeros((0,))
    running = Server(policy, newest_only=False)
    running.server.put(seen(0))
    running.server._thread.join(5)
    (error,) = running.errors
    assert "chunks are float64 (0,)" in str(error)
