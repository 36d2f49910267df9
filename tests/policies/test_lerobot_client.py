"""The client of LeRobot's process, and what of LeRobot's policies needs no LeRobot: quick."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

import tandem_policies
from tandem_datasets.errors import TandemError
from tandem_policies.lerobot import process, wire
from tandem_policies.lerobot.embedding import embed


@pytest.fixture
def directory(body, tmp_path):
    """What passes the first look."""
    (tmp_path / "config.json").write_text(json.dumps({"type": "act"}))
    (tmp_path / "embodiment.json").write_text(json.dumps(body().to_dict()))
    (tmp_path / "model.safetensors").write_bytes(b"")
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (tmp_path / name).write_text(json.dumps({"name": name, "steps": []}))
    return tmp_path


def test_an_embedding_is_the_same_everywhere_and_of_unit_size():
    row = embed("Find the red block!", 64)
    assert row.shape == (64,)
    assert np.array_equal(row, embed("find the RED block", 64))
    assert np.square(row).mean() == pytest.approx(1, abs=1e-6)
    assert row[:6].tolist() == embed("find the red block")[:6].tolist()
    np.testing.assert_allclose(
        row[:4], [-2.020305, -0.404061, -0.404061, -1.212183], atol=1e-6
    )  # saved policies rely on these numbers
    assert not embed("", 64).any()


def test_embeddings_tell_colours_and_the_order_of_words_apart():
    def likeness(one: str, other: str) -> float:
        return float((embed(one) * embed(other)).mean())

    assert likeness("find the red block", "find the blue block") < 0.8
    assert likeness("red on blue", "blue on red") < 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "embodiment.json").unlink(), "no embodiment.json .wanted: names, units, limits and rate"),
        (lambda path: (path / "policy_preprocessor.json").unlink(), "no policy_preprocessor.json"),
        (lambda path: (path / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda path: (path / "embodiment.json").write_text("{}"), "embodiment.json: Embodiment lacks"),
        (
            lambda path: (path / "policy_preprocessor.json").write_text(
                '{"steps": [{"registry_name": "tokenizer_processor", "config": {"a": [{"trust_remote_code": false}]}}]}'
            ),
            "policy_preprocessor.json: trust_remote_code is set",
        ),
        (
            lambda path: (path / "config.json").write_text('{"type": "act", "trust_remote_code": true}'),
            "config.json: trust_remote_code is set",
        ),
    ],
)
def test_what_cannot_be_opened_is_refused_without_a_process(directory, change, message):
    change(directory)
    others = set(psutil.Process().children())  # of multiprocessing, which keeps one for all
    begun = time.perf_counter()
    with pytest.raises(TandemError, match=message):
        tandem_policies.load(directory, "cpu")
    assert not set(psutil.Process().children()) - others
    assert time.perf_counter() - begun < 5


def test_a_killed_process_is_an_error_and_no_hang(directory):
    worker = process.Worker("policy 'x'", threads=1)
    threading.Timer(0.3, worker.process.kill).start()
    with pytest.raises(TandemError, match=r"policy 'x': its process was killed by signal 9"):
        worker.ask({"do": "open", "path": str(directory), "device": "cpu", "threads": 1}, [], 60)


def test_a_silent_process_is_an_error(directory):
    worker = process.Worker("policy 'x'", threads=1)
    worker.process.send_signal(signal.SIGSTOP)
    more_than_a_pipe_holds = [np.zeros(1 << 20, np.uint8)]
    with pytest.raises(TandemError, match=r"gave no answer for 0\.2 s"):
        worker.ask({"do": "open", "path": str(directory), "device": "cpu", "threads": 1}, more_than_a_pipe_holds, 0.2)
    with pytest.raises(TandemError, match=r"has been ended: gave no answer for 0\.2 s"):
        worker.ask({"do": "open"}, [], 1)
    worker.close()
    assert worker.process.returncode == -signal.SIGKILL


def test_an_interrupted_question_ends_it():
    """Regression: the answer to it was taken for that to the next question, and so on for ever."""

    def interrupt(*_):
        raise KeyboardInterrupt

    worker = process.Worker("policy 'x'", threads=1)
    before = signal.signal(signal.SIGALRM, interrupt)
    worker.process.send_signal(signal.SIGSTOP)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.ask({"do": "infer"}, [], 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(TandemError, match="has been ended: an inference was interrupted"):
        worker.ask({"do": "infer"}, [], 60)
    worker.close()
    assert worker.process.returncode == -signal.SIGKILL


def test_what_is_no_message_ends_it():
    """Regression: its reading thread died of it, and the process outlived its client."""
    worker = process.Worker("policy 'x'", threads=1)
    assert worker.process.stdin is not None
    os.write(worker.process.stdin.fileno(), b"x" * 100)
    assert worker.process.wait(20) == 1
    with pytest.raises(TandemError, match=r"its process ended with status 1: .*what came is no message"):
        worker.ask({"do": "open"}, [], 1)


def test_closing_ends_it_and_asking_then_says_so():
    worker = process.Worker("policy 'x'", threads=1)
    with pytest.raises(TandemError, match="policy 'x': ValueError"):
        worker.ask({"do": "infer"}, [], 60)  # it has started
    worker.close()
    assert worker.process.returncode == 0
    worker.close()
    with pytest.raises(TandemError, match="its process has been ended"):
        worker.ask({"do": "open"}, [], 1)


def test_it_ends_with_its_parent_even_by_kill_9():
    code = (
        "import time\nfrom tandem_policies.lerobot.process import Worker\n"
        "worker = Worker('x', 1)\nprint(worker.process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert "tandem_policies.lerobot.worker" in child.cmdline()
        parent.kill()
        child.wait(10)


def test_messages_carry_arrays_bit_for_bit():
    reader, writer = os.pipe()
    rows = [np.arange(6, dtype=np.float32).reshape(2, 3).T, np.zeros((0, 4), np.uint8), np.array(True)]
    wire.send(writer, wire.pack({"do": "infer", "text": "größe"}, rows))
    message, found = wire.receive(reader, 1.0)
    assert message == {"do": "infer", "text": "größe"}
    for row, came in zip(rows, found, strict=True):
        assert (row.dtype, row.shape) == (came.dtype, came.shape)
        assert np.array_equal(row, came)
    with pytest.raises(wire.LateError):
        wire.receive(reader, 0.05)
    os.write(writer, b"x" * 100)
    with pytest.raises(TandemError, match="what came is no message"):
        wire.receive(reader, 1.0)
    os.close(writer)
    os.close(reader)


def test_a_pipe_with_a_high_number_and_a_message_that_is_too_large(monkeypatch):
    """Regression: select takes no descriptor above 1023, which a graph of many nodes comes to."""
    reader, writer = os.pipe()
    high = fcntl.fcntl(reader, fcntl.F_DUPFD, 1024)
    wire.send(writer, wire.pack({"do": "infer"}), 1.0)
    assert wire.receive(high, 1.0) == ({"do": "infer"}, [])
    with pytest.raises(wire.LateError):
        wire.send(writer, [b"x" * (1 << 20)], 0.05)
    for descriptor in (reader, writer, high):
        os.close(descriptor)
    monkeypatch.setattr(wire, "_LARGEST_ARRAYS", 7)
    with pytest.raises(TandemError, match=r"and 8 of arrays .allowed: .* and 7"):
        wire.pack({}, [np.zeros(8, np.uint8)])


def test_arrays_of_objects_are_refused():
    reader, writer = os.pipe()
    text = json.dumps({"arrays": [["|O", [1]]]}).encode()
    os.write(writer, wire._HEAD.pack(b"tnd1", len(text), 8) + text + b"\0" * 8)
    with pytest.raises(TandemError, match=r"an array of \|O"):
        wire.receive(reader, 1.0)


def test_the_ros_wheels_leave_no_trace_in_its_environment():
    present = {
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "LD_LIBRARY_PATH": "/venv/lib/python3.12/site-packages/ros_rclpy.libs:/opt/mine",
        "HF_HUB_OFFLINE": "0",
    }
    found = process.worker_environment(present, threads=3)
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in found
    assert found["LD_LIBRARY_PATH"] == "/opt/mine"
    assert (found["HF_HUB_OFFLINE"], found["TRANSFORMERS_OFFLINE"], found["OMP_NUM_THREADS"]) == ("0", "1", "3")
