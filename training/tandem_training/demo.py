"""The main job, once round the loop: demonstrate, train, roll out over ROS 2, label, train again, compare.

The second round is DAgger (Ross, Gordon and Bagnell, AISTATS 2011) with one iteration: the first policy
drives, the expert says what it would have done, and training goes on over everything. A control is trained
on equally many extra expert episodes instead.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_datasets.policy import Policy
from tandem_datasets.rollout import EXPERT, RolloutRequest
from tandem_training.config import compose, env_spec, quoted, section
from tandem_training.evaluation import evaluate, policy_loader
from tandem_training.provenance import code_digest, policy_provenance
from tandem_training.results import Row, machine, print_rows, write_rows
from tandem_training.statistics import paired_difference
from tandem_training.steps import Done, Steps, steps

ROLLOUT_SEED = 200_000  # the rollouts that the expert labels
EXTRA_SEED = 300_000  # the control's extra demonstrations
EVAL_SEED = 500_000  # never seen in training
REALTIME_SEED = 600_000


@dataclass(frozen=True)
class Evaluated:
    """One policy's evaluation: the step it was made by and its per-seed successes."""

    step: Done

    @property
    def metrics(self) -> dict[str, Any]:
        return self.step.facts["metrics"]

    @property
    def successes(self) -> list[bool]:
        return self.step.facts["successes"]

    @property
    def interval(self) -> tuple[float, float, float]:
        low, high = self.metrics["success_ci95"]
        return (self.metrics["success_rate"], low, high)


class Demo:
    """The steps of the demo on one configuration (``conf/demo.yaml``)."""

    def __init__(self, config: Any, job: Steps) -> None:
        self.config, self.job = config, job
        self.env = env_spec(config)
        self.ros = section(config.ros)
        self._overrides = [*map(str, config.train), f"seed={config.seed}"]
        compose("train", self._overrides)  # a wrong one must not be noticed after minutes
        self._env_facts = {"id": self.env.id, "options": dict(self.env.options)}

    def run(self) -> tuple[dict[str, Evaluated], dict[str, Done]]:
        """Goes round the loop; returns the evaluations by policy and the steps by name."""
        config = self.config
        demos = self._collect("demonstrations.zarr", "the expert demonstrates", config.demonstrations, config.seed)
        first = self._train("before", "training on demonstrations", (demos,))
        rollouts = self._rollouts(first)
        last = self._train("policy", "training again, on all of it", (demos, rollouts))
        extra = self._collect("extra.zarr", "the expert demonstrates more", config.dagger_episodes, EXTRA_SEED)
        control = self._train("control", "training the control", (demos, extra))
        evaluated = {
            "before": self._evaluate("eval_before", "before", first, "ros2", config.episodes, EVAL_SEED),
            "after": self._evaluate("eval_after", "after", last, "ros2", config.episodes, EVAL_SEED),
            "control": self._evaluate("eval_control", "control", control, "ros2", config.episodes, EVAL_SEED),
            "realtime": self._realtime(last),
        }
        named = {"demos": demos, "first": first, "rollouts": rollouts, "last": last, "extra": extra, "control": control}
        return evaluated, named

    def _collect(self, name: str, title: str, episodes: int, seed: int) -> Done:
        def make(path: Path) -> dict[str, Any]:
            request = RolloutRequest(self.env, EXPERT, episodes, seed, record=path, label=True,
                                     provenance=policy_provenance(EXPERT))  # fmt: skip
            metrics = evaluate(request, "inprocess", title=title).metrics
            return {"episodes": episodes, "frames": round(metrics["steps_mean"] * episodes)}

        return self._step(name, title, {"env": self._env_facts, "episodes": episodes, "seed": seed}, make)

    def _train(self, name: str, title: str, data: tuple[Done, ...]) -> Done:
        from tandem_training.train import run

        overrides = self._overrides

        def make(path: Path) -> dict[str, Any]:
            stores = ",".join(quoted(step.path.absolute()) for step in data)
            result = run(compose("train", [*overrides, f"data=[{stores}]", f"out={quoted(path)}"]))
            return {"metrics": result.metrics}

        return self._step(name, title, {"train": list(overrides)}, make, data)

    def _rollouts(self, policy: Done) -> Done:
        # Short, so that the labels cover many boards rather than one board's wandering to the horizon.
        short = replace(self.env, options={**self.env.options, **section(self.config.dagger_options)})

        def make(path: Path) -> dict[str, Any]:
            request = self._request(policy, self.config.dagger_episodes, ROLLOUT_SEED, record=path, label=True)
            request = replace(request, env=short)
            return {"metrics": evaluate(request, "ros2", title="rolling out over ROS 2, the expert labels").metrics}

        made_from = {"id": short.id, "options": dict(short.options), "episodes": self.config.dagger_episodes}
        made_from["ros"] = self.ros
        return self._step("rollouts.zarr", "rolling out over ROS 2, the expert labels", made_from, make, (policy,))

    def _evaluate(
        self, name: str, title: str, policy: Done, backend: str, episodes: int, seed: int, mode: str = "lockstep"
    ) -> Evaluated:
        title = f"evaluating '{title}' over ROS 2 ({mode})"

        def make(path: Path) -> dict[str, Any]:
            path.mkdir()
            request = self._request(policy, episodes, seed, record=path / "episodes.zarr", mode=mode)
            found = evaluate(request, backend, path, films=0, title=title)
            return {"metrics": found.metrics, "successes": found.successes}

        made_from = {"env": self._env_facts, "episodes": episodes, "seed": seed, "ros": self.ros, "mode": mode}
        return Evaluated(self._step(name, title, made_from, make, (policy,)))

    def _realtime(self, policy: Done) -> Evaluated:
        episodes = self.config.realtime_episodes
        return self._evaluate("eval_realtime", "after", policy, "ros2", episodes, REALTIME_SEED, "realtime")

    def _request(
        self, policy: Done, episodes: int, seed: int, record: Path, label: bool = False, mode: str = "lockstep"
    ) -> RolloutRequest:
        directory = str(policy.path / "best")
        return RolloutRequest(
            self.env, directory, episodes, seed, policy_loader(directory, "cpu", 1), record, label,
            provenance=policy_provenance(directory), options={**self.ros, "mode": mode, "device": "cpu", "threads": 1},
        )  # fmt: skip

    def _step(self, name: str, title: str, made_from: dict, make: Any, after: tuple[Done, ...] = ()) -> Done:
        from rich.console import Console

        done = self.job.run(name, made_from, make, after)
        took = "done before" if done.cached else f"{done.seconds:.1f} s"
        Console(highlight=False).print(f"[green]✓[/] {title} [dim]({took}) {done.path}[/]")
        return done


