"""Scripted experts of the H1 tasks, a module each. They act only through the action space.

``base`` says what an expert is, ``arms`` turns Cartesian motions into actions of either mode, ``skills`` are the
motions that tasks share, ``grasps`` and ``seats`` choose where to take a brick and where to put it. An expert may read
whatever the world knows, and writes nothing to it.

An expert of your own: a subclass of ``base.Expert`` in a module with the task's name, and its class below.
"""

from importlib import import_module

from tandem_datasets.errors import TandemError
from tandem_sim.h1.experts.base import Expert
from tandem_sim.h1.world import World

_CLASSES = {
    "reach": "ReachExpert",
    "pick": "PickExpert",
    "place": "PlaceExpert",
    "stack": "StackExpert",
    "build": "BuildExpert",
    "handover": "HandoverExpert",
    "join": "JoinExpert",
    "disassemble": "DisassembleExpert",
}


def make(world: World) -> Expert:
    """The expert of the world's task; raises TandemError if it has none."""
    name = world.settings.task
    if name not in _CLASSES:
        raise TandemError(f"H1: task '{name}' has no expert (allowed: {', '.join(_CLASSES)})")
    module = import_module(f"tandem_sim.h1.experts.{name}")
    return getattr(module, _CLASSES[name])(world)
