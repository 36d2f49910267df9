"""The wording from which the packaged tokenizer is built: how people ask a robot for things on a table."""

from collections.abc import Iterator
from itertools import product

COLOURS = (
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "white", "black", "grey", "gray", "brown",
    "magenta", "violet",
)  # fmt: skip
THINGS = ("block", "brick", "square", "cube", "plate", "one", "tile", "box", "piece", "tower", "bowl", "object")
VERBS = (
    "find", "go to", "move to", "reach", "touch", "pick up", "walk to", "drive to", "head for", "get to", "look for",
    "locate", "approach", "bring me", "hand over", "point at", "push", "show me", "navigate to", "where is",
)  # fmt: skip
RELATIONS = ("on top of", "next to", "left of", "right of", "under", "in front of", "behind", "above", "below", "onto")
SIZES = ("small", "big", "long", "2x2", "2x3", "2x4", "1x2", "1x4")
FRAMES = ("{}", "please {}", "{} please", "now {}", "robot, {}", "can you {}?", "you should {}.", "{} with both hands")
REQUESTS = (
    "stack the bricks", "build a tower", "open the gripper", "close the gripper", "give me the next one", "stop",
    "use your left hand", "use your right hand", "take it apart", "put it back", "wait for me", "what do you see?",
    "build a wall of four bricks", "put the bricks in the box", "hold it still", "follow the plan", "try it again",
)  # fmt: skip


def sentences() -> Iterator[str]:
    """All wordings, in a fixed order."""
    for verb, colour, thing in product(VERBS, COLOURS, THINGS):
        yield f"{verb} the {colour} {thing}"
    for colour, thing, relation, other in product(COLOURS, THINGS, RELATIONS, COLOURS[:6]):
        yield f"put the {colour} {thing} {relation} the {other} {thing}"
    for frame, verb, size, thing in product(FRAMES, VERBS, SIZES, THINGS):
        yield frame.format(f"{verb} the {size} {thing}")
    for frame, request in product(FRAMES, REQUESTS):
        yield from [frame.format(request)] * 20
