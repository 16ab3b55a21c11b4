"""What the tests of ``amqp://`` share: one private node for all, a new virtual host for each."""

from __future__ import annotations

import atexit
import functools
import time
from pathlib import Path
from typing import Any

from tests.servers import RabbitServer

from celeriac.contracts import Capabilities
from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.broker import RabbitBroker
from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.notes import STREAM
from celeriac.drivers.rabbitmq.tables import short
from celeriac.drivers.rabbitmq.topology import DEAD, DELAYED, LEVELS, Topology
from celeriac.drivers.rabbitmq.urls import read_options
from celeriac.routing.queues import Exchange, Queue
from celeriac.testing import StoreUnderTest


@functools.cache
def shared_server() -> RabbitServer:
    """Started when it is first asked for; it ends with the tests."""
    server = RabbitServer()
    atexit.register(server.__exit__)
    server.start()
    return server


class Described(dict[str, Queue]):
    """Queues as an application would describe them, each made when it is looked up."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments

    def __missing__(self, name: str) -> Queue:
        self[name] = Queue(name, Exchange(""), name, queue_arguments=self.arguments)
        return self[name]


class OnRabbit(StoreUnderTest):
    """Classic queues with priorities. The server goes by its own time: short times are waited for,
    longer ones are jumped over by the driver's clock alone."""

    unreachable_url = "amqp://127.0.0.1:1/%2F"
    arguments: dict[str, Any] | None = {"x-max-priority": 9}
    recycled = True  # the virtual host, when the test has passed and nothing is delayed in it

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if self.arguments is not None:
            self.options["queues"] = Described(self.arguments)
        self.options["delayed_queue_type"] = "classic"  # which are made more quickly
        self.clock.start_at(time.time())
        self.clock.run()

    def new_url(self, folder: Path) -> str:
        return shared_server().new_vhost()

    @property
    def capabilities(self) -> Capabilities:
        return RabbitBroker.capabilities

    def close(self) -> None:
        used = {"celery"}
        if not (self._others or self._open):  # the test was skipped
            return shared_server().give_back(self.url)
        for part in (self, *self._others):
            if "broker" in vars(part):
                used |= set(part.broker.queue_names())  # type: ignore[attr-defined]
        super().close()
        if self.recycled and _emptied(self.url, used):
            shared_server().give_back(self.url)
        return None

    def advance(self, seconds: float) -> None:
        if seconds < 10:
            time.sleep(seconds)
        else:
            self.clock.advance(seconds)


class OnQuorum(OnRabbit):
    arguments = {"x-queue-type": "quorum"}


class Undescribed(OnRabbit):
    """As other processes, which know nothing of the test's options, see the queues."""

    arguments = None
    recycled = False


def _emptied(url: str, queues: set[str]) -> bool:
    """Delete these queues and what belongs to them; is nothing left?"""
    connection = Connection(read_options(url, {}), "emptying")
    topology = Topology(connection, None, "classic")
    for name in (*queues, *(queue + DEAD for queue in queues), STREAM):
        arguments = b"\x00\x00" + short(name) + b"\x00"
        connection.call(frames.QUEUE_DELETE, arguments, frames.QUEUE_DELETE_OK)
    levels = [topology.depth(f"{DELAYED}_{level}") for level in range(LEVELS)]
    connection.close()
    return all(level is None or not level[0] for level in levels)
