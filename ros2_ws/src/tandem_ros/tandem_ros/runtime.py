"""What every node's process does alike: start, spin, stop on a signal, end with one line when something is wrong."""

import functools
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from tandem_ros.environment import prepare_this_process
from tandem_ros.lifeline import watch_parent

watch_parent()  # before the slow imports
prepare_this_process()

import rclpy  # noqa: E402
from rclpy.exceptions import InvalidParameterTypeException, ParameterException, ROSInterruptException  # noqa: E402
from rclpy.executors import ExternalShutdownException  # noqa: E402
from rclpy.experimental import EventsExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402

from tandem_datasets.embodiment import Embodiment  # noqa: E402
from tandem_datasets.errors import TandemError  # noqa: E402

_SPIN_S = 0.1
_SWITCH_S = 0.0005  # a thread that a message has woken should not wait 5 ms for a busy one
_HISTORY_BYTES = 64 << 20

RELIABLE = QoSProfile(depth=512, reliability=ReliabilityPolicy.RELIABLE)
"""For everything small that must not get lost."""
LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""For what late comers want to know, too."""


def image_qos(image_bytes: int) -> QoSProfile:
    """Reliable, and as deep as 64 MB allow, within 16..512 images."""
    depth = max(16, min(512, _HISTORY_BYTES // max(1, image_bytes)))
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


class Runtime:
    """Where callbacks and threads of a node's process report their failure, and how it is told to stop."""

    def __init__(self) -> None:
        self.executor = EventsExecutor()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._spinning = False

    def fail(self, error: BaseException) -> None:
        """Ends the process with this error; the first one counts. Any thread may call it."""
        self._failure = self._failure or error
        self.stop()

    def stop(self) -> None:
        """Ends the process. Any thread may call it."""
        self._stop.set()
        self.executor.wake()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def guarded[**P, R](self, callback: Callable[P, R]) -> Callable[P, R | None]:
        """The callback with failures reported: one raised inside the executor would take it down mid-task."""

        @functools.wraps(callback)  # rclpy looks at the signature to choose what it passes
        def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  (it is raised again outside the executor)
                self.fail(error)
                return None

        return run

    def spin(self) -> None:
        """Runs callbacks until told to stop; raises what a callback or thread failed with."""
        self._spinning = True
        gc.collect()
        gc.freeze()  # modules need no more collecting; a full collection would take milliseconds of a control period
        try:
            while not self._stop.is_set() and rclpy.ok():
                self.executor.spin_once(timeout_sec=_SPIN_S)
        except (ExternalShutdownException, ROSInterruptException):
            pass
        except Exception as error:  # noqa: BLE001  (a guarded service has no answer to send: what broke counts)
            self._failure = self._failure or error
        if self._failure is not None:
            raise self._failure

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: at once while the node is being built, after the current callback later."""
        self._stop.set()
        if not self._spinning:
            raise KeyboardInterrupt


def run_node[N: Node](build: Callable[[Runtime], N], close: Callable[[N], None]) -> int:
    """Builds a node, spins it until it is told to stop, closes it; the exit status of its process.

    0 when stopped by a signal or by itself, 2 with one line ``error: ...`` on a TandemError.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    sys.setswitchinterval(_SWITCH_S)
    runtime = Runtime()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, runtime.interrupt)
    node: N | None = None
    status = 0
    try:
        node = build(runtime)
        runtime.executor.add_node(node)
        runtime.spin()
    except KeyboardInterrupt:
        pass
    except TandemError as error:
        status = _say(error)
    except (ParameterException, InvalidParameterTypeException) as error:
        status = _say(error)
    finally:
        runtime.stop()
        if node is not None:
            close(node)
        runtime.executor.shutdown()
        rclpy.try_shutdown()
    return status


def _say(error: BaseException) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 2


def hurry(cores: int = 1) -> None:
    """Real time: asks for the real-time scheduler for this process, and changes nothing if that is not allowed.

    On a busy machine ordinary threads wait for a core for 5 ms and more, these for less than 1 ms. All threads must
    have it, or one that waits for the interpreter's lock is held up by one that has to wait for a core.

    Args:
        cores: how many this process can keep busy at once; refused if that were all of the machine.
    """
    if cores >= (os.cpu_count() or 1):
        return
    for thread in map(int, os.listdir("/proc/self/task")):  # new threads inherit it
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))


def parameter[T: (bool, int, float, str)](node: Node, name: str, default: T) -> T:
    """Declares a parameter and gives its value, of the default's type."""
    kind = Parameter.Type.from_parameter_value(default)
    value: Any = node.declare_parameter(name, default).value
    if isinstance(default, float) and isinstance(value, int):
        return float(value)  # type: ignore[return-value]
    if Parameter.Type.from_parameter_value(value) is not kind:
        raise TandemError(f"{node.get_name()}: parameter {name} is {value!r} (allowed: {type(default).__name__})")
    return value


def json_parameter(node: Node, name: str, text: str) -> Any:
    """The value of a parameter that holds JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TandemError(f"{node.get_name()}: parameter {name} is no JSON: {error}") from error


def embodiment_parameter(node: Node) -> Embodiment:
    """The parameter ``embodiment``, JSON of ``Embodiment.to_dict``: of something that can be commanded."""
    text = parameter(node, "embodiment", "")
    where = f"{node.get_name()}: parameter embodiment"
    embodiment = Embodiment.from_dict(json_parameter(node, "embodiment", text), where)
    embodiment.require_action(where)
    return embodiment