def run(config: Any, started: float) -> int:
    """Runs the demo into ``config.out``, prints the table, writes ``metrics.json`` and ``report.html``.

    ``started`` is the ``time.time()`` at which the command began, for the row ``demo_s``.
    """
    from tandem_training.report.demo_page import write_page

    if config.seed + config.demonstrations > ROLLOUT_SEED:
        raise TandemError(
            f"tandem demo: seeds {config.seed} to {config.seed + config.demonstrations - 1} would meet those of the "
            f"rollouts (allowed: seed + demonstrations up to {ROLLOUT_SEED})"
        )
    out = Path(config.out)
    with steps(out, code_digest(), "tandem demo") as job:
        demo = Demo(config, job)
        evaluated, named = demo.run()
        rows = _rows(evaluated, job, time.time() - started)
        facts = machine()
        write_page(out / "report.html", rows, evaluated, named, demo.env, facts)
        write_rows(out, rows, facts)
    print_rows("Once round the loop", rows, facts)
    print(f"report: {out / 'report.html'}\nlast policy: {out / 'policy' / 'best'}")
    return 0


def _rows(evaluated: dict[str, Evaluated], job: Steps, seconds: float) -> list[Row]:
    rows = []
    for name in ("before", "after", "control"):
        rate, low, high = evaluated[name].interval
        note = f"95 % interval {low:.1%} to {high:.1%}, ROS 2 lock-step, unseen seeds"
        target, met = (">= 0.9", rate >= 0.9) if name == "after" else ("", None)
        rows.append(Row(f"{name}_success", rate, target=target, met=met, note=note))
    for name, other in (("gain", "before"), ("gain_over_control", "control")):
        difference, low, high = paired_difference(evaluated["after"].successes, evaluated[other].successes)
        note = f"percentage points after minus {other}, paired, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
        rows.append(Row(name, 100 * difference, note=note))
    metrics = evaluated["realtime"].metrics
    for name in ("p50", "p99"):
        note = "observation to action in real time, 30 Hz"
        rows.append(Row(f"realtime_latency_{name}", metrics["latency_ms"][name], "ms", note=note))
    rows.append(Row("realtime_on_time", metrics["on_time_fraction"], note="actions within 5 ms of their tick"))
    cached = [step for step in job.done if step.cached]
    if cached:
        seconds = sum(step.seconds for step in job.done)
    note = f"{len(cached)} of {len(job.done)} steps were done before: their times then, added up" if cached else "wall"
    fine = seconds <= 360 and evaluated["after"].interval[0] >= 0.9
    rows.append(Row("demo_s", seconds, "s", target="<= 360, after_success >= 0.9", met=fine, note=note))
    return rows


def load_policy(step: Done) -> Policy:
    """The best policy of a training step, on the CPU."""
    import tandem_policies

    return tandem_policies.load(str(step.path / "best"), device="cpu", threads=1)
