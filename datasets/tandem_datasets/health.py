"""What a check of this machine finds, for ``tandem doctor``.

Checks are found by the entry-point group ``tandem.checks``: each is a callable without arguments that gives findings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Health(StrEnum):
    """How a part of the machine is."""

    FINE = "fine"
    LIMITED = "limited"  # something does not work, or not well; the loop runs
    BROKEN = "broken"  # the loop does not run


@dataclass(frozen=True)
class Finding:
    """One line of ``tandem doctor``."""

    subject: str
    health: Health
    found: str
    advice: str = ""  # what to do about it; never empty unless all is fine
    values: Mapping[str, Any] = field(default_factory=dict)  # the same for machines (JSON)


Check = Callable[[], list[Finding]]
