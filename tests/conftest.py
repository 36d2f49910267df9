import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: children would be deaf to Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Player:
    """A `tandem` command on a terminal of 100 x 44 characters."""

    def __init__(self, *command, **changes):
        self.terminal, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 100, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "COLUMNS", "LINES")}
        environment |= {"TERM": "xterm", **changes}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tandem_training.cli", *command],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
        )
        self.said = ""

    def until(self, words, limit_s=90.0):
        end = time.monotonic() + limit_s
        while words not in self.said:
            assert time.monotonic() < end, f"no '{words}' in: {self.said[-500:]!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.said += os.read(self.terminal, 1 << 16).decode(errors="replace")
        self.said = self.said[self.said.index(words) + len(words) :]

    def press(self, keys):
        os.write(self.terminal, keys.encode())

    def end(self):
        """The exit status; the terminal must be as it was."""
        self.until("\x1b[?1049l")
        status = self.process.wait(20)
        assert termios.tcgetattr(self.slave) == self.before
        while select.select([self.terminal], [], [], 0.1)[0]:
            self.said += os.read(self.terminal, 1 << 16).decode(errors="replace")
        os.close(self.terminal)
        os.close(self.slave)
        return status


@pytest.fixture
def on_terminal():
    """Starts a `tandem` command on a pseudo-terminal; see :class:`Player`. What still runs at the end is killed."""
    started = []

    def start(*command, **environment):
        started.append(Player(*command, **environment))
        return started[-1]

    yield start
    for player in started:
        if player.process.poll() is None:
            player.process.kill()
            player.process.wait(10)


@pytest.fixture(scope="session")
def half_trained(tmp_path_factory):
    """The directory of a policy that finds the named block about every other time: nano after 4 s of training."""
    from tandem_sim.rollout import run as roll_out
    from tandem_training.config import compose
    from tandem_training.train import run as train

    folder = tmp_path_factory.mktemp("half-trained")
    store = folder / "episodes.zarr"
    roll_out(RolloutRequest(EnvSpec("tandem/BlockFind-v0"), EXPERT, 400, seed=0, record=store), lambda _: None)
    steps = ["max_steps=160", "batch_size=32", "warmup_steps=20", "val_every=160", "checkpoint_every=160", "threads=1"]
    arguments = [f"data={store}", f"out={folder / 'out'}", "device=cpu", *(f"trainer.{step}" for step in steps)]
    return train(compose("train", arguments)).final
