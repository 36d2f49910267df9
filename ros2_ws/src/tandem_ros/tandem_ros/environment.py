"""The environment variables under which Tandem's ROS processes run, and the shared memory that they leave."""

import fcntl
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PROFILE = Path(__file__).with_name("fastdds.xml")
SHARED_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 256 << 20  # of shared memory, for a handful of participants with 32 MB each
_WHEEL_LIBRARIES = re.compile(r"/ros_\w+\.libs$")
_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
_STALE_S = 30.0


def ros_settings(present: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment ``present`` before rclpy starts; what the user has set stays.

    Discovery stays on this machine. Fast DDS gets a larger shared-memory segment, except where there is
    little shared memory (containers have 64 MB by default): there only large images suffer.
    """
    settings = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if _shared_memory_bytes() >= _NEEDED_BYTES:
        settings["FASTDDS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
    return {name: value for name, value in settings.items() if name not in present}


def prepare_this_process() -> None:
    """Sets :func:`ros_settings` for this process and its children; call it before ``rclpy.init``."""
    os.environ.update(ros_settings(os.environ))


def child_environment(domain_id: int, present: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment for a node's process.

    The ROS wheels re-execute Python with their libraries on ``LD_LIBRARY_PATH`` and mark that as done. Both the mark
    and those entries are taken out again, so that a child's own Python does it afresh.
    """
    base = dict(os.environ if present is None else present)
    if base.pop(_BOOTSTRAPPED, None):
        paths = base.pop("LD_LIBRARY_PATH", "").split(os.pathsep)
        prefixes = {str(Path(path).parents[3]) for path in paths if _WHEEL_LIBRARIES.search(path)}
        added = {f"{prefix}/lib" for prefix in prefixes}
        kept = [path for path in paths if path and not _WHEEL_LIBRARIES.search(path) and path not in added]
        if kept:
            base["LD_LIBRARY_PATH"] = os.pathsep.join(kept)
    base |= ros_settings(base)
    return base | {"ROS_DOMAIN_ID": str(domain_id), "PYTHONUNBUFFERED": "1"}


def sweep_shared_memory(folder: Path = SHARED_MEMORY) -> int:
    """Removes Fast DDS segments whose process was killed, and says how many.

    A participant holds a lock on ``fastdds_<id>_el`` as long as it lives. Young files are left alone: their owner may
    be about to lock them. Does what ``fastdds shm clean`` does, for segments only.
    """
    removed = 0
    for marker in folder.glob("fastdds_*_el"):
        if not re.fullmatch(r"fastdds_[0-9a-f]{16}_el", marker.name):
            continue
        with suppress(OSError):
            if time.time() - marker.stat().st_mtime > _STALE_S and _is_unlocked(marker):
                marker.with_name(marker.name.removesuffix("_el")).unlink(missing_ok=True)
                marker.unlink()
                removed += 1
    return removed


def _is_unlocked(marker: Path) -> bool:
    descriptor = os.open(marker, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _shared_memory_bytes() -> int:
    try:
        place = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return place.f_bavail * place.f_frsize
