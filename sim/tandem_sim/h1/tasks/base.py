"""What a task is: what it lays out, what it asks, and how it judges what became of it.

A task sees nothing but numbers (:class:`Seen`), so that one world and many
stepped together are judged by the same code.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import BRICK_HEIGHT, PLATE_HEIGHT, BrickSize
from tandem_sim.bricks.shapes import KINDS
from tandem_sim.h1.settings import Settings
from tandem_sim.h1.tasks.geometry import gap, local, tilt, wrapped, yaw

STILL_S = 0.5  # a success has to last this long
STILL_SPEED = 0.02  # m/s, of what lies still
STILL_TURN = 0.3  # rad/s
NEAR = 0.008  # m from the brick: the TCP of a gripper that holds it
CLEAR = 0.03  # m from the brick: the TCP of a gripper that has let go
GRIP_N = 0.5  # of a gripper that holds something
SEATED = 0.0005  # m: error of a seated brick's height
LEVEL = math.radians(2)  # error of a seated brick's orientation
MIDDLE = (0.335, 0.0)  # m, of the table as the tasks use it
FALLEN = 0.05  # m below the table top: a brick that fell off
ARMS = ("left", "right")
PLATE = -1  # the baseplate among slots
SIZES = {name: size for name, size in KINDS.items() if not size.plate}


@dataclass(frozen=True)
class Place:
    """Where a brick begins: its centre's (x, y) in the world and its yaw; on the table unless it is attached."""

    x: float  # m
    y: float  # m
    yaw: float  # rad


@dataclass(frozen=True)
class Attachment:
    """A brick that begins on top of another."""

    upper: int  # slot
    lower: int  # slot
    seat: Seat


@dataclass(frozen=True)
class Layout:
    """One episode, as it was drawn."""

    places: tuple[Place, ...]  # of the bricks by slot
    colours: tuple[str, ...]  # of the bricks by slot
    roles: tuple[int, ...]  # slots in the order of what they are to the task: the named one first, distractors last
    instruction: str
    attachments: tuple[Attachment, ...] = ()
    goal: tuple[float, float, float, float] | None = None  # x, y, z (m) and yaw (rad) of what is aimed at
    arm: str = ""  # the arm that is asked for, if one is

    def slot(self, role: int) -> int:
        """Which brick has a role."""
        return self.roles[role]


class Seen:
    """One world at the end of a control step, in plain lists, which are faster than arrays of this size."""

    __slots__ = ("_speeds", "forces", "poses", "seats", "tcps")

    def __init__(
        self,
        poses: list[list[float]],
        speeds: np.ndarray,
        tcps: list[list[float]],
        forces: tuple[float, float],
        seats: Mapping[tuple[int, int], Seat],
    ) -> None:
        self.poses = poses  # of the bricks by slot: x, y, z (m), quaternion w, x, y, z
        self._speeds = speeds
        self.tcps = tcps  # of the arms: x, y, z (m)
        self.forces = forces  # of the grips, N
        self.seats = seats  # what is attached, by (upper, lower) slots; the baseplate is PLATE

    @property
    def speeds(self) -> list[list[float]]:
        """Of the bricks by slot: linear (m/s, world), angular (rad/s, own frame). Read where the step ends only."""
        return self._speeds.tolist()


