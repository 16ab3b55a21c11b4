"""Sending: frames of many messages, one wait for all of their confirms."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from celeriac.drivers.rabbitmq import frames, letters
from celeriac.drivers.rabbitmq.connection import WORK, Connection
from celeriac.drivers.rabbitmq.errors import NothingTaken, Unreachable
from celeriac.drivers.rabbitmq.frames import Content
from celeriac.drivers.rabbitmq.tables import short
from celeriac.drivers.rabbitmq.topology import Topology
from celeriac.drivers.rabbitmq.urls import Options
from celeriac.message import Message, TaskRecord
from celeriac.protocol import serialization
from celeriac.utils import uuid

_CHUNK: Final = 1024 * 1024  # bytes in one write; what the server says is heard in between
_MOST_HEADS: Final = 1000
_PAUSES: Final = (0.1, 0.3, 0.6)  # seconds, before what was refused whole is sent again


class Parcel(Struct, frozen=True, gc=False):
    """The frames of one message but for the first, which says where to, and whose queue they are
    for. ``mandatory``: it is an error if nobody gets it."""

    exchange: str
    routing_key: str
    queue: str
    data: bytes
    mandatory: bool = True


class Sender:
    """Publishes on one connection."""

    def __init__(self, connection: Connection, topology: Topology, options: Options) -> None:
        self._connection = connection
        self._topology = topology
        self._clock = options.clock
        self._heads: dict[tuple[str, str, bool], bytes] = {}
        self._reply_flags, self._reply_before = _reply_properties(options)

    # --- building -------------------------------------------------------------------------------

    def parcel(self, message: Message) -> Parcel:
        """A message that is sent for the first time. Its queue is declared. Raises EncodeError,
        Mismatch, QueueNotFound."""
        queue, exchange, key = message.queue, message.exchange, message.routing_key
        self._topology.queue(queue)
        to_all = self._topology.is_broadcast(queue)
        if to_all and not exchange:
            exchange, key = self._topology.way_to(queue)
        extra: dict[str, Any] = {}
        if message.dedupe_key is not None:
            extra[letters.DEDUPE] = message.dedupe_key
            extra[letters.PUBLISH_ID] = uuid()
        direct = not exchange or self._topology.is_direct(queue, exchange)
        if not exchange:
            key = queue
            if message.routing_key != queue:
                extra[letters.ROUTING_KEY] = message.routing_key
        due_at = message.due_at
        delay = 0.0 if due_at is None else due_at - self._clock()
        if delay > 0:
            extra[letters.DUE] = due_at
            if direct or to_all:
                if exchange:
                    extra[letters.EXCHANGE], extra[letters.ROUTING_KEY] = exchange, key
                exchange, key = self._topology.delay(queue, delay)
            else:
                extra[letters.EXCHANGE], extra[letters.ROUTING_KEY] = exchange, key
                exchange, key = self._topology.celery_delay(exchange, key, delay)
                self._topology.celery_target(queue)
        return self.frames_of(message, extra, exchange, key, queue, mandatory=not to_all)

    def copy(
        self, letter: letters.Letter, changes: Mapping[str, Any], due_at: float | None = None
    ) -> Parcel:
        """A message that came in, for the end of its queue now or when due. ``changes``: headers
        of ours; None removes one."""
        extra = letters.carried(letter)
        extra.update(changes)
        return self._back(letter.message, letter.home, extra, due_at)

    def next_try(self, message: Message, letter: letters.Letter) -> Parcel:
        """The next try of the message that came in: for the queue that it came from, and not for
        others that its exchange leads to."""
        return self._back(message, letter.home, letters.way(message, letter.home), message.due_at)

    def _back(
        self, message: Message, queue: str, extra: dict[str, Any], due_at: float | None
    ) -> Parcel:
        delay = 0.0 if due_at is None else due_at - self._clock()
        exchange, key = "", queue
        if delay > 0:
            extra[letters.DUE] = due_at
            exchange, key = self._topology.delay(queue, delay)
        extra = {name: value for name, value in extra.items() if value is not None}
        return self.frames_of(message, extra, exchange, key, queue)

    def dead(self, letter: letters.Letter, reason: str) -> Parcel:
        """A message that came in, as a dead letter."""
        queue = letter.message.queue
        extra = letters.carried(letter)
        extra.update(
            {
                letters.REASON: reason,
                letters.BURIED_AT: self._clock(),
                letters.QUEUE: queue,
            }
        )
        return self.frames_of(letter.message, extra, "", self._topology.dead(queue), queue)

    def frames_of(
        self,
        message: Message,
        extra: Mapping[str, Any],
        exchange: str,
        key: str,
        queue: str,
        *,
        mandatory: bool = True,
    ) -> Parcel:
        """The message with these headers of ours, for this exchange and key."""
        flags, properties = letters.properties(message, extra)
        data = frames.content(WORK, flags, properties, message.body, self._connection.frame_max)
        return Parcel(exchange, key, queue, data, mandatory)

    def reply(self, record: TaskRecord) -> bytes:
        """A result, to the queue of whoever asked for it; nobody may be there any more."""
        head = self._head("", record.reply_to, False)
        return head + frames.content(
            WORK,
            self._reply_flags,
            self._reply_before + short(record.id),
            record.payload,
            self._connection.frame_max,
        )

    def _head(self, exchange: str, key: str, mandatory: bool) -> bytes:
        head = self._heads.get((exchange, key, mandatory))
        if head is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            head = frames.publish(WORK, exchange, key, mandatory)
            self._heads[exchange, key, mandatory] = head
        return head

    # --- sending --------------------------------------------------------------------------------

    def send(self, parcels: Sequence[Parcel], before: bytes = b"") -> None:
        """All are the server's when it returns. Raises OperationalError."""
        if before:
            self._connection.send(before)
        returned = self._taken(parcels)
        if not returned:
            return
        # A queue was deleted since it was declared: declare again what can be, once. What it got
        # of this batch before has gone with it.
        gone = {(content.exchange, content.routing_key) for content in returned}
        again = [parcel for parcel in parcels if (parcel.exchange, parcel.routing_key) in gone]
        for queue in {parcel.queue for parcel in again}:
            self._topology.restore(queue)
        returned = self._confirmed(again)
        if returned:
            raise _unroutable(returned[0], self._connection.endpoint.name)

    def _taken(self, parcels: Sequence[Parcel]) -> list[Content]:
        """What no queue took. A quorum queue that was made just now has no leader for a moment and
        refuses all: nothing of the batch is there, so it can be sent again."""
        for pause in _PAUSES:
            try:
                return self._confirmed(parcels)
            except NothingTaken:
                time.sleep(pause)
        return self._confirmed(parcels)

    def _confirmed(self, parcels: Sequence[Parcel]) -> list[Content]:
        """Send, and wait for all confirms; what no queue took. The first and the last message of
        each way are mandatory, and speak for those between them: the server checks each one that
        is, at a fifth of its work."""
        connection = self._connection
        connection.returned.clear()
        connection.taken = False
        pieces: list[bytes] = []
        size = 0
        last = {(parcel.exchange, parcel.routing_key): parcel for parcel in parcels}
        begun: set[tuple[str, str]] = set()
        for parcel in parcels:
            way = parcel.exchange, parcel.routing_key
            mandatory = parcel.mandatory and (way not in begun or parcel is last[way])
            begun.add(way)
            connection.published += 1
            pieces += (self._head(*way, mandatory), parcel.data)
            size += len(parcel.data)
            if size >= _CHUNK:
                connection.send(b"".join(pieces))
                pieces, size = [], 0
                while connection.read(0.0):
                    pass
        if pieces:
            connection.send(b"".join(pieces))
        connection.await_confirms()
        returned, connection.returned = connection.returned, []
        # A reply that nobody waits for comes back only if it was sent as mandatory; it is not.
        return returned


def _reply_properties(options: Options) -> tuple[int, bytes]:
    """Flags and what stands before the task id in the properties of a result."""
    flags = 1 << 15 | 1 << 14 | 1 << 12 | 1 << 10
    content_type = serialization.serializer_type(options.serializer)
    encoding = "binary" if content_type == serialization.PICKLE_TYPE else "utf-8"
    mode = 2 if options.results_persistent else 1
    return flags, short(content_type) + short(encoding) + bytes((mode,))


def _unroutable(content: Content, place: str) -> Unreachable:
    return Unreachable(
        f"RabbitMQ at {place} has no queue for the message {content.properties.correlation_id} "
        f"(exchange {content.exchange!r}, routing key {content.routing_key!r}: {content.reply}). "
        "Bind a queue there (task_queues), or send it by queue=."
    )
