"""Which environments and drawn data sets there are, and how one is made."""

from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.rollout import EnvSpec

_H1 = ("tandem_sim.h1.env:H1Env", "tandem_sim.h1.vector:H1VectorEnv")
_H1_TASKS = ("reach", "pick", "place", "stack", "handover", "join", "build", "disassemble")
# id -> entry points of the single and of the vectorised environment, and what both are told beside the options
_ENTRY_POINTS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "tandem/BlockFind-v0": (
        "tandem_sim.blockfind.env:BlockFindEnv",
        "tandem_sim.blockfind.vector:BlockFindVectorEnv",
        {},
    ),
    **{f"tandem/H1{task.capitalize()}-v0": (*_H1, {"task": task}) for task in _H1_TASKS},
}
# Data sets without an environment, by name and by that of their embodiment; each module has write(path, count, seed)
# and ORIGIN, where its actions begin in the picture.
_DRAWN = {"blockfind_static": "tandem_sim.blockfind.static"}


def register() -> None:
    """Tells Gymnasium of every environment; a second call changes nothing."""
    for name, (single, vector, fixed) in _ENTRY_POINTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=single, vector_entry_point=vector, kwargs=dict(fixed))


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


def drawn() -> list[str]:
    """The names of the data sets that can be drawn without an environment."""
    return sorted(_DRAWN)


def draw(name: str, path: Path, count: int, seed: int) -> None:
    """Writes ``count`` samples of a drawn data set into a new store at ``path``; the same ones for the same seed.

    Raises:
        TandemError: unknown name, or the store cannot be made.
    """
    if name not in _DRAWN:
        raise unknown("drawn data set", name, drawn())
    import_module(_DRAWN[name]).write(path, count, seed)


def drawn_origin(name: str) -> tuple[float, float] | None:
    """Where the actions of a drawn data set begin, (x, y) as shares of the picture; None for any other name."""
    return import_module(_DRAWN[name]).ORIGIN if name in _DRAWN else None


def _call(maker: Any, spec: EnvSpec, **fixed: Any) -> Any:
    if spec.id not in gymnasium.registry and ":" not in spec.id:
        raise unknown("environment", spec.id, known())
    try:
        return maker(spec.id, **fixed, **spec.options)
    except (TypeError, ValueError, ImportError, gymnasium.error.Error) as error:
        reason = " ".join(str(error).split()).partition(" was raised from the environment creator")[0]
        raise TandemError(f"environment '{spec.id}' with options {dict(spec.options)}: {reason}") from error
