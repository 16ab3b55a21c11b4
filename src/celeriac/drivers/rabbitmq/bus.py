"""The event bus of ``amqp://``: a direct exchange, and a short queue for each listener."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Final

from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.bell import Bell
from celeriac.drivers.rabbitmq.connection import WORK, Connection, connection_name
from celeriac.drivers.rabbitmq.declaring import Declarations
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.drivers.rabbitmq.urls import Options
from celeriac.exceptions import OperationalError
from celeriac.utils import uuid

EXCHANGE: Final = "celeriac_events"
KEPT: Final = 10_000  # events that wait for a listener; beyond it, the oldest are dropped
_WINDOW: Final = 1000
_ARGUMENTS: Final = {"x-max-length": KEPT, "x-overflow": "drop-head", "x-message-ttl": 60_000}
_EXCLUSIVE: Final = 4 + 8  # exclusive, auto-delete


class RabbitEventBus:
    """Every object is one listener: it hears what was emitted since its first ``listen``. A
    connection that breaks is made again; what was emitted meanwhile is lost to it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._queue = ""
        self._topics: set[str] = set()
        self._closed = False
        self._wakes = 0
        self._bell = Bell()
        self._bell.open()

    def emit(self, topic: str, payload: bytes = b"") -> None:
        with self._lock:
            connection = self._line()
            data = frames.publish(WORK, EXCHANGE, topic, False)
            data += frames.content(WORK, 1 << 12, b"\x01", payload, connection.frame_max)
            connection.published += 1
            connection.send(data)
            while connection.read(0.0):  # the confirms
                pass

    def _line(self) -> Connection:
        connection = self._connection
        if connection is not None and connection.alive:
            try:
                while connection.read(0.0):
                    pass
                return connection
            except OperationalError:
                pass  # it has ended; a new one is made
        connection = self._connection = Connection(self.options, connection_name("events"))
        self._queue = ""
        Declarations(connection).declare_exchange(EXCHANGE, "direct")
        return connection

    def listen(self, topics: Iterable[str], timeout: float) -> list[tuple[str, bytes]]:
        deadline = time.monotonic() + timeout
        wanted = set(topics)
        with self._lock:
            self._closed = False
            wakes = self._wakes
        while True:
            with self._lock:
                if self._closed:
                    return []
                connection = self._line()
                self._attend(connection, wanted)
                heard = self._heard(connection)
                left = deadline - time.monotonic()
                if heard or left <= 0 or self._wakes != wakes:
                    return heard
                fd = connection.fileno()
            self._bell.sleep(fd, left)

    def _attend(self, connection: Connection, topics: set[str]) -> None:
        """The queue is there and gets these topics."""
        declarations = Declarations(connection)
        if not self._queue:
            self._queue = f"celeriac.events.{uuid()}"
            self._topics = set()
            declarations.declare_queue(self._queue, dict(_ARGUMENTS), _EXCLUSIVE)
            qos = b"\x00\x00\x00\x00" + _WINDOW.to_bytes(2, "big") + b"\x00"
            connection.call(frames.QOS, qos, frames.QOS_OK, on=WORK)
            data = b"\x00\x00" + short(self._queue) + short("events") + b"\x00" + encode_table({})
            connection.call(frames.CONSUME, data, frames.CONSUME_OK, on=WORK)
        for topic in topics - self._topics:
            declarations.bind_queue(self._queue, EXCHANGE, topic)
        for topic in self._topics - topics:
            declarations.unbind_queue(self._queue, EXCHANGE, topic)
        self._topics = topics

    def _heard(self, connection: Connection) -> list[tuple[str, bytes]]:
        came = connection.deliveries
        if not came:
            return []
        connection.send(frames.ack(WORK, came[-1].tag, True))
        heard = [
            (content.routing_key, content.body)
            for content in came
            if content.routing_key in self._topics
        ]
        came.clear()
        return heard

    def wake(self) -> None:
        with self._lock:
            self._wakes += 1
        self._bell.ring()

    def close(self) -> None:
        """Listen no more; a waiting ``listen`` returns."""
        self._bell.ring()
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        self._bell.close()
