"""Values for tests, each with all that it needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import msgspec

from celeriac import states
from celeriac.message import (
    Arrival,
    Delivery,
    Join,
    Message,
    Settlement,
    TaskRecord,
    Verdict,
)

QUEUE = "celery"

_numbers = itertools.count(1)


def message(id: str | None = None, **fields: Any) -> Message:
    """A message for the queue ``celery``; its run is named after its id."""
    id = f"task-{next(_numbers)}" if id is None else id
    fields.setdefault("run", f"run-of-{id}")
    fields.setdefault("queue", QUEUE)
    fields.setdefault("routing_key", fields["queue"])
    fields.setdefault("headers", b'{"lang":"py","task":"shop.send","id":"%s"}' % id.encode())
    fields.setdefault("body", b"[[1,2],{},{}]")
    return Message(id=id, **fields)


def messages(*ids: str, **fields: Any) -> list[Message]:
    return [message(id, **fields) for id in ids]


def record(id: str, state: str = states.SUCCESS, **fields: Any) -> TaskRecord:
    """A record of the first run of ``message(id)``; ready if the state is."""
    fields.setdefault("run", f"run-of-{id}")
    fields.setdefault("ready", state in states.READY_STATES)
    fields.setdefault("payload", b'{"status":"%s"}' % state.encode())
    return TaskRecord(id=id, state=state, **fields)


def join(id: str = "join", size: int = 2, **fields: Any) -> Join:
    return Join(id=id, size=size, **fields)


def arrival(index: int, join: str = "join", **fields: Any) -> Arrival:
    """Part ``index`` with a value of its own."""
    fields.setdefault("id", f"part-{index}")
    fields.setdefault("state", states.SUCCESS)
    fields.setdefault("value", b'{"part":%d}' % index)
    return Arrival(join=join, index=index, **fields)


def done(delivery: Delivery, **fields: Any) -> Settlement:
    return Settlement(delivery=delivery, **fields)


def defer(delivery: Delivery, due_at: float | None, **fields: Any) -> Settlement:
    return Settlement(delivery=delivery, verdict=Verdict.DEFER, due_at=due_at, **fields)


def release(delivery: Delivery, **fields: Any) -> Settlement:
    return Settlement(delivery=delivery, verdict=Verdict.RELEASE, **fields)


def bury(delivery: Delivery, reason: str = "broken", **fields: Any) -> Settlement:
    return Settlement(delivery=delivery, verdict=Verdict.BURY, reason=reason, **fields)


def ids(things: Iterable[Any]) -> list[str]:
    """The task ids of messages, deliveries, records or peeked messages, in their order."""
    return [thing.message.id if hasattr(thing, "message") else thing.id for thing in things]


def content(message: Message) -> Message:
    """A message without what a store may keep elsewhere: when it was due, and its key; and
    without the order of its headers."""
    headers = msgspec.json.encode(msgspec.json.decode(message.headers), order="sorted")
    return msgspec.structs.replace(message, due_at=None, dedupe_key=None, headers=headers)
