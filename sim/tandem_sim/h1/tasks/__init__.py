"""The tasks of the H1 environments, a module each.

``base`` says what a task is, ``laying`` where bricks begin, ``geometry`` how they lie, ``plan`` what Build builds.
A task of your own: a subclass of ``base.Task``, its name in ``settings.TASKS`` and below, its id in ``registry``.
"""

from importlib import import_module

from tandem_sim.h1.settings import Settings
from tandem_sim.h1.tasks.base import Task

_CLASSES = {
    "reach": "Reach",
    "pick": "Pick",
    "place": "Place",
    "stack": "Stack",
    "handover": "Handover",
    "join": "Join",
    "build": "Build",
    "disassemble": "Disassemble",
}


def make(settings: Settings, table: float) -> Task:
    """The settings' task over a table of that height (m); raises TandemError if the settings do not fit it."""
    module = import_module(f"tandem_sim.h1.tasks.{settings.task}")
    return getattr(module, _CLASSES[settings.task])(settings, table)
