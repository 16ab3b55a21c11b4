"""Holding a message for longer than the server lets us, or without its being run again.

A guarded message is in a queue of this connection alone, delivered to it at once and held
unacknowledged; its original is acknowledged. When the connection ends, the message is older than
the queue's time to live, and the server puts it back into the queue that it came from, with what
the guard wrote on it. A message is guarded anew before the server's consumer timeout (30 minutes)
would end the channel.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from celeriac.drivers.rabbitmq import frames, letters
from celeriac.drivers.rabbitmq.connection import WORK, Connection
from celeriac.drivers.rabbitmq.consuming import ARGUMENTS, Held, Inbox
from celeriac.drivers.rabbitmq.errors import Unreachable
from celeriac.drivers.rabbitmq.publishing import Sender
from celeriac.drivers.rabbitmq.tables import short
from celeriac.drivers.rabbitmq.topology import DELIVERY, Topology, word
from celeriac.utils import uuid

EXCHANGE: Final = "celeriac_guard"
PREFIX: Final = "celeriac.guard."
CONSUMER: Final = "guard"
_TTL: Final = 200  # milliseconds; an unacknowledged message does not expire
_QUEUE_KEPT: Final = 3_600_000  # of a process that is gone; its messages have left it long before


class Guard:
    """The guard queue of one connection, made when it is first needed."""

    def __init__(self, connection: Connection, topology: Topology, sender: Sender) -> None:
        self._connection = connection
        self._topology = topology
        self._sender = sender
        self._name = ""

    def take(self, inbox: Inbox, held: Held, changes: Mapping[str, Any]) -> None:
        """Put the message under guard, with changed headers. Raises OperationalError."""
        queue = held.letter.home
        self._open()
        self._topology.reachable(queue)
        extra = letters.carried(held.letter)
        extra.update(changes)
        key = f"{self._name}.{word(queue)}"
        parcel = self._sender.frames_of(held.letter.message, extra, EXCHANGE, key, queue)
        inbox.flush()
        self._sender.send([parcel])
        content = self._arrival()
        old = held.tag
        inbox.exchange(old, content.tag)
        held.tag = content.tag
        held.letter = letters.read(content, held.letter.message.queue, queue)
        held.since = time.monotonic()
        self._connection.send(frames.ack(WORK, old))

    def _arrival(self) -> frames.Content:
        deadline = time.monotonic() + 5.0
        came = self._connection.asides[CONSUMER]
        while not came:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreachable(
                    f"{self._connection.endpoint.name} did not hand back a guarded message in time."
                )
            self._connection.read(left)
        return came.popleft()

    def _open(self) -> None:
        if self._name:
            return
        name = uuid()
        queue = PREFIX + name
        topology = self._topology
        topology.declare_exchange(EXCHANGE, "topic")
        topology.declare_exchange(DELIVERY, "topic")
        arguments: dict[str, Any] = {
            "x-message-ttl": _TTL,
            "x-expires": _QUEUE_KEPT,
            "x-dead-letter-exchange": DELIVERY,
        }
        topology.declare_delay_queue(queue, arguments)
        topology.bind_queue(queue, EXCHANGE, f"{name}.#")
        data = b"\x00\x00" + short(queue) + short(CONSUMER) + b"\x00" + ARGUMENTS
        qos = b"\x00\x00\x00\x00" + (1000).to_bytes(2, "big") + b"\x00"
        self._connection.call(frames.QOS, qos, frames.QOS_OK, on=WORK)
        self._connection.call(frames.CONSUME, data, frames.CONSUME_OK, on=WORK)
        self._name = name


def was_guarded(extra: Mapping[str, Any]) -> bool:
    """Has the message come back from the guard of a process that is gone?"""
    deaths = extra.get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], dict):
        return False
    return str(deaths[0].get("queue", "")).startswith(PREFIX)
