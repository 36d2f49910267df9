"""Small geometry on plain numbers. Poses are (x, y, z, w, x, y, z): metres and a unit quaternion."""

import math
from collections.abc import Sequence

Pose = Sequence[float]
Point = Sequence[float]


def distance(a: Point, b: Point) -> float:
    """Between two points, of whose coordinates the first three count."""
    return math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


def local(pose: Pose, point: Point) -> tuple[float, float, float]:
    """A world point in the frame of ``pose``."""
    vx, vy, vz = point[0] - pose[0], point[1] - pose[1], point[2] - pose[2]
    w, x, y, z = pose[3], -pose[4], -pose[5], -pose[6]
    tx, ty, tz = 2 * (y * vz - z * vy), 2 * (z * vx - x * vz), 2 * (x * vy - y * vx)
    return (
        vx + w * tx + y * tz - z * ty,
        vy + w * ty + z * tx - x * tz,
        vz + w * tz + x * ty - y * tx,
    )


def gap(pose: Pose, half: Point, point: Point) -> float:
    """Distance of a world point from a box with half extents ``half``; 0 inside of it."""
    x, y, z = (max(abs(value) - side, 0.0) for value, side in zip(local(pose, point), half, strict=True))
    return math.sqrt(x * x + y * y + z * z)


def tilt(pose: Pose) -> float:
    """Angle between the pose's z axis and the world's, rad."""
    return math.acos(min(max(1 - 2 * (pose[4] * pose[4] + pose[5] * pose[5]), -1.0), 1.0))


def yaw(pose: Pose) -> float:
    """Turn about the vertical, rad in (-pi, pi]."""
    w, x, y, z = pose[3:7]
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def wrapped(angle: float, period: float = 2 * math.pi) -> float:
    """The same angle within half a period of 0."""
    return angle - period * round(angle / period)
