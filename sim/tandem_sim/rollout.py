"""The rollout backend ``inprocess``: policy, environment and recorder in one process, without ROS.

With ``num_envs`` above 1, as many episodes run side by side and share each inference; a batch rounds
otherwise than single observations do, so that only ``num_envs=1`` is comparable bit for bit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import gymnasium
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.policy import ChunkPlayer, Policy
from tandem_datasets.rollout import EXPERT, EpisodeResult, RolloutRequest
from tandem_sim import registry
from tandem_sim.episodes import Episode
from tandem_sim.recording import EpisodeWriter


class _Trial:
    """One running episode with its playback and its latencies."""

    def __init__(self, index: int, env: gymnasium.Env, request: RolloutRequest, policy: Policy | None) -> None:
        seed = request.seed + index
        self.index, self.env = index, env
        self.episode = Episode(env, request.env.id, seed)
        self.player = ChunkPlayer(policy.n_action_steps, policy.n_obs_steps) if policy else ChunkPlayer(1)
        self.player.reset(seed)
        self.latency_ms: list[float] = []
        self.noise = np.random.default_rng([seed, 1])  # [seed] alone draws what the environment draws

    def result(self, info: EpisodeInfo) -> EpisodeResult:
        return EpisodeResult(self.index, info, len(self.episode.frames), tuple(self.latency_ms))


def run(request: RolloutRequest, on_episode: Callable[[EpisodeResult], None]) -> list[EpisodeResult]:
    """Runs the episodes; see :class:`tandem_datasets.rollout.RolloutBackend`.

    The backend's own option ``noise`` is the standard deviation of Gaussian noise (in the action's units) that
    is added to each requested action; labels stay without it. Stamps are a simulated clock that goes on from
    episode to episode, in an existing store from its last one.

    Raises:
        TandemError: a policy that does not fit, answers the wrong shape or not finitely; a bad request or store.
    """
    noise = _check(request)
    policy = _load(request)
    with ExitStack() as stack:
        envs = [registry.make(request.env) for _ in range(min(request.num_envs, request.episodes))]
        for env in envs:
            stack.callback(env.close)
        embodiment = envs[0].unwrapped.embodiment  # type: ignore[attr-defined]
        provenance: dict[str, Any] = {"policy": request.policy, **request.provenance}
        if policy is not None:
            policy.embodiment.require_fit(embodiment, f"policy {request.policy}")
            provenance["identity"] = policy.identity
        if noise:
            provenance["noise"] = noise
        writer = stack.enter_context(EpisodeWriter(request.record, embodiment, provenance))
        results = []
        for trial in _in_order(_trials(request, policy, noise, envs)):
            result = trial.result(writer.write(trial.episode))
            results.append(result)
            on_episode(result)
    return results


def _check(request: RolloutRequest) -> float:
    for name, value, least in (
        ("episodes", request.episodes, 1),
        ("num_envs", request.num_envs, 1),
        ("seed", request.seed, 0),
    ):
        if value < least:
            raise TandemError(f"rollout: {name} is {value} (allowed: {least} and more)")
    noise = request.options.get("noise", 0.0)
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < np.inf:
        raise TandemError(f"rollout: noise is {noise!r} (allowed: a standard deviation from 0)")
    return float(noise)


def _load(request: RolloutRequest) -> Policy | None:
    if request.policy == EXPERT:
        return None
    if request.load_policy is None:
        raise TandemError(f"rollout: policy {request.policy} cannot be loaded in this process")
    return request.load_policy()


def _trials(
    request: RolloutRequest, policy: Policy | None, noise: float, envs: Sequence[gymnasium.Env]
) -> Iterator[_Trial]:
    """Finished trials as they finish; an environment that is free takes the next episode."""
    waiting = iter(range(request.episodes))
    running = [_Trial(index, env, request, policy) for env, index in zip(envs, waiting, strict=False)]
    while running:
        actions = _expert_actions(running) if policy is None else _policy_actions(running, policy)
        for trial, action in zip(running, actions, strict=True):
            source = Source.EXPERT if policy is None else Source.POLICY
            label = trial.episode.expert_action() if request.label else None
            if noise:
                action = action + noise * trial.noise.standard_normal(action.shape, np.float32)  # noqa: PLW2901
            trial.episode.step(action, source, label)
        still = []
        for trial in running:
            if not trial.episode.done:
                still.append(trial)
                continue
            yield trial
            index = next(waiting, None)
            if index is not None:
                still.append(_Trial(index, trial.env, request, policy))
        running = still


def _in_order(trials: Iterator[_Trial]) -> Iterator[_Trial]:
    """The same trials by index, each as soon as all before it are there."""
    early: dict[int, _Trial] = {}
    due = 0
    for trial in trials:
        early[trial.index] = trial
        while due in early:
            yield early.pop(due)
            due += 1


def _expert_actions(trials: Sequence[_Trial]) -> list[np.ndarray]:
    actions = []
    for trial in trials:
        begin = time.perf_counter()
        actions.append(trial.episode.expert_action())
        trial.latency_ms.append(1e3 * (time.perf_counter() - begin))
    return actions


def _policy_actions(trials: Sequence[_Trial], policy: Policy) -> list[np.ndarray]:
    """The next action of each; who has none left shares one inference, whose whole time counts for each."""
    for trial in trials:
        trial.player.observe(trial.episode.observation)
    asking = [trial for trial in trials if trial.player.wants_inference]
    if asking:
        histories = [trial.player.history for trial in asking]
        keys = [trial.player.noise_key for trial in asking]
        begin = time.perf_counter()
        chunks = policy.infer(histories, keys)
        latency_ms = 1e3 * (time.perf_counter() - begin)
        allowed = (len(asking), policy.chunk_size, policy.embodiment.action_dim)
        if chunks.shape != allowed or chunks.dtype != np.float32:
            raise TandemError(f"policy: chunks are {chunks.dtype} {chunks.shape} (allowed: float32 {allowed})")
        for trial, chunk in zip(asking, chunks, strict=True):
            trial.player.accept(chunk)
            trial.latency_ms.append(latency_ms)
    return [trial.player.answer()[0] for trial in trials]
