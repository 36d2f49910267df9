"""TinyVLA on the static benchmark, LeRobot's policies on BlockFind, both roads between Tandem and LeRobot, the engine.

    tandem bench tinyvla
    tandem bench tinyvla slow=true rows='[act_success,diffusion_success]'

The static rows train by a fixed number of steps and are measured on the test split; the time that these steps may take
of two quiet cores stands in the target, the seconds that they took in the note. ACT and Diffusion are judged by their
seconds too. The controls train the same network without what it should need.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tandem_datasets.rollout import RolloutRequest
from tandem_training.benches._measuring import Target, demonstrations, measure_groups
from tandem_training.config import compose, env_spec, quoted, section
from tandem_training.evaluation import evaluate, policy_loader
from tandem_training.named_data import named
from tandem_training.offline import evaluate_offline, measures
from tandem_training.provenance import code_digest
from tandem_training.results import Row
from tandem_training.statistics import wilson
from tandem_training.steps import Done, Steps, steps

CONTROLS = ("vision_only", "language_only", "shuffled")
_HALF_A_MINUTE = "by steps of <= 30 s on 2 cores"
TARGETS = {
    "nano_direction_accuracy": Target("", f">= 0.98 {_HALF_A_MINUTE}", lambda value: value >= 0.98),
    "nano_l2": Target("", f"<= 0.05 {_HALF_A_MINUTE}", lambda value: value <= 0.05),
    "nano_l2_final": Target("", "<= 0.004 by steps of <= 150 s on 2 cores", lambda value: value <= 0.004),
    "minimal_l2_gpu": Target("", "<= 0.004 within 60 s on a GPU", lambda value: value <= 0.004),
    **{name: Target("", "< 0.55", lambda value: value < 0.55) for name in CONTROLS},
    "act_success": Target("", ">= 0.80 within 40 min", lambda value: value >= 0.80),
    "diffusion_success": Target("", ">= 0.60 within 40 min", lambda value: value >= 0.60),
    "lerobot_eval_equal": Target("", "equal success", bool),
    "adapter_equal": Target("", "bit-equal actions", bool),
    "train_overhead": Target("x", "<= 1.05 x", lambda value: value <= 1.05),
    "wait_fraction": Target("", "<= 0.05", lambda value: value <= 0.05),
}
DATA, EVAL_SEED = "blockfind_static", 500_000
_MOST_GPU_S = 60
_MOST_LEROBOT_S = 2400


def measure(config: Any, wanted: set[str]) -> list[Row]:
    """The rows of :data:`TARGETS`; policies and stores are made below ``config.cache`` where they are not there yet."""
    with ExitStack() as stack:
        job = stack.enter_context(steps(Path(config.cache) / "tinyvla", code_digest(), "tandem bench tinyvla"))
        bench = TinyVLABench(config, job)
        groups = [
            (["nano_direction_accuracy", "nano_l2"], bench.nano),
            (["nano_l2_final"], bench.nano_final),
            (["minimal_l2_gpu"], bench.minimal),
            *(([name], lambda name=name: bench.control(name)) for name in CONTROLS),
            (["act_success"], lambda: bench.lerobot("act")),
            (["diffusion_success"], lambda: bench.lerobot("diffusion")),
            (["lerobot_eval_equal"], bench.lerobot_eval_equal),
            (["adapter_equal"], bench.adapter_equal),
            (["train_overhead"], bench.train_overhead),
            (["wait_fraction"], bench.wait_fraction),
        ]
        return measure_groups(TARGETS, groups, wanted)


class TinyVLABench:
    """One configuration's measurements; each method gives the rows of one group."""

    def __init__(self, config: Any, job: Steps) -> None:
        self.config, self.job = config, job
        self.env = env_spec(config)

    # what the rows need

    def policy(self, name: str, data: str, overrides: Sequence[str], after: tuple[Done, ...] = ()) -> Done:
        """A policy trained from ``data``; its facts are the training's metrics."""
        from tandem_training.train import run

        arguments = [*overrides, f"seed={self.config.seed}"]

        def make(path: Path) -> dict[str, Any]:
            begun = time.process_time()
            metrics = run(compose("train", [*arguments, f"data={data}", f"out={quoted(path)}"])).metrics
            return {"metrics": metrics, "cpu_s": time.process_time() - begun}

        return self.job.run(f"policy_{name}", {"train": arguments, "data": data}, make, after)

    def cloned(self, name: str, episodes: int, overrides: Sequence[str]) -> Done:
        """A policy trained from demonstrations on BlockFind."""
        store = demonstrations(self.job, self.env, f"demonstrations_{episodes}", episodes, self.config.seed)
        return self.policy(name, quoted(store.path.absolute()), overrides, (store,))

    def static(self, name: str, overrides: Sequence[str], ablate: str | None = None) -> tuple[dict[str, Any], str]:
        """Figures on the static test split of a policy trained for it, and how its training went."""
        from tandem_policies import load
        from tandem_training.named_data import ready

        done = self.policy(name, DATA, overrides)
        policy = load(done.path / "best", device="cpu", threads=1)
        found = evaluate_offline(policy, [str(ready(named(DATA)).store("test"))], timed=0, ablate=ablate)
        return measures(found), _training(done)

    # rows

    def nano(self) -> list[Row]:
        figures, how = self.static("nano", self._overrides("nano"))
        low, high = figures["direction_accuracy_ci95"]
        counted = figures["samples"] - figures["samples_centre"]
        centre = f"of {figures['samples_centre']} centre targets {figures['centre_accuracy']:.3f} right"
        note = f"{counted} test samples, 95 % interval {low:.3f} to {high:.3f}; {centre}; {how}"
        tail = f"95th percentile {figures['l2_p95']:.4f}, worst {figures['l2_max']:.4f}; {how}"
        return [Row("", figures["direction_accuracy"], note=note), Row("", figures["l2"], note=tail)]

    def nano_final(self) -> list[Row]:
        figures, how = self.static("nano_final", self._overrides("nano_final"))
        tail = f"95th percentile {figures['l2_p95']:.4f}, worst {figures['l2_max']:.4f}"
        return [Row("", figures["l2"], note=f"{tail}; {how}")]

    def minimal(self) -> list[Row]:
        import torch

        if not torch.cuda.is_available():
            return [Row("", None, note="needs a GPU")]
        figures, how = self.static("minimal", [*self._overrides("minimal"), "device=cuda"])
        seconds = self.job.done[-1].facts["metrics"]["seconds"]
        met = figures["l2"] <= 0.004 and seconds <= _MOST_GPU_S
        return [Row("", figures["l2"], met=met, note=f"direction {figures['direction_accuracy']:.3f}; {how}")]

    def control(self, name: str) -> list[Row]:
        """Trained and tested without what ``name`` takes away; ``shuffled`` is tested on the true instructions."""
        tested = None if name == "shuffled" else name
        figures, how = self.static(name, [*self._overrides("controls"), f"stage.ablate={name}"], tested)
        return [Row("", figures["direction_accuracy"], note=f"L2 {figures['l2']:.3f}; {how}")]

    def lerobot(self, name: str) -> list[Row]:
        """Success of a policy of LeRobot's, trained in our engine from demonstrations."""
        if not self.config.slow:
            return [Row("", None, note="left out: slow=true measures it")]
        done = self.cloned(name, self.config.demonstrations, self._overrides(name))
        directory = str(done.path / "best")
        request = RolloutRequest(
            self.env, directory, self.config.episodes, EVAL_SEED, policy_loader(directory, "auto", 1), num_envs=20
        )
        won = evaluate(request, "inprocess", title=name).successes
        low, high = wilson(sum(won), len(won))
        note = f"{sum(won)} of {len(won)} unseen seeds, 95 % interval {low:.3f} to {high:.3f}, from "
        note += f"{self.config.demonstrations} demonstrations; {_training(done)}"
        late = done.facts["metrics"]["seconds"] > _MOST_LEROBOT_S
        return [Row("", sum(won) / len(won), met=False if late else None, note=note)]

    def lerobot_eval_equal(self) -> list[Row]:
        from tandem_training.benches import _lerobot

        return [_lerobot.lerobot_eval_equal(self._equal(), self.config.equal_episodes, EVAL_SEED)]

    def adapter_equal(self) -> list[Row]:
        from tandem_training.benches import _lerobot

        return [_lerobot.adapter_equal(self._equal())]

    def train_overhead(self) -> list[Row]:
        from tandem_training.benches import _overhead

        return [_overhead.train_overhead(self.config.repeats)]

    def wait_fraction(self) -> list[Row]:
        from tandem_training.benches import _overhead

        return [_overhead.wait_fraction(self.config.repeats)]

    def _equal(self) -> Path:
        """A policy that neither always nor never succeeds, so that equal success says something."""
        done = self.cloned("equal", self.config.equal_demonstrations, ["preset=demo"])
        return done.path.absolute() / "best"  # LeRobot's commands run elsewhere

    def _overrides(self, name: str) -> list[str]:
        return [str(item) for item in section(self.config)[name]]


def _training(done: Done) -> str:
    metrics = done.facts["metrics"]
    size = f"{metrics['parameters']:,} parameters"
    took = f"{metrics['seconds']:.0f} s ({done.facts['cpu_s']:.0f} CPU-s, start and validations included)"
    return f"{size}, {metrics['steps']} steps in {took} on {metrics['device']}"
