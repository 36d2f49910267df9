"""Calls to other nodes' services from a plain thread: several at once, each with a time-out, errors in one line."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import Trigger

from tandem_datasets.errors import TandemError


@dataclass
class Pending:
    """A call under way."""

    where: str
    future: Future
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.future.add_done_callback(lambda _: self.done.set())

    def wait(self, stopping: threading.Event | None = None) -> object:
        """The response; raises TandemError after the time-out."""
        while not self.done.wait(min(0.2, max(0.0, self.deadline - time.monotonic()))):
            if stopping is not None and stopping.is_set():
                raise StoppedError(self.where)
            if time.monotonic() >= self.deadline:
                raise TandemError(f"{self.where}: no answer in time")
        return self.future.result()


class StoppedError(Exception):
    """The process is being stopped while a call was under way."""


class Peer:
    """Another node of the same namespace, as its services ``~/...`` and its parameters."""

    def __init__(self, node: Node, name: str, services: Sequence[str], stopping: threading.Event) -> None:
        self.name = name
        self._node = node
        self._stopping = stopping
        self._triggers: dict[str, Client] = {
            service: node.create_client(Trigger, f"{name}/{service}") for service in services
        }
        self._setter: Client = node.create_client(SetParameters, f"{name}/set_parameters")
        self._known: dict[str, object] = {}  # values that the peer already has from us

    def wait_until_there(self, deadline: float) -> None:
        """Raises TandemError if a service has not appeared by then (steady clock, s)."""
        for client in (*self._triggers.values(), self._setter):
            while not client.service_is_ready():
                if self._stopping.is_set():
                    raise StoppedError(self.name)
                if time.monotonic() > deadline:
                    raise TandemError(f"node '{self.name}' did not come up: no service {client.srv_name}")
                time.sleep(0.01)

    def trigger(self, service: str, timeout_s: float) -> "Reply":
        """Calls a Trigger service."""
        future = self._triggers[service].call_async(Trigger.Request())
        return Reply(Pending(f"{self.name}/{service}", future, time.monotonic() + timeout_s), self._stopping)

    def set(self, values: Mapping[str, bool | int | float | str], timeout_s: float) -> "Reply | None":
        """Sets those parameters whose value has changed since the last call; None if there are none."""
        changed = {name: value for name, value in values.items() if self._known.get(name, self) != value}
        if not changed:
            return None
        self._known.update(changed)
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in changed.items()]
        future = self._setter.call_async(SetParameters.Request(parameters=parameters))
        return Reply(Pending(f"{self.name}/set_parameters", future, time.monotonic() + timeout_s), self._stopping)


@dataclass(frozen=True)
class Reply:
    """What a peer will answer."""

    pending: Pending
    stopping: threading.Event

    def message(self) -> str:
        """A Trigger's message; raises TandemError if it took too long or was refused."""
        response = self.pending.wait(self.stopping)
        if not response.success:  # type: ignore[attr-defined]
            raise TandemError(f"{self.pending.where}: {response.message}")  # type: ignore[attr-defined]
        return response.message  # type: ignore[attr-defined]

    def accepted(self) -> None:
        """Raises TandemError if a parameter was refused."""
        for result in self.pending.wait(self.stopping).results:  # type: ignore[attr-defined]
            if not result.successful:
                raise TandemError(f"{self.pending.where}: {result.reason}")
