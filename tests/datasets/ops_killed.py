"""Kills merging or compacting at random file operations: `python ops_killed.py WORK STORE OUT TIMES`.

Prints how many episodes there are after each: of STORE for compact, of OUT (0: there is none) for merge.
"""

import os
import random
import shutil
import signal
import sys
from pathlib import Path

from tandem_datasets import files
from tandem_datasets.ops.changing import Choice, compact, delete
from tandem_datasets.ops.joining import merge
from tandem_datasets.store import Store


class Killing:
    """Kills this process before, in or after the operation of a number."""

    def __init__(self, number: int, phase: str) -> None:
        self.number, self.phase = number, phase

    def run(self, operation, path, whole, half):
        self.number -= 1
        if self.number:
            return whole()
        if self.phase == "in" and half is not None:
            half()
        elif self.phase == "after":
            whole()
        os.kill(os.getpid(), signal.SIGKILL)


def act(work: str, store: Path, out: Path) -> None:
    if work == "merge":
        merge([store], out)
    else:
        compact(store)


def count(work: str, store: Path, out: Path) -> int:
    """How many file operations that takes, done with a copy in a child: whoever forks keeps no threads."""
    reading, writing = os.pipe()
    copy = store.with_name("counted")
    shutil.copytree(store, copy)
    child = os.fork()
    if child == 0:
        counter = Killing(0, "")
        files.inject(counter)
        act(work, copy, out)
        os.write(writing, b"%d" % -counter.number)
        os._exit(0)
    os.waitpid(child, 0)
    shutil.rmtree(copy)
    shutil.rmtree(out, ignore_errors=True)
    return int(os.read(reading, 20))


def main() -> None:
    work, store, out, times = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    rng, killed = random.Random(5), 0
    most = count(work, store, out)
    numbers = [rng.randint(1, most) for _ in range(times // 2)]  # and those that put the new store in its place
    numbers += [most - each for each in range(times - times // 2)][::-1]
    for number in numbers:
        phase = rng.choice(["before", "in", "after"])
        child = os.fork()
        if child == 0:
            files.inject(Killing(number, phase))
            act(work, store, out)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if work == "merge":
            print(Store(out).n_episodes if out.exists() else 0, flush=True)
            continue
        print(Store(store).n_episodes, flush=True)
        if Store(store).n_episodes == 4:
            assert Store(store).kept.tolist() == [1, 2, 3]
    assert killed >= times // 2
    if work == "merge" and not out.exists():
        merge([store], out)
    elif work == "compact" and Store(store).n_episodes == 4:
        delete(store, Choice(episodes=1))
        delete(store, Choice(episodes=1), deleted=False)
        compact(store)
    elif work == "compact":
        delete(store, Choice(episodes=0))  # a writer that opens it cleans up
        delete(store, Choice(episodes=0), deleted=False)


if __name__ == "__main__":
    main()
