"""Plans of what to build, as text: ``red 2x4 on blue 2x4, shifted by one stud; green 2x2 on red 2x4, turned``.

A plan is one or more steps, separated by ``;``. A step puts a brick on one that is there already; the first one's
lower brick is the base. After a comma come ``shifted by <n> stud(s)``, lengthwise along the lower brick or
``sideways``, either or both (``shifted by one stud and one stud sideways``), and ``turned``, by a quarter. Where an odd
number of studs meets an even one, a brick sits half a stud beside the middle. Which way a shift goes is left open, so
that a mirrored seat answers the same text; where two bricks on one need different ways, one goes ``the other way``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandem_datasets.errors import TandemError, unknown
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.bricks.shapes import COLOURS
from tandem_sim.h1.tasks.base import SIZES, size_name

MOST_BRICKS = 6
MOST_TEXT = 600  # characters
_NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_STEP = re.compile(r"(?P<upper>\w+ \w+) on (?:the )?(?P<lower>\w+ \w+)(?P<how>(?: ?,.*)?)")
_SHIFT = re.compile(r"(?P<count>\w+) studs?(?: (?P<way>lengthwise|sideways))?(?P<back> the other way)?")


@dataclass(frozen=True)
class Step:
    """One brick on another."""

    upper: int  # index of the plan's bricks
    lower: int
    seat: Seat  # of the upper on the lower, or its mirror image


@dataclass(frozen=True)
class Plan:
    """What to build: its first brick lies on the table.

    Raises:
        TandemError: it collides with itself or cannot stand.
    """

    colours: tuple[str, ...]
    sizes: tuple[BrickSize, ...]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        _check(self)

    @property
    def text(self) -> str:
        """The plan in words, as :func:`parse` reads them."""
        return "; ".join(self._words(step) for step in self.steps)

    def name(self, brick: int) -> str:
        """Such as ``red 2x4``."""
        return f"{self.colours[brick]} {size_name(self.sizes[brick])}"

    def _words(self, step: Step) -> str:
        words = f"{self.name(step.upper)} on {self.name(step.lower)}"
        lower = self.sizes[step.lower]
        rest = middle_seat(self.sizes[step.upper], lower, step.seat.turns)
        moved = (step.seat.i - rest.i, step.seat.j - rest.j)
        ways = zip(_axes(lower), ("", " sideways"), strict=True)
        shifts = [_studs(moved[axis], way) for axis, way in ways if moved[axis]]
        if shifts:
            words += f", shifted by {' and '.join(shifts)}"
        return words + (", turned" if step.seat.turns else "")


def parse(text: str) -> Plan:
    """A plan from its text.

    Raises:
        TandemError: it cannot be read, names a brick twice, builds on one that is not there, collides or cannot stand.
    """
    if len(text) > MOST_TEXT:
        raise TandemError(f"plan: {len(text)} characters (allowed: at most {MOST_TEXT})")
    names: list[str] = []
    steps: list[Step] = []
    for part in " ".join(text.lower().split()).rstrip(".").split(";"):
        phrase = part.strip()
        match = _STEP.fullmatch(phrase)
        if match is None:
            raise TandemError(
                f"plan: cannot read '{phrase}' (allowed: <colour> <size> on <colour> <size>"
                "[, shifted by <n> studs [sideways]][, turned])"
            )
        upper, lower = match["upper"], match["lower"]
        if not names:
            names.append(lower)
        if lower not in names:
            raise TandemError(f"plan: '{phrase}' builds on '{lower}', which is not there (allowed: {', '.join(names)})")
        if upper in names:
            raise TandemError(f"plan: '{upper}' is placed twice (allowed: each brick once)")
        names.append(upper)
        if len(names) > MOST_BRICKS:
            raise TandemError(f"plan: more than {MOST_BRICKS} bricks (allowed: 2 to {MOST_BRICKS})")
        base = names.index(lower)
        steps.append(Step(len(names) - 1, base, _how(match["how"], _size(upper), _size(lower), phrase)))
    return Plan(tuple(_colour(name) for name in names), tuple(_size(name) for name in names), tuple(steps))


def draw(rng: np.random.Generator, colours: Sequence[str], sizes: Sequence[BrickSize]) -> Plan:
    """A tower of the bricks in their order, each shifted by up to one stud; the first one lies below."""
    while True:
        steps = []
        for upper in range(1, len(sizes)):
            lower = upper - 1
            kind = int(rng.integers(4))  # in the middle, twice as often lengthwise, or sideways
            along, across = ((0, 0), (1, 0), (1, 0), (0, 1))[kind]
            steps.append(Step(upper, lower, shifted_seat(sizes[upper], sizes[lower], along, across)))
        try:
            return Plan(tuple(colours), tuple(sizes), tuple(steps))
        except TandemError:
            continue


def middle_seat(upper: BrickSize, lower: BrickSize, turns: int = 0) -> Seat:
    """An unshifted brick's: in the middle, or half a stud towards the corner of x and y where odd meets even."""
    wide, deep = upper.footprint(turns)
    return Seat((lower.nx - wide) // 2, (lower.ny - deep) // 2, turns)


def shifted_seat(upper: BrickSize, lower: BrickSize, along: int, across: int, turns: int = 0) -> Seat:
    """The seat ``along`` studs lengthwise of the lower brick and ``across`` sideways from the middle one."""
    rest = middle_seat(upper, lower, turns)
    moved = [0, 0]
    for axis, studs in zip(_axes(lower), (along, across), strict=True):
        moved[axis] = studs
    return Seat(rest.i + moved[0], rest.j + moved[1], turns)


def same_seat(wanted: Seat, found: Seat, upper: BrickSize, lower: BrickSize) -> bool:
    """Whether a seat answers the plan's: itself, or mirrored lengthwise or sideways; bricks look alike half turned."""
    if (wanted.turns - found.turns) % 2:
        return False
    wide, deep = upper.footprint(wanted.turns)
    return found.i in (wanted.i, lower.nx - wide - wanted.i) and found.j in (wanted.j, lower.ny - deep - wanted.j)


def _axes(lower: BrickSize) -> tuple[int, int]:
    """Which axis is lengthwise and which sideways."""
    return (0, 1) if lower.nx >= lower.ny else (1, 0)


def _studs(moved: int, way: str) -> str:
    count = abs(moved)
    word = next((name for name, value in _NUMBERS.items() if value == count), str(count))
    return f"{word} stud{'s' * (count != 1)}{way}{' the other way' * (moved < 0)}"


def _how(text: str, upper: BrickSize, lower: BrickSize, phrase: str) -> Seat:
    """The seat of what follows the names, such as ``, shifted by one stud, turned``."""
    along = across = turns = 0
    for part in (piece.strip() for piece in text.split(",")[1:]):
        if part == "turned":
            turns = 1
        elif part.startswith("shifted by "):
            for piece in part.removeprefix("shifted by ").split(" and "):
                match = _SHIFT.fullmatch(piece)
                count = None if match is None else _number(match["count"])
                if match is None or count is None:
                    raise TandemError(f"plan: cannot read '{piece}' in '{phrase}' (allowed: <n> studs [sideways])")
                if match["back"]:
                    count = -count
                if match["way"] == "sideways":
                    across += count
                else:
                    along += count
        else:
            raise TandemError(f"plan: cannot read '{part}' in '{phrase}' (allowed: shifted by <n> studs, turned)")
    return shifted_seat(upper, lower, along, across, turns)


def _number(word: str) -> int | None:
    if word in _NUMBERS:
        return _NUMBERS[word]
    return int(word) if word.isdecimal() and len(word) <= 2 else None


def _colour(name: str) -> str:
    colour = name.split(maxsplit=1)[0]
    if colour not in COLOURS:
        raise unknown("plan: colour", colour, COLOURS)
    return colour


def _size(name: str) -> BrickSize:
    size = name.split()[1]
    if size not in SIZES:
        raise unknown("plan: brick", size, SIZES)
    return SIZES[size]


@dataclass(frozen=True)
class _Block:
    """A brick within the assembly, in half studs of the base's frame."""

    x: int
    y: int
    level: int
    turns: int
    wide: int  # half extent along x
    deep: int  # half extent along y


def _check(plan: Plan) -> None:
    blocks = {0: _Block(0, 0, 0, 0, plan.sizes[0].nx, plan.sizes[0].ny)}
    for step in plan.steps:
        block = _on(blocks[step.lower], step.seat, plan.sizes[step.upper], plan.sizes[step.lower])
        if not _overlap(block, blocks[step.lower]):
            raise TandemError(
                f"plan: {plan.name(step.upper)} cannot stand on {plan.name(step.lower)}: "
                "no stud is shared (allowed: shifts that leave one)"
            )
        for other, there in blocks.items():
            if there.level >= block.level and _overlap(block, there):  # bricks come from above
                raise TandemError(
                    f"plan: {plan.name(step.upper)} collides with {plan.name(other)} (allowed: a place each)"
                )
        blocks[step.upper] = block
        if not _stands(blocks, plan.sizes):
            raise TandemError(
                f"plan: with {plan.name(step.upper)} it cannot stand: it tips over its base (allowed: smaller shifts)"
            )


def _on(lower: _Block, seat: Seat, size: BrickSize, below: BrickSize) -> _Block:
    wide, deep = size.footprint(seat.turns)
    dx, dy = 2 * seat.i + wide - below.nx, 2 * seat.j + deep - below.ny
    for _ in range(lower.turns):
        dx, dy = -dy, dx
    turns = (lower.turns + seat.turns) % 4
    wide, deep = size.footprint(turns)
    return _Block(lower.x + dx, lower.y + dy, lower.level + 1, turns, wide, deep)


def _overlap(a: _Block, b: _Block) -> bool:
    return abs(a.x - b.x) < a.wide + b.wide and abs(a.y - b.y) < a.deep + b.deep


def _stands(blocks: dict[int, _Block], sizes: Sequence[BrickSize]) -> bool:
    """Whether the whole's centre of mass lies over the base, by half a stud and more."""
    mass = [sizes[k].nx * sizes[k].ny for k in blocks]
    x = sum(m * block.x for m, block in zip(mass, blocks.values(), strict=True)) / sum(mass)
    y = sum(m * block.y for m, block in zip(mass, blocks.values(), strict=True)) / sum(mass)
    base = blocks[0]
    return abs(x) <= base.wide - 1 and abs(y) <= base.deep - 1
