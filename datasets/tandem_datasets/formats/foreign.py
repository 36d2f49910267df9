"""What every reader of foreign data needs: names, limits and identities that the data itself does not tell."""

import re
import uuid
from collections.abc import Sequence

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, StateScalar, StateSource
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import Source

UNIT = "1"  # of scalars whose unit nobody tells

_NAMESPACE = uuid.UUID("5b1d8c52-6b0f-5a0e-9d0e-3a5f3c1e7a11")


def plain_name(text: str) -> str:
    """``text`` as embodiments name things: lower case, digits and underscores, a letter first; may be empty."""
    clean = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return (clean if clean[:1].isalpha() or not clean else f"x{clean}")[:64]


def qualified_name(text: str) -> str:
    """The same with up to one slash, at the first slash or dot."""
    first, _, rest = text.replace("/", ".").partition(".")
    return "/".join(filter(None, (plain_name(first), plain_name(rest)))) or "x"


def data_limits(low: np.ndarray, high: np.ndarray) -> list[tuple[float, float]]:
    """Limits of scalars of which only the data's smallest and largest values are known, (D,) each.

    They are these values; one that never moved gets half a unit to both sides.
    """
    still = low >= high
    below, above = np.asarray(low, np.float64) - 0.5 * still, np.asarray(high, np.float64) + 0.5 * still
    return list(zip(below.tolist(), above.tolist(), strict=True))


def state_scalars(
    names: Sequence[tuple[str, StateSource]], limits: Sequence[tuple[float, float]]
) -> tuple[StateScalar, ...]:
    """Measurements of unknown unit; names that fit badly or collide become ``state_0``, ``state_1`` ..."""
    if len(names) != len(limits) or len(set(names)) != len(names) or not all(name for name, _ in names):
        kinds = [source for _, source in names] if len(names) == len(limits) else [StateSource.POSE] * len(limits)
        names = [(f"state_{index}", source) for index, source in enumerate(kinds)]
    return tuple(
        StateScalar(name, UNIT, low, high, source) for (name, source), (low, high) in zip(names, limits, strict=True)
    )


def action_scalars(
    names: Sequence[str], limits: Sequence[tuple[float, float]], kind: ActionKind = ActionKind.ABSOLUTE
) -> tuple[ActionScalar, ...]:
    """Commands of unknown unit; names that fit badly or collide become ``action_0``, ``action_1`` ..."""
    if len(names) != len(limits) or len(set(names)) != len(names) or not all(names):
        names = [f"action_{index}" for index in range(len(limits))]
    return tuple(ActionScalar(name, UNIT, low, high, kind) for name, (low, high) in zip(names, limits, strict=True))


def state_source(text: object, where: str) -> StateSource:
    """The source called ``text``; raises TandemError with the known ones otherwise."""
    if not isinstance(text, str) or text not in list(StateSource):
        raise unknown(where, str(text)[:40], list(StateSource))
    return StateSource(text)


def actor(text: str, where: str) -> Source:
    """Who acted in foreign episodes, which seldom tell; raises TandemError with the known ones otherwise."""
    names = {source.name.lower(): source for source in Source}
    if text not in names:
        raise unknown(f"{where}: actor", text[:40], names)
    return names[text]


def episode_uuid(identity: str, index: int) -> str:
    """The uuid of a foreign episode: always the same for the same data, so that importing twice is seen.

    Args:
        identity: what names the data set: its format, and a digest of what describes it.
        index: of the episode in it.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{identity}/{index}"))


def as_float32(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers of any plain kind as finite float32.

    Raises:
        TandemError: they are no numbers (objects, texts), or one is not finite.
    """
    if values.dtype.kind not in "fiub":
        raise TandemError(f"{where} has type {values.dtype} (allowed: numbers)")
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(found).all():
        raise TandemError(f"{where} is not finite in row {int(np.argwhere(~np.isfinite(found))[0][0])}")
    return found
