"""Kill recorders at random times, and let every file operation of recorder, compact and merge fail.

    tandem drill store
    tandem drill store kills=1000 faults='[]'
    tandem drill store kills=0 faults='[recorder,compact]'

Each failure strikes a process of its own. After it nothing that was reported as committed may be lost or altered, the
store must open, and one more episode must go in. kill -9 says nothing about a power cut: that is what fsync is for.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tandem_datasets.errors import TandemError, unknown
from tandem_training.drills._faults import AFTER, BEFORE, ERROR, IN, KILL
from tandem_training.drills._operations import OPERATIONS
from tandem_training.drills._recording import WRONG
from tandem_training.results import Row

TARGETS = ("kills", "faults")
RECORDER = "recorder"

_TARGET = "0 committed episodes lost or altered, 0 stores that fail to open, append works after each"
_LONGEST_S = 0.25  # until a kill
_KILLS_PER_STORE = 20
_OTHERS = 10  # a kill of another operation for so many of the recorder
_QUICK_FAULTS = 30
_MOST_MISSED = 0.02  # of all faults
_WORDS = {"unopened": "fail to open", "lost": "lost", "altered": "altered", "stuck": "cannot be appended to"}

console = Console(highlight=False)


@dataclass
class _Findings:
    """What was found after many failures."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)  # the cases that were not as they should

    def add(self, task: dict[str, Any], found: dict[str, Any]) -> None:
        self.cases += 1
        self.counts.update({key: value for key, value in found.items() if isinstance(value, int)})
        if found["problem"] or any(found.get(key) for key in WRONG):
            self.wrong.append({**task, **found})

    def row(self, name: str, note: str) -> Row:
        counts = ", ".join(f"{self.counts[key]} {_WORDS[key]}" for key in WRONG)
        told = f"{note}; {self.counts['checked']} episodes compared: {counts}"
        first = f"; first: {self.wrong[0]['problem']}"[:200] if self.wrong else ""
        missed = self.counts["missed"]  # the order in which threads write varies, and so does what the last ones are
        if missed:
            told += f"; {missed} faults struck nothing"
        met = not self.wrong and missed <= _MOST_MISSED * self.cases
        return Row(name, len(self.wrong), "failures", target=_TARGET, met=met, repeats=self.cases, note=told + first)


