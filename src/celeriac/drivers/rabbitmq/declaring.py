"""What is declared, bound and asked about over one connection, as AMQP has it."""

from __future__ import annotations

from typing import Any, Final

from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.errors import (
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    ChannelClosed,
    Unreachable,
    declared_otherwise,
)
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.exceptions import OperationalError

DURABLE: Final = 2


class Declarations:
    """Each raises OperationalError, Mismatch if the thing exists with other properties."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def depth(self, queue: str) -> tuple[int, int] | None:
        """How many messages wait, and how many consumers there are; None: no such queue."""
        arguments = b"\x00\x00" + short(queue) + b"\x01" + encode_table({})
        try:
            answer = self._connection.call(frames.QUEUE_DECLARE, arguments, frames.QUEUE_DECLARE_OK)
        except ChannelClosed as closed:
            if closed.code == NOT_FOUND:
                return None
            if closed.code == RESOURCE_LOCKED:
                return 0, 1  # somebody's exclusive queue
            raise self._otherwise("queue", queue, closed) from closed
        _, at = frames.short_at(answer.arguments, 0)
        return (
            int.from_bytes(answer.arguments[at : at + 4], "big"),
            int.from_bytes(answer.arguments[at + 4 : at + 8], "big"),
        )

    def declare_queue(self, name: str, arguments: dict[str, Any], flags: int) -> None:
        data = b"\x00\x00" + short(name) + bytes((flags,)) + encode_table(arguments)
        self._ask("queue", name, frames.QUEUE_DECLARE, data, frames.QUEUE_DECLARE_OK)

    def delete_queue(self, name: str) -> None:
        """With what is in it; one that is not there is no error."""
        data = b"\x00\x00" + short(name) + b"\x00"
        self._ask("queue", name, frames.QUEUE_DELETE, data, frames.QUEUE_DELETE_OK)

    def declare_exchange(
        self,
        name: str,
        kind: str,
        flags: int = DURABLE,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        data = b"\x00\x00" + short(name) + short(kind) + bytes((flags,))
        data += encode_table(arguments or {})
        self._ask("exchange", name, frames.EXCHANGE_DECLARE, data, frames.EXCHANGE_DECLARE_OK)

    def bind_queue(
        self, queue: str, exchange: str, key: str, arguments: dict[str, Any] | None = None
    ) -> None:
        data = b"\x00\x00" + short(queue) + short(exchange) + short(key) + b"\x00"
        data += encode_table(arguments or {})
        self._ask("queue", queue, frames.QUEUE_BIND, data, frames.QUEUE_BIND_OK)

    def unbind_queue(self, queue: str, exchange: str, key: str) -> None:
        data = b"\x00\x00" + short(queue) + short(exchange) + short(key) + encode_table({})
        self._ask("queue", queue, frames.QUEUE_UNBIND, data, frames.QUEUE_UNBIND_OK)

    def bind_exchange(self, target: str, source: str, key: str) -> None:
        data = b"\x00\x00" + short(target) + short(source) + short(key) + b"\x00"
        data += encode_table({})
        self._ask("exchange", target, frames.EXCHANGE_BIND, data, frames.EXCHANGE_BIND_OK)

    def _ask(
        self, what: str, name: str, kind: tuple[int, int], data: bytes, answer: tuple[int, int]
    ) -> None:
        try:
            self._connection.call(kind, data, answer)
        except ChannelClosed as closed:
            raise self._otherwise(what, name, closed) from closed

    def _otherwise(self, what: str, name: str, closed: ChannelClosed) -> OperationalError:
        place = self._connection.endpoint.name
        if closed.code == PRECONDITION_FAILED:
            return declared_otherwise(what, name, closed.text, place)
        return Unreachable(f"The {what} {name!r} on {place} cannot be used: {closed}.")
