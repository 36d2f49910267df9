"""Policies that learn the H1's tasks from its experts' demonstrations on a CPU, beside baselines that learn nothing.

    tandem bench policies
    tandem bench policies rows='[policy_reach_state]' which=act

Demonstrations are recorded, a policy is trained from them and rolled out on seeds that no demonstration has. `which`
chooses the policy: our flow-matching chunk policy, or LeRobot's ACT. A training that took longer than it may has not
met its target. The state of policy_reach_state and policy_pick_state holds the bricks' poses (`privileged`).
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tandem_datasets.errors import unknown
from tandem_datasets.rollout import EnvSpec, RolloutRequest
from tandem_training.baseline_names import HOLD, MEAN, NEAREST, short_name
from tandem_training.benches._measuring import Target, demonstrations, measure_groups
from tandem_training.config import compose, env_spec, quoted, section
from tandem_training.evaluation import evaluate, policy_loader
from tandem_training.provenance import code_digest
from tandem_training.results import Row
from tandem_training.statistics import wilson
from tandem_training.steps import Done, Steps, steps

TARGETS = {
    "policy_reach_state": Target("", ">= 0.95, trained <= 30 min on a CPU", lambda value: value >= 0.95),
    "policy_pick_state": Target("", ">= 0.80, trained <= 30 min on a CPU", lambda value: value >= 0.80),
    "policy_reach_pixels": Target("", ">= 0.80, trained <= 45 min on a CPU", lambda value: value >= 0.80),
}
MOST_S = {"policy_reach_state": 1800, "policy_pick_state": 1800, "policy_reach_pixels": 2700}
WHICH = ("flow", "act")
EVAL_SEED = 500_000


def measure(config: Any, wanted: set[str]) -> list[Row]:
    """The rows of :data:`TARGETS`; policies and stores are made below ``config.cache`` where they are not there yet."""
    if config.which not in WHICH:
        raise unknown("tandem bench policies: which", str(config.which), WHICH)
    with ExitStack() as stack:
        job = stack.enter_context(steps(Path(config.cache) / "policies", code_digest(), "tandem bench policies"))
        bench = PoliciesBench(config, job)
        return measure_groups(TARGETS, [([name], partial(bench.row, name)) for name in TARGETS], wanted)


class PoliciesBench:
    """One configuration's measurements."""

    def __init__(self, config: Any, job: Steps) -> None:
        self.config, self.job = config, job

    def row(self, name: str) -> list[Row]:
        """Success of the policy, with what the baselines reach in the note."""
        given = section(self.config[name])
        env = env_spec(compose("eval", given["env"]))
        episodes, recovery = given["demonstrations"], float(given["recovery"])
        store = demonstrations(self.job, env, f"{name}_demonstrations", episodes, self.config.seed, recovery)
        done = self.trained(name, store, given[self.config.which])
        won = self.won(env, str(done.path / "best"), self.config.episodes)
        low, high = wilson(sum(won), len(won))
        late = done.facts["metrics"]["seconds"] > MOST_S[name]
        note = f"{self.config.which}: {sum(won)} of {len(won)} unseen seeds, 95 % interval {low:.3f} to {high:.3f}; "
        note += f"{episodes} demonstrations, {_training(done)}; {self.baselines(env, store)}"
        return [Row("", sum(won) / len(won), met=False if late else None, note=note)]

    def trained(self, name: str, store: Done, overrides: Sequence[str]) -> Done:
        """The policy from the demonstrations; its facts are the training's metrics and CPU seconds."""
        from tandem_training.train import run

        arguments = [*overrides, f"seed={self.config.seed}", f"device={self.config.device}"]

        def make(path: Path) -> dict[str, Any]:
            begun = time.process_time()
            places = [f"data={quoted(store.path.absolute())}", f"out={quoted(path)}"]
            return {
                "metrics": run(compose("train", [*arguments, *places])).metrics,
                "cpu_s": time.process_time() - begun,
            }

        return self.job.run(f"{name}_{self.config.which}", {"train": arguments}, make, (store,))

    def won(self, env: EnvSpec, policy: str, episodes: int) -> list[bool]:
        """Which of the evaluation's episodes succeed."""
        loader = policy_loader(policy, self.config.device, 1, env)
        request = RolloutRequest(env, policy, episodes, EVAL_SEED, loader, num_envs=min(10, episodes))
        return evaluate(request, "inprocess", title=short_name(policy)).successes

    def baselines(self, env: EnvSpec, store: Done) -> str:
        """What those reach that learn nothing."""
        if not self.config.baseline_episodes:
            return "baselines left out"
        names = (HOLD, f"{MEAN}:{store.path}", f"{NEAREST}:{store.path}")
        found = {short_name(name): self.won(env, name, self.config.baseline_episodes) for name in names}
        told = [f"{name} {sum(won)} of {len(won)}" for name, won in found.items()]
        return f"baselines on the same seeds: {', '.join(told)}"


def _training(done: Done) -> str:
    metrics = done.facts["metrics"]
    size = f"{metrics['parameters']:,} parameters"
    return f"{size}, {metrics['steps']} steps in {metrics['seconds']:.0f} s ({done.facts['cpu_s']:.0f} CPU-s)"
