"""Which environments there are, and how one is made from an :class:`~tandem_datasets.rollout.EnvSpec`."""

from typing import Any

import gymnasium

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.rollout import EnvSpec

_ENTRY_POINTS = {
    "tandem/BlockFind-v0": ("tandem_sim.blockfind.env:BlockFindEnv", "tandem_sim.blockfind.vector:BlockFindVectorEnv"),
}


def register() -> None:
    """Tells Gymnasium of every environment; a second call changes nothing."""
    for name, (single, vector) in _ENTRY_POINTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=single, vector_entry_point=vector)


def known() -> list[str]:
    """The Gymnasium ids of Tandem's own environments."""
    return sorted(_ENTRY_POINTS)


def make(spec: EnvSpec) -> gymnasium.Env:
    """The environment, unseeded. Its ``unwrapped`` has ``embodiment`` and ``task_description``.

    Raises:
        TandemError: unknown id, an option that the environment lacks or refuses, or no Tandem environment.
    """
    env = _call(gymnasium.make, spec, disable_env_checker=True)
    if not isinstance(getattr(env.unwrapped, "embodiment", None), Embodiment):
        env.close()
        raise TandemError(f"environment '{spec.id}': it describes no embodiment (allowed: {', '.join(known())})")
    return env


def make_vec(spec: EnvSpec, num_envs: int, **vector_options: Any) -> gymnasium.vector.VectorEnv:
    """``num_envs`` of the environment stepped together; errors as for :func:`make`."""
    return _call(gymnasium.make_vec, spec, num_envs=num_envs, **vector_options)


def embodiment(spec: EnvSpec) -> Embodiment:
    """What robot the environment simulates."""
    env = make(spec)
    try:
        return env.unwrapped.embodiment  # type: ignore[attr-defined]
    finally:
        env.close()


def _call(maker: Any, spec: EnvSpec, **fixed: Any) -> Any:
    if spec.id not in gymnasium.registry and ":" not in spec.id:
        raise unknown("environment", spec.id, known())
    try:
        return maker(spec.id, **fixed, **spec.options)
    except (TypeError, ValueError, ImportError, gymnasium.error.Error) as error:
        reason = " ".join(str(error).split()).partition(" was raised from the environment creator")[0]
        raise TandemError(f"environment '{spec.id}' with options {dict(spec.options)}: {reason}") from error
