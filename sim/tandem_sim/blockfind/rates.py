"""How many control steps with images BlockFind takes a second of process CPU time, on one core."""

import time

import gymnasium
import numpy as np

ENV_ID = "tandem/BlockFind-v0"


def rate_single(repeats: int = 5, steps: int = 3000) -> list[float]:
    """Steps a CPU-second of one environment under random actions, episodes begun anew; one figure a repeat."""
    env = gymnasium.make(ENV_ID)
    env.reset(seed=0)
    actions = _actions((steps, 2))
    rates = []
    for repeat in range(repeats + 1):
        begin = time.process_time()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        if repeat:  # the first one warms up
            rates.append(steps / (time.process_time() - begin))
    env.close()
    return rates


def rate_vector(repeats: int = 5, steps: int = 300, num_envs: int = 64) -> list[float]:
    """The same over all of ``num_envs`` environments that step together, each with its image."""
    envs = gymnasium.make_vec(ENV_ID, num_envs=num_envs)
    envs.reset(seed=0)
    actions = _actions((steps, num_envs, 2))
    rates = []
    for repeat in range(repeats + 1):
        begin = time.process_time()
        for batch in actions:
            envs.step(batch)
        if repeat:
            rates.append(steps * num_envs / (time.process_time() - begin))
    envs.close()
    return rates


def _actions(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
