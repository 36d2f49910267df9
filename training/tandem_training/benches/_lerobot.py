"""The same policy on LeRobot's road and on ours: success by ``lerobot-eval``, and actions bit for bit."""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.rollout import EnvSpec, EpisodeResult, RolloutRequest
from tandem_policies.lerobot.process import worker_environment
from tandem_training.results import Row

ENV = EnvSpec("tandem/BlockFind-v0")
_FIRST_SEED = 700_000  # of adapter_equal's episodes
_EPISODES = 50


def lerobot_eval_equal(policy_dir: Path, episodes: int, seed: int) -> Row:
    """Whether ``lerobot-eval`` and ``tandem eval`` succeed in just the same episodes, on the seeds from ``seed``.

    Both run one episode at a time on one CPU thread.

    Raises:
        TandemError: ``lerobot-eval`` is not installed, failed, or ran other episodes.
    """
    ours = [result.info.success for result in _roll(policy_dir, episodes, seed)]
    with tempfile.TemporaryDirectory(prefix="tandem-lerobot-") as scratch:
        theirs = run_lerobot_eval(policy_dir, episodes, seed, Path(scratch))
    differ = sum(one != other for one, other in zip(ours, theirs, strict=True))
    note = f"lerobot-eval {sum(theirs)}, tandem eval {sum(ours)} of {episodes} episodes from seed {seed}"
    return Row("lerobot_eval_equal", differ == 0, repeats=episodes, note=f"{note}; {differ} episodes differ")


def run_lerobot_eval(policy_dir: Path, episodes: int, seed: int, scratch: Path, *options: str) -> list[bool]:
    """Success of each episode by the real ``lerobot-eval``, which writes below ``scratch``."""
    out = scratch / "lerobot-eval"
    run_lerobot(
        "lerobot-eval",
        [
            f"--policy.path={policy_dir.absolute()}",  # it runs elsewhere
            "--policy.device=cpu",
            "--env.type=tandem",
            f"--env.task={ENV.id.removeprefix('tandem/')}",
            f"--eval.n_episodes={episodes}",
            "--eval.batch_size=1",
            f"--seed={seed}",
            f"--output_dir={out}",
            *options,
        ],
        scratch,
    )
    tasks = json.loads((out / "eval_info.json").read_text())["per_task"]
    found = [bool(success) for task in tasks for success in task["metrics"]["successes"]]
    if len(found) != episodes:
        raise TandemError(f"lerobot-eval: {len(found)} episodes in its results (wanted: {episodes})")
    return found


def run_lerobot(command: str, arguments: list[str], scratch: Path, timeout_s: float = 3600) -> str:
    """One of LeRobot's commands on one thread and without a network; returns what it said.

    Raises:
        TandemError: it is not installed beside this interpreter, or failed.
    """
    program = Path(sys.executable).with_name(command)
    if not program.exists():
        raise TandemError(f"{command}: not found beside {sys.executable} (wanted: the extra 'lerobot')")
    done = subprocess.run(
        [str(program), *arguments],
        env=lerobot_environment(os.environ, scratch),
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise TandemError(f"{command}: exit status {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout + done.stderr


def lerobot_environment(ours: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """An environment for LeRobot's commands: one thread, no hub, and nothing of what ROS's wheels left in ours."""
    theirs = worker_environment(ours, threads=1)
    return {**theirs, "HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "huggingface")}


def adapter_equal(policy_dir: Path, episodes: int = _EPISODES) -> Row:
    """Whether every action of whole episodes is the same through LeRobot's factory, processors and rollout and ours.

    Bit for bit, CPU, batch 1, one thread each.
    """
    ours = _our_actions(policy_dir, episodes, _FIRST_SEED)
    theirs = _lerobot_actions(policy_dir, range(_FIRST_SEED, _FIRST_SEED + episodes))
    equal = [one.dtype == other.dtype and np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)]
    actions = sum(map(len, ours))
    note = f"{actions} actions of {episodes} episodes; {episodes - sum(equal)} episodes differ"
    return Row("adapter_equal", all(equal), repeats=actions, note=note)


def _roll(policy_dir: Path, episodes: int, seed: int, record: Path | None = None) -> list[EpisodeResult]:
    """Episodes of a policy in our runtime, one at a time."""
    from tandem_training.evaluation import find_backend, policy_loader

    loader = policy_loader(str(policy_dir), "cpu", 1)
    request = RolloutRequest(ENV, str(policy_dir), episodes, seed, loader, record)
    return find_backend("inprocess")(request, lambda _: None)


def _our_actions(policy_dir: Path, episodes: int, seed: int) -> list[np.ndarray]:
    """The actions (T, A) that our runtime asks for in each episode, as they are recorded: bit for bit."""
    from tandem_datasets.store import Store

    with tempfile.TemporaryDirectory(prefix="tandem-lerobot-") as scratch:
        record = Path(scratch) / "episodes.zarr"
        _roll(policy_dir, episodes, seed, record)
        store = Store(record)
        return np.split(store.load("action_requested"), store.episode_ends[:-1])


def _lerobot_actions(policy_dir: Path, seeds: range) -> list[np.ndarray]:
    """The same by LeRobot's own functions, in this process."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import close_envs, make_env, make_env_config, make_env_pre_post_processors
    from lerobot.policies import make_policy, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    config = PreTrainedConfig.from_pretrained(policy_dir, cli_overrides=["--device=cpu"])
    config.pretrained_path = policy_dir
    env_config = make_env_config("tandem", task=ENV.id)
    policy = make_policy(config, env_cfg=env_config).eval()
    processors = make_pre_post_processors(config, pretrained_path=str(policy_dir))
    env_processors = make_env_pre_post_processors(env_config, config)
    envs = make_env(env_config, n_envs=1)
    vector = envs["tandem"][0]
    with redirect_stderr(io.StringIO()):  # a progress bar for each episode, which no option turns off
        runs = [rollout(vector, policy, *env_processors, *processors, seeds=[seed]) for seed in seeds]
    found = [run["action"][0].numpy() for run in runs]
    close_envs(envs)
    return found
