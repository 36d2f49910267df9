"""The rollout backend ``inprocess``: policy, environment and recorder in one process, without ROS.

With ``num_envs`` above 1, as many episodes run side by side and share each inference; a batch rounds
otherwise than single observations do, so that only ``num_envs=1`` is comparable bit for bit. With ``workers`` above 1,
as many processes run episodes, one at a time each, and this one stores them in order; what comes out is the same.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Self

import gymnasium
import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.policy import ChunkPlayer, Policy
from tandem_datasets.rollout import EXPERT, EpisodeResult, RolloutRequest
from tandem_datasets.workers import in_order
from tandem_sim import registry
from tandem_sim.disturbing import Disturber
from tandem_sim.episodes import Episode
from tandem_sim.recording import EpisodeWriter

DISTURBANCES = {"noise": "a standard deviation", "recovery": "disturbances a second"}


class _Trial:
    """One running episode with its playback, its disturbances and its latencies."""

    def __init__(self, index: int, env: gymnasium.Env, request: RolloutRequest, policy: Policy | None) -> None:
        seed = request.seed + index
        self.index, self.env = index, env
        self.episode = Episode(env, request.env.id, seed)
        self.player = ChunkPlayer(policy.n_action_steps, policy.n_obs_steps) if policy else ChunkPlayer(1)
        self.player.reset(seed)
        self.latency_ms: list[float] = []
        noise, recovery = (float(request.options.get(name, 0.0)) for name in DISTURBANCES)
        embodiment = env.unwrapped.embodiment  # type: ignore[attr-defined]
        # [seed] alone draws what the environment draws
        self.disturber = Disturber(embodiment, np.random.default_rng([seed, 1]), noise, recovery)

    def leave(self, images: bool) -> "_Trial":
        """Of a finished trial what another process needs; ``images``: with the pictures."""
        self.episode.leave(images)
        del self.env, self.player, self.disturber
        return self

    def result(self, info: EpisodeInfo) -> EpisodeResult:
        return EpisodeResult(self.index, info, len(self.episode.frames), tuple(self.latency_ms))


def run(request: RolloutRequest, on_episode: Callable[[EpisodeResult], None]) -> list[EpisodeResult]:
    """Runs the episodes; see :class:`tandem_datasets.rollout.RolloutBackend`.

    The backend's own options: ``noise`` is the standard deviation of Gaussian noise (in the action's units) that is
    added to each requested action; ``recovery`` is how many deliberate disturbances there are a second, see
    :mod:`tandem_sim.disturbing`. Labels stay without either. Stamps are a simulated clock that goes on from episode to
    episode, in an existing store from its last one.

    Raises:
        TandemError: a policy that does not fit, answers the wrong shape or not finitely; a bad request or store.
    """
    _check(request)
    provenance: dict[str, Any] = {"policy": request.policy, **request.provenance}
    provenance |= {name: value for name in DISTURBANCES if (value := float(request.options.get(name, 0.0)))}
    results = []
    found: Iterator[tuple[_Trial, dict[str, Any]]]
    with ExitStack() as stack:
        if min(request.workers, request.episodes) > 1:
            embodiment = registry.embodiment(request.env)
            each = in_order(_Worker(request), range(request.episodes), request.workers, "rollout")
            found = stack.enter_context(closing(each))
        else:
            here = stack.enter_context(_Place(request, min(request.num_envs, request.episodes)))
            embodiment = here.embodiment
            found = _in_order(here.trials(range(request.episodes)), here.identity)
        writer = stack.enter_context(EpisodeWriter(request.record, embodiment, provenance))
        for trial, identity in found:
            provenance |= identity
            result = trial.result(writer.write(trial.episode))
            results.append(result)
            on_episode(result)
    return results


class _Place:
    """Where episodes run: environments, and the policy where there is one."""

    def __init__(self, request: RolloutRequest, num_envs: int) -> None:
        self._request, self._policy, self._stack = request, _load(request), ExitStack()
        self._envs: list[gymnasium.Env] = []
        try:
            for _ in range(num_envs):
                self._envs.append(registry.make(request.env))
                self._stack.callback(self._envs[-1].close)
            self.embodiment: Embodiment = self._envs[0].unwrapped.embodiment  # type: ignore[attr-defined]
            self.identity: dict[str, Any] = {}
            if self._policy is not None:
                self._policy.embodiment.require_fit(self.embodiment, f"policy {request.policy}")
                self.identity = {"identity": self._policy.identity}
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def trials(self, indices: Sequence[int]) -> Iterator[_Trial]:
        """Finished trials of these episodes, as they finish."""
        return _trials(self._request, self._policy, self._envs, indices)


class _Worker:
    """Runs single episodes in a process of its own, on an environment that is made with the first one."""

    def __init__(self, request: RolloutRequest) -> None:
        self._request = request
        self._place: _Place | None = None

    def __call__(self, index: int) -> tuple[_Trial, dict[str, Any]]:
        self._place = self._place or _Place(self._request, 1)
        (trial,) = self._place.trials([index])
        return trial.leave(images=self._request.record is not None), self._place.identity


def _check(request: RolloutRequest) -> None:
    for name, value, least in (
        ("episodes", request.episodes, 1),
        ("num_envs", request.num_envs, 1),
        ("workers", request.workers, 1),
        ("seed", request.seed, 0),
    ):
        if value < least:
            raise TandemError(f"rollout: {name} is {value} (allowed: {least} and more)")
    if request.num_envs > 1 and request.workers > 1:
        raise TandemError(
            f"rollout: num_envs is {request.num_envs} and workers {request.workers} (allowed: one of them above 1)"
        )
    for name, what in DISTURBANCES.items():
        value = request.options.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise TandemError(f"rollout: {name} is {value!r} (allowed: {what} from 0)")


def _load(request: RolloutRequest) -> Policy | None:
    if request.policy == EXPERT:
        return None
    if request.load_policy is None:
        raise TandemError(f"rollout: policy {request.policy} cannot be loaded in this process")
    return request.load_policy()


def _trials(
    request: RolloutRequest, policy: Policy | None, envs: Sequence[gymnasium.Env], indices: Sequence[int]
) -> Iterator[_Trial]:
    """Finished trials as they finish; an environment that is free takes the next episode."""
    waiting = iter(indices)
    running = [_Trial(index, env, request, policy) for env, index in zip(envs, waiting, strict=False)]
    while running:
        actions = _expert_actions(running) if policy is None else _policy_actions(running, policy)
        for trial, action in zip(running, actions, strict=True):
            source = Source.EXPERT if policy is None else Source.POLICY
            label = trial.episode.expert_action() if request.label else None
            trial.episode.step(trial.disturber(action), source, label)
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


def _in_order(trials: Iterator[_Trial], identity: dict[str, Any]) -> Iterator[tuple[_Trial, dict[str, Any]]]:
    """The same trials by index, each as soon as all before it are there, with who acted in them."""
    early: dict[int, _Trial] = {}
    due = 0
    for trial in trials:
        early[trial.index] = trial
        while due in early:
            yield early.pop(due), identity
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
