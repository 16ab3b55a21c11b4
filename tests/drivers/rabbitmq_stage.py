"""What the tests of ``amqp://`` share: one private node for all, a new virtual host for each."""

from __future__ import annotations

import atexit
import functools
import time
from pathlib import Path
from typing import Any

from tests.servers import RabbitServer

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

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if self.arguments is not None:
            self.options["queues"] = Described(self.arguments)
        self.clock.start_at(time.time())
        self.clock.run()

    def new_url(self, folder: Path) -> str:
        return shared_server().new_vhost()

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
