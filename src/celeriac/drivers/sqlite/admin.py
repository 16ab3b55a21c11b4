"""The queue administration of ``sqlite://``."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence

import msgspec

from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.claiming import drop, held_now, hold, no_lease, owner_made
from celeriac.drivers.sqlite.connection import Row
from celeriac.drivers.sqlite.publishing import add_messages
from celeriac.drivers.sqlite.rows import COLUMNS, message_of
from celeriac.drivers.sqlite.sequence import remove_messages
from celeriac.drivers.sqlite.statements import statements
from celeriac.drivers.sqlite.upkeep import promote_due
from celeriac.message import (
    Delivery,
    Message,
    MessageState,
    Owner,
    Peeked,
    QueueInfo,
    Removed,
    WorkerInfo,
)
from celeriac.utils import uuid

__all__ = ["SqliteQueueAdmin"]

_SQL = statements("admin")
_UNSTARTED = statements("messages")["unstarted"]
_LEASE = statements("leases")["lease"]
_DROP_DEAD = statements("upkeep")["drop_dead"]

PURGED_AT_ONCE = 5000
"""Messages that one transaction removes."""

_NAMES = {
    MessageState.WAITING: "waiting",
    MessageState.DELAYED: "delayed",
    MessageState.IN_FLIGHT: "inflight",
    MessageState.DEAD: "dead",
}


class SqliteQueueAdmin:
    """Celeriac's QueueAdmin contract over a broker."""

    def __init__(self, broker: SqliteBroker) -> None:
        self._broker = broker
        self._database = broker.kept

    # --- looking

    def queues(self) -> list[QueueInfo]:
        promote_due(self._database, self._broker.clock())
        with self._database.read() as connection:

            def counts(name: str) -> dict[int, int]:
                return dict(connection.execute(_SQL[f"{name}_counts"]).fetchall())

            delayed, in_flight, dead = counts("delayed"), counts("inflight"), counts("dead")
            waiting: dict[int, int] = {}
            oldest: dict[int, float] = {}
            for queue, count, seq in connection.execute(_SQL["ready_counts"]).fetchall():
                waiting[queue] = count
                for (at,) in connection.execute(_SQL["published_at"], (seq,)):
                    oldest[queue] = at
            queues = connection.execute(_SQL["queues"]).fetchall()
        infos = [
            QueueInfo(
                name=name,
                waiting=waiting.get(id, 0),
                delayed=delayed.get(id, 0),
                in_flight=in_flight.get(id, 0),
                dead=dead.get(id, 0),
                paused=paused != 0,
                oldest_at=oldest.get(id),
            )
            for id, name, paused in queues
        ]
        return [i for i in infos if i.paused or i.waiting or i.delayed or i.in_flight or i.dead]

    def workers(self) -> list[WorkerInfo]:
        now = self._broker.clock()
        return [
            WorkerInfo(
                lease=lease,
                name=name,
                hostname=hostname,
                pid=pid,
                alive=expires_at > now,
                since=since,
                expires_at=expires_at,
                in_flight=held,
            )
            for lease, name, hostname, pid, since, expires_at, held in self._database.fetch(
                _SQL["workers"]
            )
        ]

    def peek(
        self, queue: str | None, state: MessageState, limit: int = 100, after: str = ""
    ) -> list[Peeked]:
        promote_due(self._database, self._broker.clock())
        limit = max(0, limit)
        ids = {name: id for id, name, _ in self._database.fetch(_SQL["queues"])}
        if queue is not None and queue not in ids:
            return []
        if state is MessageState.WAITING:
            return self._peek_waiting(ids, queue, limit, after)
        start = (math.inf, 0) if state is MessageState.DEAD else (-math.inf, 0)
        first, second = _position(after) or start
        number = None if queue is None else ids[queue]
        rows = self._database.fetch_lossy(
            _SQL[f"peek_{_NAMES[state]}"], (number, first, second, limit)
        )
        return self._peeked(rows, state)

    def _peek_waiting(
        self, ids: dict[str, int], queue: str | None, limit: int, after: str
    ) -> list[Peeked]:
        """The lines one after another by name; a cursor says in which one, and where."""
        names = sorted(ids) if queue is None else [queue]
        line, _, place = after.partition("/")
        found: list[Peeked] = []
        started = not after
        for name in names:
            here = str(ids[name]) == line
            if not started and not here:
                continue
            first, second = (_position(place) if here else None) or (-1, 0)
            started = True
            rows = self._database.fetch_lossy(
                _SQL["peek_waiting"], (ids[name], first, second, limit - len(found))
            )
            found += self._peeked(rows, MessageState.WAITING)
            if len(found) >= limit:
                break
        return found

    def find(self, ids: Sequence[str]) -> list[Peeked]:
        promote_due(self._database, self._broker.clock())
        wanted = (json.dumps(list(dict.fromkeys(ids))),)
        found: list[Peeked] = []
        with self._database.read() as connection:
            rows = {
                state: connection.execute(_SQL[f"find_{name}"], wanted).fetchall()
                for state, name in _NAMES.items()
            }
        for state, some in rows.items():
            found += self._peeked(some, state)
        place = {id: number for number, id in enumerate(dict.fromkeys(ids))}
        return sorted(found, key=lambda peeked: place.get(peeked.message.id, 0))

    def _peeked(self, rows: Sequence[Row], state: MessageState) -> list[Peeked]:
        names = self._database.queue_names({row[3] for row in rows})
        return [_peeked(row, names[row[3]], state) for row in rows]

    # --- changing

    def pause(self, queue: str, paused: bool = True) -> None:
        with self._database.write() as connection:
            connection.execute(_SQL["pause"], (queue, int(paused)))

    def revive(self, ids: Sequence[str]) -> int:
        now = self._broker.clock()
        with self._database.write() as connection:
            wanted = (json.dumps(list(ids)),)
            seqs = [row[0] for row in connection.execute(_SQL["dead_of"], wanted)]
            rows = connection.execute(_SQL["whole"], (json.dumps(seqs),)).fetchall()
            names = {id: name for id, name, _ in connection.execute(_SQL["queues"])}
            messages = [_anew(message_of(row, names[row[3]])) for row in rows]
            self._remove_dead(connection, seqs)
            add_messages(self._database, connection, messages, now, 0.0)
        return len(messages)

    def delete(self, owner: Owner, ids: Sequence[str]) -> Removed:
        wanted = (json.dumps(list(dict.fromkeys(ids))),)
        with self._database.write() as connection:
            owner_id = self._owner(connection, owner)
            dead = [row[0] for row in connection.execute(_SQL["dead_of"], wanted)]
            self._remove_dead(connection, dead)
            seqs = [row[0] for row in connection.execute(_UNSTARTED, wanted)]
            parts = self._remove(connection, owner_id, seqs)
        handed = self._handed(owner, owner_id, parts)
        return Removed(count=len(dead) + len(seqs) - len(parts), parts=tuple(handed))

    def purge(self, owner: Owner, queue: str) -> Removed:
        count = 0
        parts: list[int] = []
        while True:
            with self._database.write() as connection:
                owner_id = self._owner(connection, owner)
                number = self._database.names.queue_id(connection, queue)
                rows = connection.execute(_SQL["some_of_queue"], (number, PURGED_AT_ONCE))
                seqs = sorted(row[0] for row in rows.fetchall())
                held = self._remove(connection, owner_id, seqs)
            count += len(seqs) - len(held)
            parts += held
            if len(seqs) < PURGED_AT_ONCE:
                handed = self._handed(owner, owner_id, parts)
                return Removed(count=count, parts=tuple(handed))

    def _owner(self, connection: sqlite3.Connection, owner: Owner) -> int:
        if connection.execute(_LEASE, (owner.lease,)).fetchone() is None:
            raise no_lease(self._broker.store, owner)
        return owner_made(self._database, connection, owner)

    def _remove(
        self, connection: sqlite3.Connection, owner_id: int, seqs: Sequence[int]
    ) -> list[int]:
        """Waiting and delayed ones: gone, or the owner's if they belong to a join: those."""
        joined = [row[0] for row in connection.execute(_SQL["joined"], (json.dumps(seqs),))]
        hold(connection, owner_id, joined)
        free = sorted(set(seqs).difference(joined))
        drop(connection, free)
        remove_messages(connection, free)
        return joined

    def _remove_dead(self, connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
        """At once: their joins were told when they were buried."""
        connection.execute(_DROP_DEAD, (json.dumps(seqs),))
        remove_messages(connection, seqs)

    def _handed(self, owner: Owner, owner_id: int, seqs: Sequence[int]) -> list[Delivery]:
        if not seqs:
            return []
        return held_now(self._database, owner, owner_id, seqs, self._broker.clock())


def _anew(message: Message) -> Message:
    return msgspec.structs.replace(message, run=uuid(), due_at=None, dedupe_key=None)


def _position(cursor: str) -> tuple[float, int] | None:
    """Both parts of a cursor; None for what is no cursor of ours: from the beginning."""
    first, _, second = cursor.partition("/")
    try:
        return float(first), int(second)
    except ValueError:
        return None


def _peeked(row: Row, queue: str, state: MessageState) -> Peeked:
    message = message_of(row, queue)
    cursor, lost, *more = row[COLUMNS:]
    if state is MessageState.WAITING:
        cursor = f"{row[3]}/{cursor}"
    if state is MessageState.DELAYED and more[0] != message.due_at:
        message = msgspec.structs.replace(message, due_at=more[0])
    if state is MessageState.DEAD:
        reason, at = more
        return Peeked(message=message, state=state, cursor=cursor, lost=lost, reason=reason, at=at)
    return Peeked(message=message, state=state, cursor=cursor, lost=lost, at=row[COLUMNS - 1])
