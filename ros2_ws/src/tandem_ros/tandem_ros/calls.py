"""Calls to other nodes' services from a plain thread: several at once, each with a time-out, errors in one line."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from tandem_datasets.errors import TandemError
from tandem_ros.runtime import RELIABLE

_LOOK_S = 0.2
_AGAIN_S = 2.0
_ASK_S = 1.0
_RELEASE, _RESULT = "release", "result"


class StoppedError(Exception):
    """The process is being stopped while a call was under way."""


class Line:
    """The line to one service.

    A server may hear a client before it can answer it: the two directions are discovered one after the other, and the
    answer is lost then. So calls are repeated until the first answer has come, and the services of our nodes answer a
    repeated call like the first.
    """

    def __init__(self, client: Client, stopping: threading.Event) -> None:
        self.client = client
        self.stopping = stopping
        self.works = False

    def wait_until_there(self, deadline: float) -> None:
        """Raises TandemError if the service has not appeared by then (steady clock, s)."""
        while not self.client.service_is_ready():
            if self.stopping.is_set():
                raise StoppedError(self.client.srv_name)
            if time.monotonic() > deadline:
                raise TandemError(f"no service {self.client.srv_name}: its node did not come up in time")
            time.sleep(0.01)


class Reply:
    """What a service will answer; the request is already out."""

    def __init__(self, line: Line, request: Any, where: str, timeout_s: float) -> None:
        self._line = line
        self._request = request
        self._where = where
        self._answers: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._sent: list[Future] = []
        self._deadline = time.monotonic() + timeout_s
        self._send()

    def message(self) -> str:
        """A Trigger's message; raises TandemError if it took too long or was refused."""
        response = self.response()
        if not response.success:
            raise TandemError(f"{self._where}: {response.message}")
        return response.message

    def accepted(self) -> None:
        """Raises TandemError if a parameter was refused."""
        for result in self.response().results:
            if not result.successful:
                raise TandemError(f"{self._where}: {result.reason}")

    def _send(self) -> None:
        self._again = time.monotonic() + _AGAIN_S
        future = self._line.client.call_async(self._request)
        self._sent.append(future)
        future.add_done_callback(self._answers.put)

    def response(self) -> Any:
        """Whatever was answered; raises TandemError if it took too long."""
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK_S).result()
                break
            except queue.Empty:
                self._look()
        self._line.works = True
        for future in self._sent:
            self._line.client.remove_pending_request(future)
        return answer

    def _look(self) -> None:
        now = time.monotonic()
        if self._line.stopping.is_set():
            raise StoppedError(self._where)
        if now > self._deadline:
            raise TandemError(f"{self._where}: no answer in time")
        if now > self._again and not self._line.works:
            self._send()


class Ending:
    """The end of an episode: told on the topic ``~/ended``, asked for by the service ``~/result`` if that gets lost.

    A service that waits for the end would be simpler, but the EventsExecutor runs a callback that awaits something
    round and round: it takes a core from the policy.
    """

    def __init__(self, told: queue.SimpleQueue[str], line: Line, where: str, timeout_s: float) -> None:
        self._told = told
        self._line = line
        self._where = where
        self._deadline = time.monotonic() + timeout_s

    def message(self) -> str:
        """What was told; raises TandemError if it took too long."""
        ask = time.monotonic() + _ASK_S
        while True:
            try:
                return self._told.get(timeout=_LOOK_S)
            except queue.Empty:
                now = time.monotonic()
            if self._line.stopping.is_set():
                raise StoppedError(self._where)
            if now > self._deadline:
                raise TandemError(f"{self._where}: no answer in time")
            if now > ask:
                ask = now + _ASK_S
                response = Reply(self._line, Trigger.Request(), self._where, self._deadline - now).response()
                if response.success:
                    return response.message

    def accepted(self) -> None:
        """As for a parameter: waits, and leaves what was told."""
        self.message()


class Peer:
    """Another node of the same namespace, as its services ``~/...`` and its parameters."""

    def __init__(self, node: Node, name: str, services: Sequence[str], stopping: threading.Event) -> None:
        self.name = name
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        if _RESULT in services:
            node.create_subscription(String, f"{name}/ended", lambda told: self._ended.put(told.data), RELIABLE)
        self._triggers = {
            service: Line(node.create_client(Trigger, f"{name}/{service}"), stopping) for service in services
        }
        self._setter = Line(node.create_client(SetParameters, f"{name}/set_parameters"), stopping)
        self._known: dict[str, object] = {}  # values that the peer already has from us

    def wait_until_there(self, deadline: float) -> None:
        """Raises TandemError if a service has not appeared by then (steady clock, s)."""
        for line in (*self._triggers.values(), self._setter):
            line.wait_until_there(deadline)

    def trigger(self, service: str, timeout_s: float) -> "Reply | Ending":
        """Calls a Trigger service; ``result`` waits for the episode's end."""
        if service == _RESULT:
            return Ending(self._ended, self._triggers[service], f"{self.name}/{service}", timeout_s)
        if service == _RELEASE:  # what was told until now is of an earlier episode
            while not self._ended.empty():
                self._ended.get_nowait()
        return Reply(self._triggers[service], Trigger.Request(), f"{self.name}/{service}", timeout_s)

    def set(self, values: Mapping[str, bool | int | float | str], timeout_s: float) -> Reply:
        """Sets parameters; of several only those whose value has changed since the last call."""
        changed = {name: value for name, value in values.items() if self._known.get(name, self) != value}
        if len(values) == 1:
            changed = dict(values)
        self._known.update(changed)
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in changed.items()]
        request = SetParameters.Request(parameters=parameters)
        return Reply(self._setter, request, f"{self.name}/set_parameters", timeout_s)
