"""The loop on BlockFind: success, DAgger's gain, ROS 2 against in-process, latencies, rates, start-up times."""

import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EXPERT, RolloutRequest
from tandem_training.benches._measuring import Target, demonstrations, measure_groups, median_row, seconds_of, tandem
from tandem_training.config import compose, env_spec, quoted, section
from tandem_training.evaluation import evaluate, find_backend, policy_loader
from tandem_training.provenance import code_digest
from tandem_training.results import Row
from tandem_training.statistics import paired_difference, percentiles, wilson
from tandem_training.steps import Done, Steps, steps

TARGETS = {
    "closed_loop_success": Target("", ">= 0.97, expert 1", lambda value: value >= 0.97),
    "dagger_gain": Target(
        "points", "interval excludes 0; against the control not wholly below 0", lambda value: value > 0
    ),
    "lockstep_equal": Target("", "bit-equal episodes", bool),
    "lockstep_rate": Target("x", ">= 0.5 x in-process", lambda value: value >= 0.5),
    "realtime_latency_p50": Target("ms", "<= 6", lambda value: value <= 6),
    "realtime_latency_p99": Target("ms", "<= 20", lambda value: value <= 20),
    "realtime_on_time": Target("", ">= 0.99", lambda value: value >= 0.99),
    "env_rate_single": Target("steps/CPU-s", ">= 10k", lambda value: value >= 10_000),
    "env_rate_vector": Target("steps/CPU-s", ">= 60k", lambda value: value >= 60_000),
    "first_step_s": Target("s", "<= 10", lambda value: value <= 10),
    "node_active_s": Target("s", "<= 8", lambda value: value <= 8),
    "help_s": Target("s", "<= 0.5", lambda value: value <= 0.5),
}
ROLLOUT_SEED, EXTRA_SEED, EVAL_SEED = 200_000, 300_000, 500_000


def measure(config: Any, wanted: set[str]) -> list[Row]:
    """The rows of :data:`TARGETS`; policies and stores are made below ``config.cache`` where they are not there yet."""
    with ExitStack() as stack:
        job = stack.enter_context(steps(Path(config.cache) / "loop", code_digest(), "tandem bench loop"))
        bench = LoopBench(config, job)
        groups = [
            (["closed_loop_success"], bench.success),
            (["dagger_gain"], bench.dagger),
            (["lockstep_equal"], bench.lockstep_equal),
            (["lockstep_rate"], bench.lockstep_rate),
            (["realtime_latency_p50", "realtime_latency_p99", "realtime_on_time"], bench.realtime),
            (["env_rate_single", "env_rate_vector"], bench.env_rates),
            (["first_step_s"], bench.first_step),
            (["node_active_s"], bench.node_active),
            (["help_s"], bench.help),
        ]
        return measure_groups(TARGETS, groups, wanted)


