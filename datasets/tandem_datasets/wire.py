"""Which value of an observation travels in which ROS 2 message, for live graphs and recordings alike. Knows no ROS."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tandem_datasets.embodiment import Embodiment, StateSource
from tandem_datasets.frames import Source

COLUMNS = {
    StateSource.JOINT_POSITION: "position",
    StateSource.JOINT_VELOCITY: "velocity",
    StateSource.JOINT_EFFORT: "effort",
}
"""Field of sensor_msgs/JointState in which a joint's scalar travels."""

SOURCES = {source: source.name.lower() for source in Source}
"""What ``frame_id`` of an action says about who acted."""

STEP_NAMES = ("reward", "terminated", "truncated", "success")


@dataclass(frozen=True)
class StepOutcome:
    """What a control step led to."""

    reward: float
    terminated: bool
    truncated: bool
    success: bool

    @property
    def last(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class StateLayout:
    """How a state vector is split over ``joint_states`` (joints) and ``state`` (everything else)."""

    embodiment: Embodiment
    joints: tuple[str, ...] = field(init=False)  # each joint once, in the order of its first scalar
    scalars: tuple[str, ...] = field(init=False)  # qualified names of the others

    def __post_init__(self) -> None:
        joints = [scalar.name for scalar in self.embodiment.state if scalar.source.is_joint]
        object.__setattr__(self, "joints", tuple(dict.fromkeys(joints)))
        others = [scalar.name for scalar in self.embodiment.state if not scalar.source.is_joint]
        object.__setattr__(self, "scalars", tuple(others))

    @cached_property
    def scalar_indices(self) -> np.ndarray:
        """Where ``scalars`` stand in the state vector."""
        return np.array([i for i, scalar in enumerate(self.embodiment.state) if not scalar.source.is_joint], np.intp)

    @cached_property
    def columns(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per used column: (indices into ``joints``, indices into the state vector)."""
        found: dict[str, tuple[list[int], list[int]]] = {}
        for index, scalar in enumerate(self.embodiment.state):
            if scalar.source.is_joint:
                joints, state = found.setdefault(COLUMNS[scalar.source], ([], []))
                joints.append(self.joints.index(scalar.name))
                state.append(index)
        return {column: (np.array(a, np.intp), np.array(b, np.intp)) for column, (a, b) in found.items()}

    def joint_columns(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Per used column float64 (joints,); NaN where a joint has no such measurement."""
        columns = {}
        for column, (joints, indices) in self.columns.items():
            values = np.full(len(self.joints), np.nan)
            values[joints] = state[indices]
            columns[column] = values
        return columns

    def join(self, scalars: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        """The state vector, float32 (S,), from both messages' values."""
        state = np.empty(self.embodiment.state_dim, np.float32)
        state[self.scalar_indices] = scalars
        for column, (joints, indices) in self.columns.items():
            state[indices] = columns[column][joints]
        return state