def measure(config: Any) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows of :data:`TARGETS`, and every case that went wrong.

    Raises:
        TandemError: an argument does not fit.
    """
    operations = _operations(config.faults)
    for key in ("kills", "seed"):
        value = config[key]
        if type(value) is not int or value < 0:
            raise TandemError(f"tandem drill store: {key}={value} (allowed: a whole number from 0)")
    kills = min(config.kills, 6) if config.quick else config.kills
    with _Crew() as crew:
        counted = {
            name: crew.ask({"task": "count", "operation": name, "folder": crew.folder(name)}) for name in operations
        }
        for name, found in counted.items():
            if "problem" in found:
                raise TandemError(f"tandem drill store: {name} does not work without a fault: {found['problem']}")
        rows, wrong = [], []
        for name, tasks, note in (
            ("kills", _kill_tasks(kills, operations, config.seed, crew), f"{kills} kills while recording"),
            ("faults", _fault_tasks(counted, config, crew), _said(counted)),
        ):
            if not tasks:
                rows.append(Row(name, None, "failures", target=_TARGET, note="left out"))
                continue
            findings = crew.run(name, tasks)
            rows.append(findings.row(name, note))
            wrong += findings.wrong
    return rows, wrong


def _operations(wanted: Any) -> list[str]:
    """Which operations are to fail: all (None or ``all``), or some by name."""
    names = list(OPERATIONS) if wanted in (None, "all") else [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in OPERATIONS:
            raise unknown("tandem drill store: faults", str(name), ["all", *OPERATIONS])
    return names


def _said(counted: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {len(found['writes'])}" for name, found in counted.items())
    return f"file operations: {told}; an error before, in and after each, a kill before and in each"


def _kill_tasks(kills: int, operations: Sequence[str], seed: int, crew: "_Crew") -> list[list[dict[str, Any]]]:
    """Lists of tasks that belong to one process, one after the other: kills of a store that grows."""
    rng = random.Random(seed)
    chains: list[list[dict[str, Any]]] = []
    for number in range(kills):
        if number % _KILLS_PER_STORE == 0:
            chains.append([])
            how = {"codec": rng.choice(("zstd", "raw", "jpegxl"))}
        chains[-1].append(
            {
                "task": "kill",
                "operation": RECORDER,
                "folder": crew.folder(f"kills{len(chains)}"),
                "delay_s": rng.uniform(0.0, _LONGEST_S),
                "group": rng.choice((1, 1, 2)),
                "sync": rng.random() < 0.5,
                **how,
            }
        )
    for name in operations:
        if name.startswith(RECORDER):
            continue
        folder = crew.folder(name)
        for _ in range(kills // _OTHERS):
            delay_s = rng.uniform(0.0, _LONGEST_S)
            chains.append([{"task": "kill", "operation": name, "folder": folder, "delay_s": delay_s}])
    return chains


def _fault_tasks(counted: dict[str, Any], config: Any, crew: "_Crew") -> list[list[dict[str, Any]]]:
    """A failure at each operation; a kill after one is a kill before the next, so only the last has one."""
    tasks = []
    for name, found in counted.items():
        task = {"task": "fault", "operation": name, "folder": crew.folder(name)}
        for at, writes in enumerate(found["writes"]):
            tries = [(BEFORE, ERROR), (AFTER, ERROR), (BEFORE, KILL)]
            tries += [(IN, ERROR), (IN, KILL)] if writes else []
            tries += [(AFTER, KILL)] if at == len(found["writes"]) - 1 else []
            tasks += [[{**task, "at": at, "phase": phase, "kind": kind}] for phase, kind in tries]
    return random.Random(config.seed).sample(tasks, min(_QUICK_FAULTS, len(tasks))) if config.quick else tasks


class _Crew:
    """Processes that fork and kill, one for each core, and a folder in memory for what they write."""

    def __init__(self) -> None:
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "_Crew":
        memory = Path("/dev/shm")  # a kill does not touch what a file system holds, and disks are slow
        where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="tandem-drill-", dir=where, ignore_cleanup_errors=True)
        command = [sys.executable, "-m", "tandem_training.drills._worker"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for _ in range(os.cpu_count() or 1):
            worker = subprocess.Popen(
                command, text=True, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._all.append(worker)
            self._free.put(worker)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            assert worker.stdin is not None
            assert worker.stdout is not None
            with suppress(BrokenPipeError):  # it ended by itself, which was told
                worker.stdin.close()
            worker.wait()
            worker.stdout.close()
        self._folder.cleanup()

    def folder(self, name: str) -> str:
        """A place for one operation or one store."""
        return str(Path(self._folder.name, name))

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """Has a process do one task."""
        with self._one() as worker:
            return _answer(worker, task)

    def run(self, name: str, chains: Sequence[Sequence[dict[str, Any]]]) -> _Findings:
        """Has all processes do the tasks; each chain stays together and in order."""
        findings = _Findings()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(self._all)) as pool:
            bar = progress.add_task(name, total=sum(map(len, chains)))

            def work(chain: Sequence[dict[str, Any]]) -> None:
                with self._one() as worker:
                    for task in chain:
                        findings.add(task, _answer(worker, task))
                        progress.advance(bar)

            for job in [pool.submit(work, chain) for chain in chains]:
                job.result()
        return findings

    @contextmanager
    def _one(self) -> Iterator[subprocess.Popen[str]]:
        worker = self._free.get()
        try:
            yield worker
        finally:
            self._free.put(worker)


def _answer(worker: subprocess.Popen[str], task: dict[str, Any]) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    begin = time.perf_counter()
    worker.stdin.write(json.dumps(task) + "\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise TandemError(f"tandem drill store: its process ended after {time.perf_counter() - begin:.0f} s of {task}")
    return json.loads(line)
