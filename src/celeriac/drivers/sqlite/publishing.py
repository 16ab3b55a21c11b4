"""Putting messages in, within the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.rows import rank_of, row_of
from celeriac.drivers.sqlite.sequence import next_seq
from celeriac.drivers.sqlite.statements import statements
from celeriac.message import Message

__all__ = ["add_messages"]

_SQL = statements("messages")
_INSERT, _READY, _DELAYED = _SQL["insert"], _SQL["insert_ready"], _SQL["insert_delayed"]
_INSERT_NEXT, _TAKE_KEYS = _SQL["insert_next"], _SQL["take_keys"]


def add_messages(
    database: Database,
    connection: sqlite3.Connection,
    messages: Sequence[Message],
    now: float,
    window: float,
) -> int:
    """Store them, waiting or delayed; those whose key was seen are left out. How many stay."""
    if len(messages) == 1 and messages[0].dedupe_key is None:
        _add_one(database, connection, messages[0], now)
        return 1
    if any(message.dedupe_key is not None for message in messages):
        messages = _unseen(connection, messages, now, window)
    if messages:
        _add_many(database, connection, messages, now)
    return len(messages)


def _add_one(
    database: Database, connection: sqlite3.Connection, message: Message, now: float
) -> None:
    execute = connection.execute
    queue = database.names.queue_id(connection, message.queue)
    rank = rank_of(message.priority)
    seq = execute(_INSERT_NEXT, row_of(message, queue, now)).lastrowid
    if message.due_at is None or message.due_at <= now:
        execute(_READY, (queue, rank, seq, seq, message.size))
    else:
        execute(_DELAYED, (seq, message.due_at, queue, rank, message.size))


def _add_many(
    database: Database, connection: sqlite3.Connection, messages: Sequence[Message], now: float
) -> None:
    ready: list[tuple[int, int, int, int, int]] = []
    delayed: list[tuple[int, float, int, int, int]] = []
    rows = []
    queues = {
        name: database.names.queue_id(connection, name) for name in {m.queue for m in messages}
    }
    for seq, message in enumerate(messages, next_seq(connection)):
        queue = queues[message.queue]
        rows.append((seq, *row_of(message, queue, now)))
        rank = rank_of(message.priority)
        if message.due_at is None or message.due_at <= now:
            ready.append((queue, rank, seq, seq, message.size))
        else:
            delayed.append((seq, message.due_at, queue, rank, message.size))
    connection.executemany(_INSERT, rows)
    if ready:
        connection.executemany(_READY, ready)
    if delayed:
        connection.executemany(_DELAYED, delayed)


def _unseen(
    connection: sqlite3.Connection, messages: Sequence[Message], now: float, window: float
) -> list[Message]:
    """Of each key that is not held, the first message; and all without a key."""
    keys = json.dumps([m.dedupe_key for m in messages if m.dedupe_key is not None])
    new = {key for (key,) in connection.execute(_TAKE_KEYS, (now + window, keys, now)).fetchall()}
    kept: list[Message] = []
    for message in messages:
        if message.dedupe_key is None:
            kept.append(message)
        elif message.dedupe_key in new:
            new.discard(message.dedupe_key)
            kept.append(message)
    return kept
