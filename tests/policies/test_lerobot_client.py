"""The client of LeRobot's process, and what of LeRobot's policies needs no LeRobot: quick."""

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
    ],
)
def test_what_cannot_be_opened_is_refused_without_a_process(directory, change, message):
    change(directory)
    begun = time.perf_counter()
    with pytest.raises(TandemError, match=message):
        tandem_policies.load(directory, "cpu")
    assert not psutil.Process().children()
    assert time.perf_counter() - begun < 5


def test_a_killed_process_is_an_error_and_no_hang(directory):
    worker = process.Worker("policy 'x'", threads=1)
    threading.Timer(0.3, worker.process.kill).start()
    with pytest.raises(TandemError, match=r"policy 'x': its process was killed by signal 9"):
        worker.ask({"do": "open", "path": str(directory), "device": "cpu", "threads": 1}, [], 60)


def test_a_silent_process_is_an_error(directory):
    worker = process.Worker("policy 'x'", threads=1)
    worker.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TandemError, match=r"gave no answer for 0\.2 s"):
        worker.ask({"do": "open", "path": str(directory), "device": "cpu", "threads": 1}, [], 0.2)
    worker.close()
    assert worker.process.returncode == -signal.SIGKILL


def test_closing_ends_it_and_asking_then_says_so():
    worker = process.Worker("policy 'x'", threads=1)
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
    wire.send(writer, {"do": "infer", "text": "größe"}, rows)
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
