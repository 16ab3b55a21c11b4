"""What SQLite itself can do: the same rows moved by plain ``sqlite3`` loops.

The tables, pragmas, claim size and durability are those of the driver; there is no task, no
encoding, no lease and no fence.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from celeriac.drivers import open_broker
from celeriac.utils import uuid

CLAIM = 200
HEADERS = b"x" * 480
BODY = b'[[],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
RECORD = b"r" * 190


def connect(path: Path) -> sqlite3.Connection:
    """A connection as the driver makes it, on its own tables."""
    if not path.exists():
        broker = open_broker(f"sqlite:///{path}")
        broker.open()
        broker.close()
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=4000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


INSERT = (
    "INSERT INTO messages (id, run, queue, priority, headers, body, content_type, "
    "content_encoding, exchange, routing_key, reply_to, delivery_mode, published_at) "
    "VALUES (?, ?, 1, 0, ?, ?, 'application/json', 'utf-8', '', 'celery', '', 2, ?)"
)
READY = (
    "INSERT INTO ready (queue, rank, pos, seq, size, lost, redelivered, begun) "
    "VALUES (1, 9, ?, ?, 500, 0, 0, 0)"
)


def _row() -> tuple[Any, ...]:
    task_id = uuid()
    return (task_id, task_id, HEADERS, BODY, time.time())


def insert_one(connection: sqlite3.Connection) -> None:
    """One message, one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    seq = connection.execute(INSERT, _row()).lastrowid
    connection.execute(READY, (seq, seq))
    connection.execute("COMMIT")


def insert_many(connection: sqlite3.Connection, count: int, batch: int = 500) -> None:
    """``count`` messages, a transaction for each ``batch``."""
    for _ in range(count // batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, [_row() for _ in range(batch)])
        last = connection.execute("SELECT max(seq) FROM messages").fetchone()[0]
        connection.executemany(READY, [(n, n) for n in range(last - batch + 1, last + 1)])
        connection.execute("COMMIT")


def _consume(path: str, owner: int) -> None:
    connection = connect(Path(path))
    while True:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(
            "SELECT m.seq, m.id, m.headers, m.body, r.rank, r.pos FROM ready r "
            "JOIN messages m ON m.seq = r.seq WHERE r.queue = 1 ORDER BY r.rank, r.pos LIMIT ?",
            (CLAIM,),
        ).fetchall()
        connection.executemany(
            "DELETE FROM ready WHERE queue = 1 AND rank = ? AND pos = ?",
            [(row[4], row[5]) for row in rows],
        )
        connection.executemany(
            "INSERT INTO inflight (owner, seq, queue, rank, pos, size, lost, redelivered, begun) "
            "VALUES (?, ?, 1, 9, ?, 500, 0, 0, 0)",
            [(owner, row[0], row[0]) for row in rows],
        )
        connection.execute("COMMIT")
        if not rows:
            return
        connection.execute("BEGIN IMMEDIATE")
        now = time.time()
        connection.executemany(
            "INSERT INTO results (id, run, state, ready, payload, expires_at) "
            "VALUES (?, ?, 'SUCCESS', 1, ?, ?)",
            [(row[1], row[1], RECORD, now + 86400) for row in rows],
        )
        connection.executemany(
            "DELETE FROM inflight WHERE owner = ? AND seq = ?", [(owner, row[0]) for row in rows]
        )
        connection.executemany("DELETE FROM messages WHERE seq = ?", [(row[0],) for row in rows])
        connection.execute("COMMIT")


def consume(path: Path, processes: int = 2) -> float:
    """Drain the queue with that many processes; seconds."""
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork")
    start = time.perf_counter()
    running = [
        context.Process(target=_consume, args=(str(path), number)) for number in range(processes)
    ]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return time.perf_counter() - start
