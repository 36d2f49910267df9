"""Finds policy types: every folder of this package that holds a ``config.py`` and a ``network.py`` is one.

``config.py`` names its dataclass ``Config`` and stays free of torch; ``network.py`` names its module ``Network``.
A type is imported only when it is asked for, and only from here: a file can choose among the folders, never a module.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import unknown
from tandem_policies.settings import PolicyConfig

if TYPE_CHECKING:
    from tandem_policies.network import PolicyNetwork

_ROOT = Path(__file__).parent


def policy_types() -> list[str]:
    """The names of all policy types, sorted; imports none of them."""
    return sorted(path.parent.name for path in _ROOT.glob("*/network.py") if path.with_name("config.py").is_file())


def config_class(name: str, where: str = "policy type") -> type[PolicyConfig]:
    """The config dataclass of a type; TandemError with the known types for another name."""
    return _module(name, "config", where).Config


def network_class(name: str, where: str = "policy type") -> "type[PolicyNetwork]":
    """The network class of a type (imports torch); TandemError with the known types for another name."""
    return _module(name, "network", where).Network


def create(type: str, embodiment: Embodiment, **config: Any) -> "PolicyNetwork":
    """A fresh network; ``config`` holds fields of the type's config dataclass, the others have its defaults.

    Raises:
        TandemError: no such type, no such field, a wrong value, or an embodiment that the type cannot serve.
    """
    return build(type, embodiment, config, f"policy '{type}'")


def build(name: str, embodiment: Embodiment, values: Mapping[str, Any], where: str) -> "PolicyNetwork":
    """:func:`create` for values that came from a file; ``where`` begins the error's line."""
    settings = config_class(name, where).from_dict(values, where)
    return network_class(name, where)(settings, embodiment)


def _module(name: str, part: str, where: str) -> Any:
    if name not in policy_types():
        raise unknown(where, str(name)[:80], policy_types())
    return importlib.import_module(f"tandem_policies.{name}.{part}")