class LoopBench:
    """One configuration's measurements; each method gives the rows of one group."""

    def __init__(self, config: Any, job: Steps) -> None:
        self.config, self.job = config, job
        self.env = env_spec(config)
        self.ros = section(config.ros)

    # what the rows need

    def demos(self, name: str, episodes: int, seed: int) -> Done:
        """A store of expert demonstrations."""
        return demonstrations(self.job, self.env, name, episodes, seed)

    def policy(self, name: str, preset: str, data: Sequence[Done]) -> Done:
        """A policy trained with the preset; its facts are the training's metrics."""
        from tandem_training.train import run

        overrides = [f"preset={preset}", f"seed={self.config.seed}"]

        def make(path: Path) -> dict[str, Any]:
            stores = ",".join(quoted(step.path.absolute()) for step in data)
            trained = run(compose("train", [*overrides, f"data=[{stores}]", f"out={quoted(path)}"]))
            return {"metrics": trained.metrics}

        return self.job.run(f"policy_{name}", {"train": overrides}, make, tuple(data))

    def good_policy(self) -> Done:
        demos = self.demos("demonstrations", self.config.demonstrations, self.config.seed)
        return self.policy("good", "full", [demos])

    def request(self, policy: Done | None, episodes: int, seed: int, **changes: Any) -> RolloutRequest:
        directory = EXPERT if policy is None else str(policy.path / "best")
        options = {**self.ros, "device": "cpu", "threads": 1, **changes.pop("options", {})}
        loader = policy_loader(directory, "cpu", 1)
        return RolloutRequest(self.env, directory, episodes, seed, loader, options=options, **changes)

    # rows

    def success(self) -> list[Row]:
        policy = self.good_policy()
        count = self.config.episodes
        mine = evaluate(self.request(policy, count, EVAL_SEED), "inprocess", title="policy").successes
        expert = evaluate(self.request(None, count, EVAL_SEED), "inprocess", title="expert").successes
        low, high = wilson(sum(mine), count)
        trained = policy.facts["metrics"]
        note = (
            f"{sum(mine)} of {count} unseen seeds, 95 % interval {low:.3f} to {high:.3f}, from "
            f"{self.config.demonstrations} demonstrations, {trained['steps']} steps in {trained['seconds']:.0f} s; "
            f"expert {sum(expert)} of {count}"
        )
        rate = sum(mine) / count
        return [Row("", rate, met=rate >= 0.97 and all(expert), note=note)]

    def dagger(self) -> list[Row]:
        few = self.demos("few", self.config.few, self.config.seed)
        before = self.policy("few", "demo", [few])

        options = {**self.env.options, **section(self.config.dagger_options)}

        def roll(path: Path) -> dict[str, Any]:
            request = self.request(before, self.config.dagger_episodes, ROLLOUT_SEED, record=path, label=True)
            request = replace(request, env=replace(self.env, options=options))
            return {"frames": sum(result.steps for result in evaluate(request, "inprocess", title="DAgger").results)}

        made_from = {"episodes": self.config.dagger_episodes, "options": options}
        rollouts = self.job.run("rollouts.zarr", made_from, roll, (before,))
        after = self.policy("dagger", "demo", [few, rollouts])
        frames = rollouts.facts["frames"]
        extra = self.demos("extra", self._episodes_for(frames), EXTRA_SEED)
        control = self.policy("control", "demo", [few, extra])
        wins = {}
        for name, policy in (("before", before), ("after", after), ("control", control)):
            request = self.request(policy, self.config.episodes, EVAL_SEED, num_envs=25)
            wins[name] = evaluate(request, "inprocess", title=name).successes
        gain, low, high = paired_difference(wins["after"], wins["before"])
        over, over_low, over_high = paired_difference(wins["after"], wins["control"])
        rates = ", ".join(f"{name} {sum(won) / len(won):.3f}" for name, won in wins.items())
        note = (
            f"paired, {self.config.episodes} seeds, 95 % interval {100 * low:.1f} to {100 * high:.1f}; minus control "
            f"{100 * over:.1f} ({100 * over_low:.1f} to {100 * over_high:.1f}); {rates}; "
            f"{frames} added frames, control {extra.facts['frames']}"
        )
        return [Row("", 100 * gain, met=low > 0 and over_high >= 0, note=note)]

    def _episodes_for(self, frames: int) -> int:
        """How many expert episodes hold at least ``frames`` frames."""
        lengths = evaluate(self.request(None, frames, EXTRA_SEED, num_envs=25), "inprocess", title="counting").results
        total = 0
        for index, result in enumerate(lengths):
            total += result.steps
            if total >= frames:
                return index + 1
        return len(lengths)

    def lockstep_equal(self) -> list[Row]:
        from tandem_datasets.compare import episodes_equal
        from tandem_datasets.store import Store

        policy, count = self.good_policy(), self.config.equal_episodes
        with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
            stores = {}
            for backend in ("inprocess", "ros2"):
                path = Path(folder) / f"{backend}.zarr"
                evaluate(self._lockstep(policy, count, record=path), backend, title=backend)
                stores[backend] = Store(path)
            counts = {name: store.n_episodes for name, store in stores.items()}
            if set(counts.values()) != {count}:
                raise TandemError(f"lockstep_equal: recorded {counts} episodes (allowed: {count} each)")
            pair = (stores["inprocess"], stores["ros2"])
            differ = {
                index: found for index in range(count) if (found := episodes_equal(pair[0], index, pair[1], index))
            }
            frames = pair[0].n_frames
        note = f"{count} seeds, {frames} frames; differing: {differ or 'none'}"[:300]
        return [Row("", not differ, note=note)]

    def lockstep_rate(self) -> list[Row]:
        policy = self.good_policy()
        rates: dict[str, list[float]] = {"inprocess": [], "ros2": []}
        for _ in range(self.config.repeats):
            for backend, found in rates.items():
                found.append(self._steps_per_s(policy, backend))
        ratios = [ros / own for ros, own in zip(rates["ros2"], rates["inprocess"], strict=True)]
        own, ros = statistics.median(rates["inprocess"]), statistics.median(rates["ros2"])
        row = median_row(ratios, f"{ros:.0f} steps/s over ROS 2, {own:.0f} in process, resets included, start-up not")
        return [Row("", row.value, reference=own, ratio=row.value, repeats=row.repeats, note=row.note)]

    def _steps_per_s(self, policy: Done, backend: str) -> float:
        """Steps a second of wall time from the end of the first episode to the end of the last."""
        ends: list[tuple[float, int]] = []
        request = self._lockstep(policy, self.config.rate_episodes)
        find_backend(backend)(request, lambda result: ends.append((time.perf_counter(), result.steps)))
        return sum(count for _, count in ends[1:]) / (ends[-1][0] - ends[0][0])

    def _lockstep(self, policy: Done, episodes: int, record: Path | None = None) -> RolloutRequest:
        return self.request(policy, episodes, EVAL_SEED, record=record, options={"mode": "lockstep"})

    def realtime(self) -> list[Row]:
        policy = self.good_policy()
        results: list = []
        deadline = None
        periods_wanted = self.config.realtime_s * 30
        seed = EVAL_SEED
        while (done := sum(result.periods for result in results)) < periods_wanted:
            mean = done / len(results) if results else 5.0
            episodes = max(10, round((periods_wanted - done) / mean * 1.05))
            request = self.request(policy, episodes, seed, options={"mode": "realtime"})
            results += evaluate(request, "ros2", title="real time, 30 Hz").results
            seed += episodes
            deadline = deadline or time.monotonic() + 4 * self.config.realtime_s + 120
            if time.monotonic() > deadline:
                raise TandemError(f"realtime: {done} of {periods_wanted} control periods when the time was up")
        periods = sum(result.periods for result in results)
        latencies = [value for result in results for value in result.latency_ms]
        if not latencies:
            raise TandemError(f"realtime: none of {periods} control periods was answered")
        found = percentiles(latencies)
        won = sum(result.info.success for result in results)
        note = f"{periods} control periods at 30 Hz in {len(results)} episodes, {won / len(results):.1%} success"
        on_time = sum(result.on_time for result in results) / periods
        return [Row("", found["p50"], note=note), Row("", found["p99"], note=note), Row("", on_time, note=note)]

    def env_rates(self) -> list[Row]:
        from tandem_sim.blockfind.rates import rate_single, rate_vector

        note = "steps with images per process CPU second, one core"
        return [median_row(rate_single(self.config.repeats), note), median_row(rate_vector(self.config.repeats), note)]

    def first_step(self) -> list[Row]:
        store = self.demos("few", self.config.few, self.config.seed)
        found = []
        for _ in range(self.config.repeats):
            with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
                out = Path(folder) / "train"
                seconds_of(tandem("train", "policy=tinyvla/nano", f"data={quoted(store.path)}", "preset=debug",
                                  "trainer.max_steps=2", f"out={quoted(out)}"))  # fmt: skip
                found.append(json.loads((out / "metrics.json").read_text())["first_step_s"])
        return [median_row(found, "command to the end of the first step, warm")]

    def node_active(self) -> list[Row]:
        policy = self.good_policy()
        return [
            median_row(
                [self._until_active(policy) for _ in range(self.config.repeats)], "command to policy active, warm"
            )
        ]

    def _until_active(self, policy: Done, timeout_s: float = 60) -> float:
        """Seconds from `tandem launch` to the line with which the policy node says that it is active."""
        started = time.perf_counter()
        command = tandem("launch", "blockfind", f"policy:={policy.path / 'best'}", "episodes:=1")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            said = ""
            alarm = threading.Timer(timeout_s, process.terminate)
            alarm.start()
            try:
                for line in process.stdout:
                    said = line
                    if "policy" in line and "active" in line and "inactive" not in line:
                        seconds = time.perf_counter() - started
                        process.wait()
                        return seconds
            finally:
                alarm.cancel()
            raise TandemError(f"tandem launch ended before the policy was active: {said.strip()[-200:]}")

    def help(self) -> list[Row]:
        return [median_row([seconds_of(tandem("--help")) for _ in range(max(5, self.config.repeats))], "warm")]