class Task(ABC):
    """One task in one world. It keeps what an episode's outcome depends on beside its end: what was held, or dropped.

    Args:
        settings: of the environment.
        table: height of the table top, m.
    """

    name: ClassVar[str]
    seconds: ClassVar[float]  # until truncation
    failures: ClassVar[tuple[str, ...]]  # outcome words beside "success" and "fell"
    default_distractors: ClassVar[int] = 0
    has_goal: ClassVar[bool] = False  # whether layouts have a goal, for the privileged state

    def __init__(self, settings: Settings, table: float) -> None:
        self.settings, self.table = settings, table
        self.height = BRICK_HEIGHT * settings.pitch  # m, of a brick without its studs
        self.sizes: tuple[BrickSize, ...] = self.choose_sizes()
        if len(self.sizes) > len(settings.colours):
            raise TandemError(
                f"H1: {len(self.sizes)} bricks in {len(settings.colours)} colours (allowed: a colour for each brick)"
            )
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout:
        """The current episode's."""
        if self._layout is None:
            raise TandemError("H1: there is no episode yet (call reset first)")
        return self._layout

    @property
    def horizon(self) -> int:
        """Control steps until truncation."""
        return self.settings.horizon or round(self.seconds * self.settings.rate_hz)

    @property
    def distractors(self) -> int:
        """How many bricks nobody asks for."""
        given = self.settings.distractors
        return self.default_distractors if given is None else given

    @property
    def needed(self) -> int:
        """How many bricks, the first of the roles, are no distractors."""
        return len(self.sizes) - self.distractors

    def plate(self) -> BrickSize | None:
        """The baseplate that the task has, fixed on the table's middle."""
        return None

    @abstractmethod
    def choose_sizes(self) -> tuple[BrickSize, ...]:
        """Sizes of the bricks by slot; the same for all episodes."""

    @abstractmethod
    def lay_out(self, rng: np.random.Generator) -> Layout:
        """Draws an episode. Wordings are drawn last, so that they change nothing else of it."""

    def begin(self, layout: Layout, seen: Seen) -> None:
        """Forgets the last episode; ``seen`` is how the new one starts."""
        self._layout = layout

    @abstractmethod
    def judge(self, seen: Seen) -> float:
        """How far it is, from 0 at the start to 1 once all parts hold; called once after each control step.

        Parts that take time to find out are asked for only where the others let them matter.
        """

    @abstractmethod
    def parts(self, seen: Seen) -> dict[str, bool]:
        """What a success asks for, by name, and whether it holds; of the step that was judged last."""

    @abstractmethod
    def failure(self, seen: Seen) -> str:
        """Of :attr:`failures`, what best says how an episode that ends unsolved went."""

    # what tasks ask of the world

    def moving(self, seen: Seen, slots: Sequence[int]) -> bool:
        """Whether one of the bricks is not at rest."""
        speeds = seen.speeds
        for slot in slots:
            vx, vy, vz, wx, wy, wz = speeds[slot]
            if vx * vx + vy * vy + vz * vz > STILL_SPEED**2 or wx * wx + wy * wy + wz * wz > STILL_TURN**2:
                return True
        return False

    def lift(self, seen: Seen, slot: int) -> float:
        """How far a brick's centre is above where it lies on the table, m."""
        return seen.poses[slot][2] - self.table - self.height / 2

    def half(self, slot: int) -> tuple[float, float, float]:
        """Half extents of a brick's box, m."""
        size, pitch = self.sizes[slot], self.settings.pitch
        return (size.nx * pitch / 2, size.ny * pitch / 2, self.height / 2)

    def held(self, seen: Seen, slot: int, arm: int) -> bool:
        """Whether a gripper has the brick between its fingers and presses."""
        return seen.forces[arm] > GRIP_N and gap(seen.poses[slot], self.half(slot), seen.tcps[arm]) < NEAR

    def clear(self, seen: Seen, slot: int) -> bool:
        """Whether both grippers are away from the brick."""
        return self.clear_of(seen, slot, 0) and self.clear_of(seen, slot, 1)

    def clear_of(self, seen: Seen, slot: int, arm: int) -> bool:
        """Whether one gripper is away from the brick."""
        return gap(seen.poses[slot], self.half(slot), seen.tcps[arm]) > CLEAR

    def upright(self, seen: Seen, slot: int) -> bool:
        """Whether a brick lies on its underside."""
        return tilt(seen.poses[slot]) <= LEVEL

    def seating(self, seen: Seen, upper: int, lower: int) -> dict[str, bool]:
        """Whether a brick sits on another one (or on ``PLATE``): its position, height, orientation and connection."""
        below, size = (self.plate_pose, self.plate()) if lower == PLATE else (seen.poses[lower], self.sizes[lower])
        assert size is not None
        pose, pitch = seen.poses[upper], self.settings.pitch
        x, y, z = local(below, pose)
        reach_x, reach_y = (count * pitch / 2 for count in (size.nx, size.ny))
        turned = yaw(pose) - yaw(below)
        up = (size.height + BRICK_HEIGHT) / 2 * pitch
        return {
            "position": abs(x) < reach_x + self.half(upper)[0] and abs(y) < reach_y + self.half(upper)[1],
            "height": abs(z - up) <= SEATED,
            "orientation": abs(tilt(pose) - tilt(below)) <= LEVEL and abs(wrapped(turned, math.pi / 2)) <= LEVEL,
            "connection": (upper, lower) in seen.seats,
        }

    @property
    def plate_pose(self) -> tuple[float, ...]:
        """Where the baseplate lies: its box's centre, and upright."""
        return (*MIDDLE, self.table + PLATE_HEIGHT * self.settings.pitch / 2, 1.0, 0.0, 0.0, 0.0)

    def radius(self, slot: int) -> float:
        """Of the circle around a brick, m."""
        size = self.sizes[slot]
        return math.hypot(size.nx, size.ny) * self.settings.pitch / 2

    def draw_colours(self, rng: np.random.Generator) -> tuple[str, ...]:
        """A colour for each brick, none twice."""
        colours = self.settings.colours
        return tuple(colours[k] for k in rng.permutation(len(colours))[: len(self.sizes)])

    def word(self, rng: np.random.Generator, phrases: Mapping[str, Sequence[str]], **names: str) -> str:
        """One of the setting's wordings, filled in."""
        choices = phrases[self.settings.wordings]
        return choices[int(rng.integers(len(choices)))].format(**names)


def size_name(size: BrickSize) -> str:
    """Such as ``2x4``."""
    return f"{size.nx}x{size.ny}"
