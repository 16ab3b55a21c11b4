"""Publishing: one message is one LPUSH to Celery's list; all else that must happen at once is a
script."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import pack
from celeriac.drivers.redis.envelope import encode, step_of
from celeriac.drivers.redis.errors import Refused
from celeriac.drivers.redis.place import ResultPlace
from celeriac.drivers.redis.scripts import script
from celeriac.drivers.redis.settling import check, join_rows, message_row
from celeriac.message import Join, Message

__all__ = ["Publisher"]

_PUBLISH = script("publish")

KNOWN_FOR = 60.0
"""Seconds after which a process notes again that a queue exists (the server may be a new one)."""
_REMEMBERED = 1000


class Publisher:
    """The way into the lists for one broker object."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.options = client.options
        self._heads: dict[tuple[str, int], bytes] = {}
        self._known: dict[str, float] = {}

    def publish(
        self, messages: Sequence[Message], joins: Sequence[Join], results_at: ResultPlace
    ) -> int:
        """See Broker.publish; joins are opened where results are."""
        if len(messages) == 1 and not joins:
            message = messages[0]
            if type(message) is Message and message.dedupe_key is None:
                return self._push(message)
        if not messages and not joins:
            return 0
        check(messages, joins)
        for queue in {message.queue for message in messages}:
            self.note_queue(queue)
        first = messages[0] if messages else None
        if first is not None and not joins and all(_alike(first, other) for other in messages):
            return self._push_many(messages)
        options, now = self.options, self.options.now()
        args: list[Any] = [
            options.prefix,
            options.separator,
            repr(options.dedupe_window),
            options.db,
            results_at.db,
            results_at.prefix,
            len(joins),
            len(messages),
            *join_rows(joins, now),
        ]
        for message in messages:
            args += message_row(message, options, now)
        return int(self.client.run(_PUBLISH, *args))

    def _push(self, message: Message) -> int:
        queue = message.queue
        now = time.monotonic()
        if now - self._known.get(queue, -KNOWN_FOR) >= KNOWN_FOR:
            self.note_queue(queue)
        head = self._heads.get((queue, message.priority))
        if head is None:
            head = self._head(queue, message.priority)
        data = encode(message, self.options.now())
        self.client.call(b"%b$%d\r\n%b\r\n" % (head, len(data), data))
        return 1

    def _head(self, queue: str, priority: int) -> bytes:
        key = self._list(queue, priority).encode()
        head = b"*3\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (len(key), key)
        if len(self._heads) < _REMEMBERED:
            self._heads[queue, priority] = head
        return head

    def _push_many(self, messages: Sequence[Message]) -> int:
        now = self.options.now()
        key = self._list(messages[0].queue, messages[0].priority)
        self.client.call(pack(("LPUSH", key, *(encode(message, now) for message in messages))))
        return len(messages)

    def _list(self, queue: str, priority: int) -> str:
        step = step_of(priority, self.options.priority_steps)
        suffix = f"{self.options.separator}{step}" if step else ""
        return self.options.prefix + queue + suffix

    def note_queue(self, queue: str) -> None:
        """So that it is known to operators and to maintain; once in a while."""
        now = time.monotonic()
        if now - self._known.get(queue, -KNOWN_FOR) < KNOWN_FOR:
            return
        try:
            self.client.call(pack(("SADD", self.client.base + b"queues", queue)))
        except Refused as refused:
            if refused.code != "OOM":
                raise
            return  # a full server is to be emptied all the same
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        self._known[queue] = now


def _alike(first: Message, other: Message) -> bool:
    """Do both go to the same list, without a key?"""
    return (
        other.dedupe_key is None and other.queue == first.queue and other.priority == first.priority
    )
