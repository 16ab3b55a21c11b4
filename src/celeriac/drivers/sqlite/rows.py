"""Messages as rows, and rows as messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from celeriac.drivers.sqlite.connection import Database, Row
from celeriac.message import Delivery, Message, Owner

__all__ = ["COLUMNS", "deliveries", "message_of", "rank_of", "row_of"]

COLUMNS = 18
"""Of the table messages."""


def rank_of(priority: int) -> int:
    """The highest priority, 9, goes first: rank 0."""
    return 9 - max(0, min(9, priority))


def row_of(message: Message, queue: int, now: float) -> Row:
    """All columns but seq."""
    return (
        message.id,
        message.run,
        queue,
        message.priority,
        message.headers,
        message.body,
        message.content_type,
        message.content_encoding,
        message.exchange,
        message.routing_key,
        message.reply_to,
        message.delivery_mode,
        message.due_at,
        message.expires_at,
        message.join,
        message.dedupe_key,
        now,
    )


def message_of(row: Row, queue: str) -> Message:
    if type(row[5]) is not bytes or type(row[6]) is not bytes:
        row = _mended(row)
    return Message(
        id=row[1],
        run=row[2],
        queue=queue,
        priority=row[4],
        headers=row[5],
        body=row[6],
        content_type=row[7],
        content_encoding=row[8],
        exchange=row[9],
        routing_key=row[10],
        reply_to=row[11],
        delivery_mode=row[12],
        due_at=row[13],
        expires_at=row[14],
        join=row[15],
        dedupe_key=row[16],
    )


def deliveries(
    database: Database, rows: Sequence[Row], owner: Owner, cancelled: Collection[str] = ()
) -> list[Delivery]:
    """From rows of messages' columns followed by lost, redelivered, begun, note."""
    names = database.queue_names({row[3] for row in rows})
    return [
        Delivery(
            message=message_of(row, names[row[3]]),
            owner=owner,
            tag=row[0],
            lost=row[18],
            redelivered=row[19] != 0,
            begun=row[20] != 0,
            note=row[21] or "",
            cancelled=row[1] in cancelled,
        )
        for row in rows
    ]


def _mended(row: Row) -> Row:
    """A row that something else wrote into: bytes again, so that it can be buried."""
    mended: list[Any] = list(row)
    for place in (5, 6):
        value = mended[place]
        if isinstance(value, str):
            mended[place] = value.encode("utf-8", "surrogateescape")
        elif not isinstance(value, bytes):
            mended[place] = b"" if value is None else str(value).encode()
    return tuple(mended)
