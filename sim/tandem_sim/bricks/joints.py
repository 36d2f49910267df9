"""A connection in the making or made: its weld, the way to its seat, and what its fit can bear."""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_sim.bricks import grid
from tandem_sim.bricks.graph import Connection
from tandem_sim.bricks.loads import Fit
from tandem_sim.bricks.poses import Pose, inverse, rotate
from tandem_sim.bricks.shapes import Brick


@dataclass(eq=False)
class Joint:
    """One connection with its weld; ``first`` and ``second`` are the weld's bodies, in the model's order."""

    edge: Connection
    pair: int
    weld: int
    first: Brick
    second: Brick
    start: Pose
    """Of the second brick in the first one's frame when it locked."""
    goal: Pose
    """The same when seated."""
    anchor: np.ndarray
    """The middle of the engaged studs in the second brick's frame, m: where the weld holds."""
    age: int
    """Substeps since it locked."""
    waiting: bool
    """Closes a loop: its weld comes when the rest of the loop has found its place."""
    overloaded: int = 0
    """Substeps in a row with more load than it holds."""

    @property
    def lower(self) -> Brick:
        return self.first if self.first.name == self.edge.lower else self.second

    @property
    def upper(self) -> Brick:
        return self.second if self.first.name == self.edge.lower else self.first

    def aim(self, model: mujoco.MjModel, ramp: int) -> None:
        """Writes the weld's pose: on the way from where the pair locked to the grid, without a jerk."""
        part = min(1.0, self.age / ramp)
        part = part * part * (3 - 2 * part)
        place = self.start[0] + part * (self.goal[0] - self.start[0])
        turn = self.start[1] + part * (self.goal[1] - self.start[1])
        turn /= np.sqrt(turn @ turn)
        row = model.eq_data[self.weld]
        row[:3] = self.anchor
        row[3:6] = place + rotate(turn, self.anchor)
        row[6:10] = turn
        row[10] = 1.0

    def fit(self, pull: float) -> Fit:
        """What :class:`.loads.Loads` needs; ``pull`` in N a stud."""
        lower, upper = self.lower, self.upper
        columns, rows = grid.covered(lower.size, upper.size, self.edge.seat)
        sides = len(columns) * lower.pitch, len(rows) * lower.pitch
        if upper is self.second and self.edge.seat.turns % 2:
            sides = sides[1], sides[0]
        return Fit(
            weld=self.weld,
            lower_body=lower.body,
            second_body=self.second.body,
            upper_is_second=upper is self.second,
            sides=sides,
            strength=self.edge.studs * pull,
            geoms=(lower.geom, upper.geom),
            anchor=self.anchor,
        )


def join(edge: Connection, pair: int, weld: int, bricks: Sequence[Brick], now: Pose, age: int, waiting: bool) -> Joint:
    """A joint of the two ``bricks`` (in the model's order), of which the second is at ``now`` in the first's frame."""
    first, second = bricks
    lower, upper = (first, second) if first.name == edge.lower else (second, first)
    goal = edge.seat.pose(lower.size, upper.size, lower.pitch)
    meeting = grid.middle(lower.size, upper.size, edge.seat, lower.pitch)
    anchor = np.array(grid.to_upper(meeting, goal[0].tolist(), edge.seat.turns))
    if lower is second:
        goal, anchor = inverse(goal), np.array(meeting)
    if float(now[1] @ goal[1]) < 0:
        goal = goal[0], -goal[1]
    return Joint(edge, pair, weld, first, second, now, goal, anchor, age, waiting)
