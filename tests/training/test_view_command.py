"""`tandem view` without a display: what it refuses, and a browser's view that stays on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import psutil
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, EnvSpec
from tandem_sim.performing import Performance
from tandem_sim.watching import watch
from tandem_training.commands.view import main
from tandem_training.performers import cast


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], r"there is no display \(allowed: `web=true`.*`tandem render`"),
        (["env=blockfind"], "no MuJoCo world"),
        (["seed=-1"], "seed=-1"),
        (["port=0", "web=true"], "port=0"),
        (["policy=nowhere"], "nowhere: does not exist"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments, words, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(TandemError, match=words) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_a_display_that_does_not_open_is_one_line(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":9999")
    with pytest.raises(TandemError, match="cannot be opened"):
        main(["env=h1_reach"])


class Glance:
    """A screen that looks at so many steps, and spoils what it is given no handle on."""

    def __init__(self, steps):
        self.left, self.begun, self.told = steps, 0, []

    def begin(self, model, data):
        self.begun += 1

    def show(self, data, instant):
        self.told.append((instant.step, data.time, instant.words))
        self.left -= 1
        return self.left >= 0


def test_an_episode_is_watched_in_real_time_until_it_is_closed():
    spec, actor = cast(EnvSpec("tandem/H1Reach-v0", {"horizon": 10, "cameras": ["front"]}), EXPERT, "cpu", 1)
    with Performance(spec, actor) as performance:
        assert not performance.embodiment.cameras  # nobody looks through them
        screen = Glance(25)
        begin = time.perf_counter()
        assert list(watch(performance, screen, 3, None)) == [(3, "not_reached"), (4, "not_reached")]
        seconds = time.perf_counter() - begin
    assert screen.begun == 3
    assert [step for step, _, _ in screen.told][:12] == [*range(11), 0]
    assert screen.told[10][1] == pytest.approx(0.2)
    assert any("purple" in words or "hand" in words for _, _, words in screen.told)
    assert seconds > 2 * (10 / 50 + 1)


def test_the_browser_view_listens_on_this_machine_only_and_ends_with_ctrl_c(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; from tandem_training.commands.view import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "env=h1_reach", "web=true", f"port={port}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            page = answer(process, port)
            own = [item.laddr.ip for item in psutil.Process(process.pid).net_connections() if item.status == "LISTEN"]
            process.send_signal(signal.SIGINT)
            status = process.wait(20)
        finally:
            process.kill()
        log.seek(0)
        said = log.read()
    assert "<html" in page.lower()
    assert own
    assert set(own) == {"127.0.0.1"}
    assert (status, "Traceback" in said) == (0, False), said


def answer(process, port, seconds=60):
    """The page once it is served."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
            return page.read().decode()
        time.sleep(0.1)
    return ""
