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
    """Reads one data of a scene, whose kinematics must be of its current positions.

    Args:
        scene: what the data belongs to.
        task: for the privileged state.
        privileged: whether that is wanted.
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, data: mujoco.MjData, task: Task, privileged: bool) -> None:
        n = len(task.sizes)
        self.reader = StateReader(model)
        self._data, self._task, self._privileged = data, task, privileged
        # views that stay valid as long as the data: looking them up costs more than reading them
        self._poses = data.qpos[scene.brick_qpos : scene.brick_qpos + 7 * n].reshape(n, 7)
        self._speeds = data.qvel[scene.brick_dof : scene.brick_dof + 6 * n].reshape(n, 6)
        self._sites = data.site_xpos
        self._tcps = np.array(scene.tcp_sites)
        self._slots = {brick_name(slot): slot for slot in range(n)} | {PLATE_NAME: PLATE}
        self._graph: Connections | None = None
        self._seats: dict[tuple[int, int], Seat] = {}

    def begin(self, layout: Layout) -> None:
        """A new episode; what is attached is read anew."""
        self._layout, self._graph = layout, None

    def state(self, connections: Connections) -> np.ndarray:
        """(S,) float32, the robot's and, where wanted, the privileged."""
        own = self.reader.read(self._data)
        if not self._privileged:
            return own
        poses = self._poses[list(self._layout.roles)]
        poses[poses[:, 3] < 0, 3:] *= -1.0
        goal = self._layout.goal if self._task.has_goal else ()
        assert goal is not None
        roles = {slot: role for role, slot in enumerate(self._layout.roles)}
        seats = {(roles[upper], f"brick_{roles[lower]}" if lower != PLATE else "plate") for upper, lower in
                 self.seats(connections)}  # fmt: skip
        flags = [float(pair in seats) for pair in _pairs(self._task)]
        more = np.concatenate([poses.ravel(), goal, flags])
        return np.concatenate([own, np.clip(more, -7.0, 7.0).astype(np.float32)])

    def seen(self, connections: Connections, state: np.ndarray) -> Seen:
        """What the task judges by."""
        width_l, force_l, width_r, force_r = state[44:48].tolist()
        return Seen(
            self._poses.tolist(),
            self._speeds,
            self._sites[self._tcps].tolist(),
            (width_l, width_r),
            (force_l, force_r),
            self.seats(connections),
        )

    def seats(self, connections: Connections) -> dict[tuple[int, int], Seat]:
        """What is attached, by (upper, lower) slots."""
        if connections is not self._graph:
            self._graph, slots = connections, self._slots
            self._seats = {(slots[edge.upper], slots[edge.lower]): edge.seat for edge in connections}
        return self._seats
