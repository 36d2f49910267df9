"""Ends a node when the process that started it is gone, even by ``kill -9``.

The supervisor keeps the write end of each node's standard input and never writes. When it dies, whatever the reason,
the operating system closes that end and the node reads the end of the file.

``python -m tandem_ros.lifeline MODULE [arguments]`` runs a module so, from before its first import on.
"""

import os
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

VARIABLE = "TANDEM_LIFELINE"  # the supervisor's own folder, which is then of no more use
FOLDER = "tandem-graph-"  # what its name begins with
_GRACE_S = 1.0


def watch_parent() -> bool:
    """Watches from a thread if a supervisor started this process; else, and when called again, does nothing.

    At the end of the lifeline the process gets SIGINT, as from Ctrl-C, and 1 s later it is ended.
    """
    folder = os.environ.pop(VARIABLE, None)  # children of a node do not share its standard input
    if folder is None:
        return False
    descriptor = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    threading.Thread(target=_watch, args=(descriptor, Path(folder)), name="lifeline", daemon=True).start()
    return True


def _watch(descriptor: int, folder: Path) -> None:
    while os.read(descriptor, 1):
        pass
    if folder.name.startswith(FOLDER):
        shutil.rmtree(folder, ignore_errors=True)  # every node of the graph tries
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_S)
    os._exit(1)


def main() -> None:
    """Runs ``sys.argv[1]`` as ``python -m`` would, under the lifeline."""
    watch_parent()
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # told to stop while it still imports: no traceback
        sys.exit(130)


if __name__ == "__main__":
    main()
