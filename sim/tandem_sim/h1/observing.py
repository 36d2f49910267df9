"""What is observed of a world: the robot's state, where asked for also what no camera sees, and numbers to judge by."""

import mujoco
import numpy as np

from tandem_datasets.embodiment import StateScalar, StateSource
from tandem_sim.bricks.graph import Connections
from tandem_sim.bricks.grid import Seat
from tandem_sim.h1.scene import PLATE as PLATE_NAME
from tandem_sim.h1.scene import Scene, brick_name
from tandem_sim.h1.state import StateReader
from tandem_sim.h1.tasks.base import PLATE, Layout, Seen, Task

FORCES = slice(45, 48, 2)  # of the grips

_POSE = (("x", "m"), ("y", "m"), ("z", "m"), ("qw", "1"), ("qx", "1"), ("qy", "1"), ("qz", "1"))
_GOAL = (("x", "m"), ("y", "m"), ("z", "m"), ("yaw", "rad"))
_BOUND = {"m": 3.0, "1": 1.0, "rad": 7.0}


def privileged_scalars(task: Task) -> tuple[StateScalar, ...]:
    """The privileged state: poses of the bricks by role (0: the named one), the goal, and who sits on whom.

    A brick's quaternion has qw >= 0. Where the task aims at a place, that is ``goal``.
    """
    n = len(task.sizes)
    names = [(f"brick_{role}/{part}", unit) for role in range(n) for part, unit in _POSE]
    if task.has_goal:
        names += [(f"goal/{part}", unit) for part, unit in _GOAL]
    found = [StateScalar(name, unit, -_BOUND[unit], _BOUND[unit], StateSource.POSE, "world") for name, unit in names]
    found += [StateScalar(f"brick_{a}/on_{b}", "1", 0.0, 1.0, StateSource.POSE) for a, b in _pairs(task)]
    return tuple(found)


def _pairs(task: Task) -> list[tuple[int, str]]:
    n = len(task.sizes)
    below = [(upper, f"brick_{lower}") for upper in range(n) for lower in range(n) if upper != lower]
    return below + ([(upper, "plate") for upper in range(n)] if task.plate() is not None else [])


class Observer:
    """Makes states and what tasks judge by from a world's numbers, wherever those lie.

    Args:
        scene: what the numbers belong to.
        model: its model, or a copy.
        task: for the privileged state.
        privileged: whether that is wanted.
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, task: Task, privileged: bool) -> None:
        n = len(task.sizes)
        self.reader = StateReader(model)
        self._task, self._privileged, self._n = task, privileged, n
        self._qpos = slice(scene.brick_qpos, scene.brick_qpos + 7 * n)
        self._qvel = slice(scene.brick_dof, scene.brick_dof + 6 * n)
        self._slots = {brick_name(slot): slot for slot in range(n)} | {PLATE_NAME: PLATE}
        self._graph: Connections | None = None
        self._seats: dict[tuple[int, int], Seat] = {}

    def begin(self, layout: Layout) -> None:
        """A new episode; what is attached is read anew."""
        self._layout, self._graph = layout, None

    def poses(self, qpos: np.ndarray) -> np.ndarray:
        """Of the bricks by slot, (..., n, 7), from positions (..., nq); a view."""
        return qpos[..., self._qpos].reshape(*qpos.shape[:-1], self._n, 7)

    def speeds(self, qvel: np.ndarray) -> np.ndarray:
        """Of the bricks by slot, (..., n, 6), from velocities (..., nv); a view."""
        return qvel[..., self._qvel].reshape(*qvel.shape[:-1], self._n, 6)

    def state(self, own: np.ndarray, poses: np.ndarray, connections: Connections) -> np.ndarray:
        """(S,) float32: the robot's own (48,), and where wanted the privileged."""
        if not self._privileged:
            return own
        layout = self._layout
        poses = poses[list(layout.roles)]
        poses[poses[:, 3] < 0, 3:] *= -1.0
        goal = layout.goal if self._task.has_goal else ()
        assert goal is not None
        roles = {slot: role for role, slot in enumerate(layout.roles)}
        seats = {
            (roles[upper], "plate" if lower == PLATE else f"brick_{roles[lower]}")
            for upper, lower in self.seats(connections)
        }
        flags = [float(pair in seats) for pair in _pairs(self._task)]
        more = np.concatenate([poses.ravel(), goal, flags])
        return np.concatenate([own, more.astype(np.float32)])

    def seen(
        self,
        own: np.ndarray,
        poses: list[list[float]],
        speeds: np.ndarray,
        tcps: list[list[float]],
        connections: Connections,
    ) -> Seen:
        """What the task judges by."""
        force_l, force_r = own[FORCES].tolist()
        return Seen(poses, speeds, tcps, (force_l, force_r), self.seats(connections))

    def seats(self, connections: Connections) -> dict[tuple[int, int], Seat]:
        """What is attached, by (upper, lower) slots."""
        if connections is not self._graph:
            self._graph, slots = connections, self._slots
            self._seats = {(slots[edge.upper], slots[edge.lower]): edge.seat for edge in connections}
        return self._seats
