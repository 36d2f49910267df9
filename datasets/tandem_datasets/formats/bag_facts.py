"""What a recording of the contract's topics says of itself: whose topics, which robot, which episodes."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.bags import Bag
from tandem_datasets.frames import EpisodeInfo

METADATA = "tandem"
"""Name of the metadata record that carries the embodiment."""

RUNNING = "running"
"""What the ``episode`` message says at the begin; at the end it is the outcome."""

OFFSET = "log_offset_ns"
"""Key of the ``episode`` message in recordings made from a store: log times are stamps plus so much."""

UNFINISHED = "interrupted"
"""Outcome of an episode whose end was never told."""

_MAX_NS = 1 << 62


def contract_prefix(bag: Bag, namespace: str) -> str:
    """What the contract's topics begin with: the given namespace, or the only one that there is."""
    if namespace:
        return f"/{namespace.strip('/')}/"
    found = [topic.removesuffix("state") for topic in bag.topics if topic.rpartition("/")[2] == "state"]
    prefixes = [prefix for prefix in found if {prefix + "action", prefix + "step"} <= set(bag.topics)]
    if not prefixes:
        raise TandemError(
            f"{bag.where}: no topics state, action and step (a recording of something else needs map=...; it has: "
            f"{listed_topics(bag)})"
        )
    if len(prefixes) > 1:
        raise TandemError(f"{bag.where}: several robots (give namespace=, one of: {', '.join(sorted(prefixes))})")
    return prefixes[0]


def recorded_embodiment(bag: Bag) -> Embodiment:
    """The embodiment that the recording carries."""
    text = bag.metadata.get(METADATA, {}).get("embodiment", "")
    if not text:
        raise TandemError(f"{bag.where}: it does not say which embodiment it is of (give embodiment=<store or .json>)")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TandemError(f"{bag.where}: embodiment is damaged JSON: {str(error)[:100]}") from error
    return Embodiment.from_dict(data, f"{bag.where}: embodiment")


def facts_of(info: EpisodeInfo) -> dict[str, str]:
    """An episode's facts as texts, for the ``episode`` message."""
    values = {field.name: getattr(info, field.name) for field in fields(EpisodeInfo)}
    return {key: json.dumps(value) if key == "provenance" else str(value) for key, value in values.items()}


def info_from_facts(facts: Mapping[str, str], where: str) -> EpisodeInfo:
    """The inverse of :func:`facts_of`; other keys are ignored, missing ones have their defaults."""
    values: dict[str, Any] = {"seed": 0, "instruction": ""}
    for field in fields(EpisodeInfo):
        text = facts.get(field.name)
        if text is None:
            continue
        try:
            values[field.name] = _read_fact(field.type, text)
        except (ValueError, RecursionError):
            raise TandemError(f"{where}: {field.name} is '{text:.60}' (allowed: {field.type})") from None
    return EpisodeInfo(**values)


def _read_fact(kind: Any, text: str) -> Any:
    if kind is int:
        return whole_number(text)
    if kind is bool:
        return text == "True"
    if kind is str:
        return text
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no mapping")
    return found


def whole_number(text: str) -> int:
    """Raises ValueError unless ``text`` is a whole number that stamps can be compared with."""
    number = int(text[:24])
    if abs(number) >= _MAX_NS:
        raise ValueError(text)
    return number


def listed_topics(bag: Bag) -> str:
    """The bag's topics for an error message."""
    listed = ", ".join(sorted(bag.topics)[:20])
    return f"{listed:.400}" + (" ..." if len(bag.topics) > 20 else "") if listed else "none"
