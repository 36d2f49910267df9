"""What an expert knows of the world: where bricks are, what they are called, who holds and who is attached."""

import math
from dataclasses import dataclass

from tandem_sim.bricks import grid
from tandem_sim.bricks.grid import Seat
from tandem_sim.bricks.parameters import BrickSize
from tandem_sim.h1.experts.arms import Goal
from tandem_sim.h1.tasks.base import LEVEL, PLATE, size_name
from tandem_sim.h1.tasks.geometry import gap, local, tilt, yaw
from tandem_sim.h1.world import World


@dataclass(frozen=True)
class Spot:
    """Where a brick's centre is, or should be; it stands upright."""

    x: float  # m, world
    y: float
    z: float
    yaw: float  # rad


class Sight:
    """Reads one world."""

    def __init__(self, world: World) -> None:
        self.world, self.task = world, world.task
        first, n = world.scene.brick_qpos, len(world.task.sizes)
        self._poses = world.data.qpos[first : first + 7 * n].reshape(n, 7)

    def reset(self) -> None:
        """A new episode."""

    def pose(self, slot: int) -> list[float]:
        """Of a brick or ``PLATE``: x, y, z (m) and quaternion."""
        return list(self.task.plate_pose) if slot == PLATE else self._poses[slot].tolist()

    def spot(self, slot: int) -> Spot:
        """Where a brick is."""
        pose = self.pose(slot)
        return Spot(pose[0], pose[1], pose[2], yaw(pose))

    def upright(self, slot: int) -> bool:
        """Whether a brick lies on its underside."""
        return tilt(self.pose(slot)) <= LEVEL

    def size(self, slot: int) -> BrickSize:
        """Of a brick or the plate."""
        size = self.task.plate() if slot == PLATE else self.task.sizes[slot]
        assert size is not None
        return size

    def name(self, slot: int) -> str:
        """Such as ``red 2x4``."""
        if slot == PLATE:
            return "plate"
        return f"{self.task.layout.colours[slot]} {size_name(self.task.sizes[slot])}"

    def attached(self, upper: int, lower: int) -> bool:
        """Whether a brick sits on another one or on ``PLATE``."""
        return (upper, lower) in self.seats

    @property
    def seats(self) -> dict[tuple[int, int], Seat]:
        """What is attached, by (upper, lower) slots."""
        return self.world.observer.seats(self.world.connections)

    def whole(self, slot: int) -> set[int]:
        """All bricks that hang together with one, itself among them, the plate too."""
        found = {slot}
        while True:
            more = {k for pair in self.seats if found & set(pair) for k in pair} | found
            if more == found:
                return found
            found = more

    def seat_spot(self, upper: int, lower: int, seat: Seat) -> Spot:
        """Where the upper brick is once it sits there."""
        below = self.spot(lower)
        x, y, z = grid.position(self.size(lower), self.size(upper), seat, self.world.settings.pitch)
        cos, sin = math.cos(below.yaw), math.sin(below.yaw)
        turned = below.yaw + seat.turns * math.pi / 2
        return Spot(below.x + cos * x - sin * y, below.y + sin * x + cos * y, below.z + z, turned)

    def beside(self, slot: int, tcp: Goal) -> float:
        """How far a TCP is from the brick's box, m; 0 inside of it."""
        return gap(self.pose(slot), self.task.half(slot), tcp.place.tolist())

    def within(self, slot: int, tcp: Goal) -> tuple[float, float, float]:
        """A TCP in the brick's own frame, m."""
        return local(self.pose(slot), tcp.place.tolist())
