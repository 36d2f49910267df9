"""Handover: the left hand takes the brick by one end and offers it over the table's middle to the right one."""

from tandem_sim.h1.experts.arms import BRISK, LEFT, RIGHT, Goal
from tandem_sim.h1.experts.base import Steps
from tandem_sim.h1.experts.bimanual import MEET_UP, MEET_X, Bimanual
from tandem_sim.h1.experts.sight import Spot
from tandem_sim.h1.tasks.handover import Handover

OFF = 0.0285  # m from the brick's middle to either gripper: nearer, the wrists touch
READY = 0.05  # m over its grasp where the right gripper waits
UP = 0.06  # m that the left gripper rises once it let go
AWAY = 0.04  # m from the brick: the left gripper is out of the way


class HandoverExpert(Bimanual):
    """Both grippers point down and for a moment hold the brick by its ends, in the air."""

    def off(self, slot: int) -> float:
        return OFF

    def plan(self) -> Steps:
        assert isinstance(self.task, Handover)
        slot = self.task.layout.slot(0)
        left, right = (self.holds(arm, slot) for arm in (LEFT, RIGHT))
        if right and not left and not self.task.passed:  # the right hand took it by itself
            yield from self.lay_down(RIGHT, slot)
            right = False
        if not right:
            yield from self.offer(slot, left)
            yield from self.receive(slot)
        if self.sight.beside(slot, self.arms.tcp(LEFT)) < AWAY:
            yield from self.release(LEFT, slot)
            yield from self.retreat(LEFT, slot, UP)
        self.say(f"hold the {self.sight.name(slot)} with the right hand")

    def offer(self, slot: int, held: bool) -> Steps:
        """The left hand takes the brick, unless it has it, and brings it where the right one waits."""
        self.open(RIGHT)
        if not held:
            yield from self.grasp(LEFT, slot, self.best_end(LEFT, slot).grasp)
            yield from self.lift(LEFT, slot)
        yaw = self.meeting_yaw(LEFT, self.held_end(LEFT, slot))
        spot = Spot(MEET_X, 0.0, self.task.table + MEET_UP, yaw)
        waiting = self.taking(slot, spot).raised(READY)
        yield from self.at_once(
            f"offer the {self.sight.name(slot)} to the right hand",
            self.carry(LEFT, slot, lambda: spot, close=0.002),
            self.travel(RIGHT, lambda: waiting, hover=0.0, close=0.01),
        )

    def receive(self, slot: int) -> Steps:
        """The right hand takes the other end."""
        self.say(f"take the {self.sight.name(slot)} with the right hand")
        yield from self.straight(RIGHT, lambda: self.taking(slot, self.sight.spot(slot)), BRISK)
        yield from self.close(RIGHT, slot, self.best_end(RIGHT, slot, -self.held_end(LEFT, slot)).grasp)

    def taking(self, slot: int, spot: Spot) -> Goal:
        """The right TCP that takes the free end of the brick there."""
        return self.best_end(RIGHT, slot, -self.held_end(LEFT, slot)).grasp.goal(spot)
