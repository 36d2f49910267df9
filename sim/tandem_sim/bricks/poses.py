"""Small rigid-body algebra: places (3,) in m and unit quaternions (w, x, y, z)."""

from collections.abc import Sequence

import mujoco
import numpy as np

from tandem_sim.bricks.shapes import Brick

Pose = tuple[np.ndarray, np.ndarray]


def multiply(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    """The turn that does ``b`` first, then ``a``."""
    w, x, y, z = a
    i, j, k, m = b
    return np.array(
        [
            w * i - x * j - y * k - z * m,
            w * j + x * i + y * m - z * k,
            w * k - x * m + y * i + z * j,
            w * m + x * k - y * j + z * i,
        ]
    )


def matrix(turn: Sequence[float] | np.ndarray) -> np.ndarray:
    """The turn's axes as columns, (3, 3)."""
    w, x, y, z = turn
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotate(turn: Sequence[float] | np.ndarray, point: Sequence[float] | np.ndarray) -> np.ndarray:
    return matrix(turn) @ np.asarray(point, float)


def back(turn: np.ndarray) -> np.ndarray:
    """The opposite turn."""
    return turn * (1.0, -1.0, -1.0, -1.0)


def inverse(pose: Pose) -> Pose:
    """Of the outer frame in the inner one."""
    turn = back(pose[1])
    return -rotate(turn, pose[0]), turn


def then(outer: Pose, inner: Pose) -> Pose:
    """Of c in a, from that of b in a and that of c in b."""
    return outer[0] + rotate(outer[1], inner[0]), multiply(outer[1], inner[1])


def relative(a: Pose, b: Pose) -> Pose:
    """Of b in a's frame, from both in the world."""
    return then(inverse(a), b)


def pose_of(data: mujoco.MjData, brick: Brick) -> Pose:
    """Of a brick in the world: after the last substep for a free one, after the last kinematics for a fast one."""
    if brick.fixed:
        return data.xpos[brick.body].copy(), data.xquat[brick.body].copy()
    pose = data.qpos[brick.qpos : brick.qpos + 7]
    return pose[:3].copy(), pose[3:] / np.sqrt(pose[3:] @ pose[3:])
