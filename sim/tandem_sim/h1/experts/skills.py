"""The motions that tasks share: travel, grasp, carry, press, release, retreat. Each ends once it holds, or fails.

All are steps of an :class:`~tandem_sim.h1.experts.base.Expert`: they command, then yield.
"""

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace

import numpy as np

from tandem_sim.bricks.grid import Seat
from tandem_sim.h1.experts.arms import BRISK, CALM, LEFT, RIGHT, Goal, Pace
from tandem_sim.h1.experts.base import Expert, Failed, Steps, together
from tandem_sim.h1.experts.grasps import Grasp
from tandem_sim.h1.experts.seats import Putting, best
from tandem_sim.h1.experts.sight import Spot
from tandem_sim.h1.tasks.base import CLEAR, NEAR
from tandem_sim.h1.tasks.geometry import wrapped
from tandem_sim.h1.wrist import MAX_WIDTH

SQUEEZE = 0.012  # m that a grip is commanded narrower than the brick
GENTLE = 0.005  # m: the same for a press, loose enough to let the fit turn the brick upright and to open at once
LOOSE = 1.0  # N of a grip that holds nothing any more
FIRM = 8.0  # N of a grip that holds a brick
OFF_WIDTH = 0.003  # m by which a held brick's width may seem other than it is
HOVER = 0.028  # m over its goal at which a gripper or a brick comes down straight
FUNNEL = 1.3  # m that a gripper may be higher for each m that it is beside its goal
BESIDE, ASKEW = 0.002, 0.06  # m and rad of the goal within which it comes down
SAFE = 0.075  # m over the table: brick and fingers are clear of bricks that lie there
LET_GO = 0.016  # m that a grip opens more than the brick is wide
PRESS_DEEP = 0.006  # m that a press may be commanded below where it meets
PRESSING = 0.03  # m/s of a brick that meets another, and presses
SLOW_FROM = 0.003  # m over the seat: at that speed from here on
TRIES = 3
ROOM = 0.16  # m between two grippers of which one works
ASIDE = (0.28, 0.27, 0.14)  # m, where a left gripper is in nobody's way: x, y, and over the table


