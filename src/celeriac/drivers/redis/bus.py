"""The event bus of ``redis://``: publish and subscribe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import Connection, forget_after_fork, pack
from celeriac.drivers.redis.options import read_options
from celeriac.drivers.redis.sockets import readable
from celeriac.drivers.redis.waiting import Bell
from celeriac.exceptions import OperationalError

__all__ = ["KEPT", "RedisEventBus"]

KEPT = 10_000
"""Events that wait for a listener; beyond it, the oldest are dropped."""


class RedisEventBus:
    """Every object is one listener: it hears what was emitted since its first ``listen``. While
    the server is away events are lost, as nobody listens."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._options = read_options(url, options)
        self._client = Client(self._options)
        # Channels are one space for all databases of a server.
        self._head = f"{self._options.prefix}/{self._options.db}.celeriac/"
        self._bell = Bell()
        self._closed = False
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        old: Connection | None = getattr(self, "_connection", None)
        if old is not None:
            old.abandon()
        self._connection: Connection | None = None
        self._topics: set[str] = set()
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=KEPT)

    def emit(self, topic: str, payload: bytes = b"") -> None:
        self._client.call(pack(("PUBLISH", self._head + topic, payload)))

    def listen(self, topics: Iterable[str], timeout: float) -> list[tuple[str, bytes]]:
        self._closed = False
        deadline = time.monotonic() + timeout
        wanted = set(topics)
        ear = self._bell.listen()
        rings = self._bell.rings
        try:
            connection = self._subscribed(wanted)
            while not self._closed:
                self._hear(connection)
                heard = [event for event in self._heard if event[0] in wanted]
                self._heard.clear()
                left = deadline - time.monotonic()
                if heard or left <= 0 or self._bell.rings != rings:
                    return heard
                readable(connection.socket, left, ear.fd)
        except OperationalError:
            self._drop()
            if not self._closed:
                raise
        finally:
            ear.close()
        return []

    def _subscribed(self, topics: set[str]) -> Connection:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._client.connect(3)
            self._topics = set()
        for command, names in (
            ("SUBSCRIBE", topics - self._topics),
            ("UNSUBSCRIBE", self._topics - topics),
        ):
            if names:
                connection.send(pack((command, *(self._head + name for name in names))))
        if topics - self._topics:
            connection.call(pack(("PING",)))  # its answer comes after the subscription
        self._topics = set(topics)
        return connection

    def _hear(self, connection: Connection) -> None:
        while not connection.is_nothing(connection.listen()):
            pass
        for push in connection.pushes:
            if push[0] == b"message":
                topic = push[1].decode("utf-8", "replace").removeprefix(self._head)
                self._heard.append((topic, push[2]))
        connection.pushes.clear()

    def wake(self) -> None:
        self._bell.ring()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Listen no more; a waiting ``listen`` returns."""
        self._closed = True
        self._bell.ring()
        self._drop()
        self._client.close()
        self._heard.clear()