class Skills(Expert):
    """An expert that has the skills."""

    # moving

    def travel(
        self,
        arm: int,
        goal: Callable[[], Goal],
        height: float = SAFE,
        pace: Pace = BRISK,
        hover: float = HOVER,
        close: float = 0.0015,
        holding: int | None = None,
        seconds: float = 6.0,
    ) -> Steps:
        """Up to a safe height, over to the goal and down on it, in one smooth curve.

        Args:
            goal: where the TCP should be, asked anew each step.
            height: of the TCP over the table on the way, m, unless the goal is higher.
            hover: m over the goal from where it comes straight down.
            close: m from the goal: arrived.
            holding: a brick that must not slip meanwhile.
        """
        for _ in range(self.steps(seconds)):
            aim, here = goal(), self.arms.target(arm)
            if self._arrived(arm, aim, close):
                return
            if holding is not None and not self.holds(arm, holding):
                raise Failed(f"lost the {self.sight.name(holding)}")
            top = max(self.task.table + height, aim.z + hover)
            aside = max(math.hypot(aim.x - here.x, aim.y - here.y), abs(wrapped(aim.yaw - here.yaw)) * BESIDE / ASKEW)
            least = aim.z if aside <= BESIDE else min(aim.z + hover + FUNNEL * (aside - BESIDE), top)
            across = min(max(1 - (least - here.z) / HOVER, 0.0), 1.0)
            self.arms.toward(arm, Goal(aim.x, aim.y, least, aim.yaw), pace, across)
            yield
        raise Failed("took too long to get there")

    def straight(
        self, arm: int, goal: Callable[[], Goal], pace: Pace = CALM, close: float = 0.0012, seconds: float = 3.0
    ) -> Steps:
        """Straight to the goal."""
        for _ in range(self.steps(seconds)):
            aim = goal()
            if self._arrived(arm, aim, close):
                return
            self.arms.toward(arm, aim, pace)
            yield
        raise Failed("took too long to get there")

    def _arrived(self, arm: int, aim: Goal, close: float) -> bool:
        here = self.arms.tcp(arm)
        away = here.place - aim.place
        return float(np.sqrt(away @ away)) <= close and abs(wrapped(here.yaw - aim.yaw)) <= 0.03

    def give_way(self, arm: int, *spots: Spot, seconds: float = 4.0) -> Steps:
        """Moves to the side if it is in the way of an arm that is going to work at one of the spots."""
        here = self.arms.target(arm)
        if all(math.hypot(here.x - spot.x, here.y - spot.y) > ROOM for spot in spots):
            return
        side, high = 1.0 if arm == LEFT else -1.0, self.task.table + ASIDE[2]
        goal = Goal(ASIDE[0], side * ASIDE[1], high, here.yaw)
        for _ in range(self.steps(seconds)):
            if self._arrived(arm, goal, 0.01):
                return
            risen = 1 - (high - self.arms.target(arm).z) / HOVER
            self.arms.toward(arm, goal, BRISK, min(max(risen, 0.0), 1.0))
            yield

    # holding

    def holds(self, arm: int, slot: int) -> bool:
        """Whether a gripper has the brick between its fingers and presses."""
        return self.arms.force(arm) > FIRM / 2 and self.sight.beside(slot, self.arms.tcp(arm)) < NEAR

    def holder(self, slot: int) -> int | None:
        """The arm that holds a brick, if one does."""
        return next((arm for arm in (LEFT, RIGHT) if self.holds(arm, slot)), None)

    def grasp(self, arm: int, slot: int, grasp: Grasp, height: float = SAFE) -> Steps:
        """Moves over the brick, comes down on it and takes it."""
        name = self.sight.name(slot)
        self.say(f"move above the {name}")
        self.arms.grip(arm, grasp.opening)
        above = grasp.goal(self.sight.spot(slot)).raised(HOVER)
        yield from self.travel(arm, lambda: grasp.goal(self.sight.spot(slot)).raised(HOVER), height, close=0.02)
        self.say(f"grasp the {name}")
        yield from self.travel(arm, lambda: grasp.goal(self.sight.spot(slot)), above.z - self.task.table)
        yield from self.close(arm, slot, grasp)

    def open(self, arm: int) -> None:
        """Commands the grip to open all the way."""
        self.arms.grip(arm, MAX_WIDTH)

    def close(self, arm: int, slot: int, grasp: Grasp, seconds: float = 1.0) -> Steps:
        """Closes on the brick until it is held."""
        self.arms.grip(arm, grasp.width - SQUEEZE)
        for _ in range(self.steps(seconds)):
            narrow = self.arms.width(arm) - grasp.width
            if narrow < -OFF_WIDTH:
                raise Failed(f"missed the {self.sight.name(slot)}")
            if self.arms.force(arm) > FIRM and narrow < OFF_WIDTH and self.holds(arm, slot):
                return
            yield
        raise Failed(f"could not grasp the {self.sight.name(slot)}")

    def held_at(self, arm: int, slot: int, spot: Spot) -> Goal:
        """The TCP with which the held brick would be there, by how it lies in the hand now."""
        tcp, now = self.arms.tcp(arm), self.sight.spot(slot)
        turn = wrapped(spot.yaw - now.yaw)
        cos, sin = math.cos(turn), math.sin(turn)
        x, y = tcp.x - now.x, tcp.y - now.y
        return Goal(
            spot.x + cos * x - sin * y, spot.y + sin * x + cos * y, spot.z + tcp.z - now.z, wrapped(tcp.yaw + turn)
        )

    # putting

    def put(self, arm: int, slot: int, lower: int, putting: Putting, height: float = SAFE) -> Steps:
        """Carries the held brick over its seat, presses it on and lets go."""
        name, below = self.sight.name(slot), self.sight.name(lower)

        def over() -> Goal:
            return self.held_at(arm, slot, self.sight.seat_spot(slot, lower, putting.seat)).raised(HOVER)

        self.say(f"carry the {name} over the {below}")
        yield from self.travel(arm, over, height, close=0.02, holding=slot)
        self.arms.grip(arm, self.arms.width(arm) - GENTLE)
        for _ in range(TRIES):
            self.say(f"align the {name} with the {below}")
            yield from self.travel(arm, over, height, close=0.0015, holding=slot)
            self.say(f"press the {name} onto the {below}")
            if (yield from self.press(arm, slot, lower, putting)):
                break
        else:
            raise Failed(f"the {name} does not go onto the {below}")

    def press(
        self, arm: int, slot: int, lower: int, putting: Putting, pressing: float = PRESSING, seconds: float = 5.0
    ) -> Generator[None, None, bool]:
        """Lowers the held brick onto its seat and presses until it is attached; returns whether it is.

        Args:
            pressing: m/s, at which the brick meets the lower one and the press grows.
        """
        aim = self.held_at(arm, slot, self.sight.seat_spot(slot, lower, putting.seat))
        for _ in range(self.steps(seconds)):
            if self.sight.attached(slot, lower):
                return True
            if not self.holds(arm, slot):
                raise Failed(f"lost the {self.sight.name(slot)}")
            if self.arms.tcp(arm).z - self.arms.target(arm).z > PRESS_DEEP:
                return False
            high = self.sight.spot(slot).z - self.sight.seat_spot(slot, lower, putting.seat).z
            if high > 0.003:
                aim = self.held_at(arm, slot, self.sight.seat_spot(slot, lower, putting.seat))
            speed = pressing + math.sqrt(CALM.acceleration * max(high - SLOW_FROM, 0.0))
            deep = Goal(aim.x, aim.y, aim.z - 2 * PRESS_DEEP, aim.yaw)
            self.arms.toward(arm, deep, replace(CALM, speed=speed))
            yield
        return False

    def release(self, arm: int, slot: int, seconds: float = 0.6) -> Steps:
        """Opens the grip as far as it needs; the arm presses on until the brick is free, so nothing peels it off."""
        self.say(f"let go of the {self.sight.name(slot)}")
        rest = self.arms.tcp(arm)
        wide = self.arms.width(arm) + LET_GO
        self.arms.grip(arm, wide)
        for _ in range(self.steps(seconds)):
            if self.arms.force(arm) < LOOSE:
                self.arms.toward(arm, rest, BRISK)
            if self.arms.width(arm) > wide - 0.006:
                return
            yield

    def retreat(self, arm: int, slot: int, up: float = 0.07) -> Steps:
        """Rises straight from a brick."""
        self.say(f"move away from the {self.sight.name(slot)}")
        here = self.arms.tcp(arm)
        away = here.raised(up)
        yield from self.straight(arm, lambda: away, BRISK, close=0.01)
        self.open(arm)

    def clear(self, slot: int) -> bool:
        """Whether both grippers are away from a brick, as tasks ask for."""
        return all(self.sight.beside(slot, self.arms.tcp(arm)) > CLEAR + 0.004 for arm in (LEFT, RIGHT))

    def leave(self, slot: int) -> Steps:
        """Lets go of a brick, and moves whatever gripper is too near away from it."""
        for arm in (LEFT, RIGHT):
            if self.sight.beside(slot, self.arms.tcp(arm)) <= CLEAR + 0.004:
                if self.arms.width(arm) < MAX_WIDTH - 0.02 and self.sight.beside(slot, self.arms.tcp(arm)) < NEAR:
                    yield from self.release(arm, slot)
                yield from self.retreat(arm, slot)

    def assemble(
        self, arm: int, upper: int, lower: int, seats: Iterable[tuple[Seat, float]], height: float = SAFE
    ) -> Steps:
        """Takes a brick, or goes on with one in hand, and presses it onto another at the best of the seats."""
        held = self.holder(upper)
        arm = arm if held is None else held
        putting = best(self.sight, arm, upper, lower, seats, self.arms.target(arm).yaw)
        spots = [self.sight.spot(upper), self.sight.spot(lower)]
        yield from together(self._assemble(arm, upper, lower, putting, height), self.give_way(1 - arm, *spots))

    def _assemble(self, arm: int, upper: int, lower: int, putting: Putting, height: float) -> Steps:
        if self.holder(upper) is None:
            yield from self.grasp(arm, upper, putting.grasp, height)
        yield from self.put(arm, upper, lower, putting, height)
